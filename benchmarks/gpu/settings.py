"""Ways to run farm on a device. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

GRAPHS = {"on": True, "off": False}  # of model.cuda_graphs; `auto` is what farm does without it


@dataclass(frozen=True, slots=True)
class Setting:
    """One. `processes`: workers a device."""

    backend: str = "torch"
    precision: str = "fp16"
    graphs: str = "auto"
    decode: str = "exact"
    batch: int = 32
    processes: int = 2

    def __str__(self) -> str:
        graphs = "" if self.graphs == "auto" else f", graphs {self.graphs}"
        decode = "" if self.decode == "exact" else f", decode {self.decode}"
        return f"{self.backend} {self.precision}{graphs}{decode}, {self.processes} × batch {self.batch}"

    @property
    def model(self) -> dict[str, Any]:
        """The keys of the config's `model` section."""
        keys: dict[str, Any] = {"backend": self.backend, "precision": self.precision, "decode": self.decode}
        return keys if self.graphs == "auto" else {**keys, "cuda_graphs": GRAPHS[self.graphs]}

    @classmethod
    def of(cls, line: dict[str, Any]) -> Setting:
        """The setting that a line of the journal is about."""
        return cls(**{each.name: line[each.name] for each in fields(cls)})


def settings(choices: dict[str, Sequence[Any]], largest: dict[str, int]) -> Iterator[Setting]:
    """The first choice of everything; then, with the rest as it is, each other choice of one thing after the other.

    `choices`: by field of a Setting. `largest`: the largest batch that a backend takes.
    """
    base = Setting(**{name: values[0] for name, values in choices.items()})
    others = (replace(base, **{name: value}) for name, values in choices.items() for value in values[1:])
    for setting in dict.fromkeys((base, *others)):
        yield replace(setting, batch=min(setting.batch, largest.get(setting.backend, setting.batch)))


def networks(choices: dict[str, Sequence[Any]]) -> Iterator[Setting]:
    """All ways to execute the network: every backend and precision, with graphs and without where it has them."""
    base = Setting()
    for backend in choices["backend"]:
        for precision in choices["precision"]:
            for graphs in ("on", "off") if backend == "torch" else ("auto",):
                yield replace(base, backend=backend, precision=precision, graphs=graphs)
