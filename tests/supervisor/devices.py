"""Devices that are made up, a worker each, as a factory of models. The number of a worker's process is its device's.

    model: {factory: "tests.supervisor.devices:make", args: {sleep_ms: [10, 10, 10, 20], lost: 1, after: 100, flag: /tmp/f}}

`sleep_ms`: of an image, on each device. The device `lost` is lost with the image after `after` others of it, as `how`
says: `call` (every call fails from then on; a new process has it again), `good` (no process has it again), or `kill`
(its process is killed). `flag`: a file that is made then.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from farm.models.fake import AcceleratorError, FakeModel

LOST = "CUDA error: an illegal memory access was encountered"


class OneOfSeveral(FakeModel):
    """Labels as any fake model does, until its device is lost."""

    def finish(self, launched: Any) -> Any:
        if self.left is not None:
            self.left -= len(launched[1])
            if self.left < 0:
                self.lose()
        return super().finish(launched)

    def lose(self) -> None:
        self.flag.touch()
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        self._is_lost = True
        raise AcceleratorError(LOST)


def make(sleep_ms: Sequence[float], lost: int, after: int, how: str, flag: str, **args: Any) -> FakeModel:
    number = int(multiprocessing.current_process().name.rpartition("-")[2])
    was_lost = Path(flag).exists()
    if number == lost and how == "good" and was_lost:
        raise RuntimeError("CUDA error: unknown error")
    model = OneOfSeveral(sleep_ms=sleep_ms[number], overlaps=True, pixels=True, **args)
    model.flag, model.how = Path(flag), how
    model.left = after if number == lost and not was_lost else None
    return model
