"""What is said of an error that preparing or predicting an image has raised."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from farm.machine import shortage
from farm.machine.tracebacks import where
from farm.models.base import is_device_lost, is_out_of_memory


def named(error: Exception) -> tuple[str, str]:
    """Type and message of a failed row. Libraries have many names for memory that was refused: here it has one."""
    message = f"{error} ({where(error)})"
    if shortage.is_out_of_memory(error):
        return "MemoryError", f"not enough memory for this image: {message}"
    return type(error).__name__, message


@dataclass(frozen=True, slots=True)
class BatchFailure:
    """Why a batch was not predicted, without the error itself, whose frames keep what the device holds for them."""

    kind: str
    message: str
    out_of_memory: bool
    device_lost: bool

    @classmethod
    def of(cls, error: Exception) -> BatchFailure:
        """What must be known of the error; the frames of its traceback hold nothing any more."""
        kind, message = named(error)
        traceback.clear_frames(error.__traceback__)
        return cls(kind, message, is_out_of_memory(error), is_device_lost(error))


class DeviceLostError(Exception):
    """The device has failed this process for good. `kind` is the type of the error that said so."""

    def __init__(self, failure: BatchFailure) -> None:
        super().__init__(failure.message)
        self.kind = failure.kind
