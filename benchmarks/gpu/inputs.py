"""What every step is given. Made once, by the command line; sent to the steps' processes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much a step measures. Images, but for what ends in `_s`."""

    smoke: int = 128
    tasks: int = 64
    predict: int = 1024
    farm: int = 20_000
    kill: int = 12_000
    farm_s: float = 15.0  # of labelling, after which a run of farm is stopped
    loop_s: float = 2.0  # of a loop that is timed
    passes: int = 10  # of the network, of each shape
    shapes: int = 8  # letterboxed shapes for the network alone, the most frequent first


FULL = Sizes()
# To try the steps:
TINY = Sizes(
    smoke=4, tasks=2, predict=8, farm=24, kill=48, farm_s=15.0, loop_s=0.2, passes=1, shapes=2
)  # to try the steps


@dataclass(frozen=True, slots=True)
class Inputs:
    """`photographs`: files. `listed`: the same under as many names as the largest step needs; links in `folder`.

    `devices`: as torch names them; `cpu` alone to try the steps without a GPU.
    """

    photographs: list[str]
    listed: list[str]
    weights: str
    devices: list[str]
    folder: str
    sizes: Sizes

    @property
    def device(self) -> str:
        """The first one."""
        return self.devices[0]

    @property
    def on_cuda(self) -> bool:
        return self.device != "cpu"

    @property
    def farm_devices(self) -> str | list[int]:
        """As the config's `workers.devices` has them."""
        return list(range(len(self.devices))) if self.on_cuda else "cpu"

    @property
    def reference(self) -> Path:
        """Where `smoke` leaves what the CPU finds in the first photographs."""
        return Path(self.folder) / "reference.pickle"

    def some(self, count: int) -> list[str]:
        """So many of `listed`; all where there are fewer."""
        return self.listed[:count]


def cpus() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


def links(photographs: list[str], count: int, folder: Path) -> list[str]:
    """So many names, each a link to a photograph: the system reads each file from a disk once, and then remembers it.

    The first names are the photographs in their order, as rows are compared by.
    """
    folder.mkdir(parents=True)
    made = []
    for number in range(count):
        photograph = Path(photographs[number % len(photographs)]).resolve()
        link = folder / f"{number:07d}{photograph.suffix}"
        link.symlink_to(photograph)
        made.append(str(link))
    return made
