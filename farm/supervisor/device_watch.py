"""How the run's CUDA devices are used, for its summary. Costs the supervisor nothing: a thread of its own looks."""

from __future__ import annotations

from collections.abc import Sequence

from farm.core.placement import Placement
from farm.core.summary import DeviceUse
from farm.machine.device_load import DeviceLoad


class DeviceWatch:
    """From the first worker's readiness to the last commit. On a CPU, or where nothing tells it, there is none."""

    def __init__(self, placements: Sequence[Placement]) -> None:
        self._devices = {placement.uuid: placement.device for placement in placements if placement.uuid}
        self._load = DeviceLoad(tuple(self._devices))

    def start(self) -> None:
        """May be called again."""
        if self._devices:
            self._load.start()

    def stop(self) -> tuple[DeviceUse, ...]:
        """What was seen until now, by device. Does not wait. May be called again."""
        seen = self._load.stop()
        return tuple(
            DeviceUse(device, load.busy, load.peak_bytes, load.total_bytes)
            for uuid, device in self._devices.items()
            if (load := seen.get(uuid)) is not None
        )
