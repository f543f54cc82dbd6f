"""What a worker is told at its start. Built by whoever starts it; travels pickled."""

from __future__ import annotations

from dataclasses import dataclass

from farm.config.sections import ModelConfig
from farm.core.placement import Placement
from farm.images.place_check import Identity


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """All that a worker is told at its start. `uid` is unique in the run; `index` is kept by successors.

    `rows`: of the heartbeats. `host_silence_s`: how long a worker host, whose row is the last, may stand still before
    its worker kills it; None where the parent is a supervisor. `root_id`: which folder `root` was when the run began;
    `example`: an image of it that was read earlier. `digest`: of what is to be loaded. `listed`: items were examined
    when they were listed, so that one whose file is not there may be said to be gone. `elsewhere`: where else the
    lister has looked for a file that is not below `root`.
    """

    uid: int
    index: int
    rows: int
    placement: Placement
    model: ModelConfig
    root: str
    max_pixels: int
    heartbeats: str
    environment: dict[str, str]
    host_silence_s: float | None = None
    root_id: Identity | None = None
    example: str | None = None
    digest: str | None = None
    listed: bool = True
    elsewhere: str | None = None
