"""What a run asks for: weights that a backend is to execute on a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from farm.config.sections import ModelConfig


@dataclass(frozen=True, slots=True)
class Request:
    """Weights that a backend is to execute on a device: `digest` is theirs, `sample` some paths of the images."""

    config: ModelConfig
    digest: str
    backend: str
    device: str
    sample: Sequence[str] = ()

    @property
    def is_converted(self) -> bool:
        return self.config.is_convertible and self.backend != "torch"

    @property
    def is_compared(self) -> bool:
        """May what it finds differ from what the reference finds?"""
        return bool(self.sample) and (self.is_converted or is_lowered(self.config))

    @property
    def reference(self) -> str:
        """What it is compared with, in words. Of a model that was exported elsewhere there is no torch."""
        exported = "the same model" if self.config.precision == "fp32" else "the same model in fp32"
        model = "torch fp32" if self.config.is_convertible else exported
        return model if self.config.decode == "exact" else f"{model} and exact decoding"


def is_lowered(config: ModelConfig) -> bool:
    """Whether the config trades exact labels for speed."""
    return config.decode != "exact" or config.precision != "fp32"
