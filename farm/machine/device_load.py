"""How busy CUDA devices are while something runs, and how full their memory: looked at again and again by a thread.

NVML is asked once a second where its Python binding is installed. Else nvidia-smi is, less often: each time it is a
process that takes tens of milliseconds. Nobody waits for either, and what goes wrong is not said: where nothing is
known, nothing is shown. A driver that hangs keeps the thread and nobody else.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence

from farm.machine import nvidia_smi, nvml
from farm.machine.nvml import Reading

NVML_EVERY_S = 1.0  # the driver's own share is taken over so long, or a part of it
NVIDIA_SMI_EVERY_S = 5.0


class Load:
    """One device's, over all looks at it."""

    def __init__(self) -> None:
        self._looks = 0
        self._sum = 0.0
        self.peak_bytes: int | None = None
        self.total_bytes: int | None = None

    @property
    def busy(self) -> float | None:
        """Mean share of the time in which it computed, 0 to 1; None where that was never known."""
        return self._sum / self._looks if self._looks else None

    def note(self, reading: Reading) -> None:
        if reading.busy is not None:
            self._sum += reading.busy
            self._looks += 1
        if reading.used_bytes is not None:
            self.peak_bytes = max(reading.used_bytes, self.peak_bytes or 0)
            self.total_bytes = reading.total_bytes


class DeviceLoad:
    """Looks at some devices from `start` to `stop`. Both return at once, and never fail."""

    def __init__(self, uuids: Sequence[str]) -> None:
        self._uuids = uuids
        self._loads: dict[str, Load] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """May be called again, and after `stop`: then it does nothing."""
        if self._thread is not None or self._stopping.is_set():
            return
        self._thread = threading.Thread(target=self._look, name="farm-device-load", daemon=True)
        with contextlib.suppress(RuntimeError):  # no more threads may be started
            self._thread.start()

    def stop(self) -> Mapping[str, Load]:
        """What was seen, by uuid."""
        self._stopping.set()
        return dict(self._loads)

    def _look(self) -> None:
        with contextlib.suppress(Exception), nvml.opened() as library:
            if library is not None:
                self._note_each(NVML_EVERY_S, lambda: nvml.readings(library, self._uuids))
            elif nvidia_smi.is_there():
                self._note_each(NVIDIA_SMI_EVERY_S, lambda: nvidia_smi.readings(self._uuids))

    def _note_each(self, every_s: float, look: Callable[[], Mapping[str, Reading]]) -> None:
        """Note what each look sees. The first is after the first pause: what came before is not labelling."""
        while not self._stopping.wait(every_s):
            for uuid, reading in look().items():
                self._loads.setdefault(uuid, Load()).note(reading)
