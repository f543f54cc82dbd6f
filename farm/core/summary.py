"""What a run says of itself: `Snapshot` while it goes on, `Summary` at its end. Plain data, no I/O.

The supervisor, or the driver, makes snapshots, and `farm.api` the summary; the live view, `summary.json` and callers of
`farm.run` read them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

STOPPING = "stopping after what is in hand"
STOPS_AT_ONCE = "; Ctrl-C again: at once"


def stopping(signals: int) -> str:
    """What a snapshot notes of a run that comes to its end early; `signals`: how many have said so."""
    return STOPPING + (STOPS_AT_ONCE if signals else "")


@dataclass(frozen=True, slots=True)
class Failure:
    """One kind of failure, by stage, type and wording: how often it was seen, and the first image it was seen on."""

    stage: str
    type: str
    count: int
    example: str
    message: str


@dataclass(frozen=True, slots=True)
class WorkerSnapshot:
    """One worker at this moment. `state`: starting, idle, decoding, predicting, sending, dead or stopped."""

    worker: int
    pin: str
    state: str
    images: int
    images_per_s: float
    restarts: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run at this moment. `total` is None until the source is counted; `done` = ok + failed, earlier runs left out.

    `skipped` are those of the entries listed so far that earlier runs have dealt with; `failed_before` images failed
    then and are not tried again; `gone` were deleted since they were listed. Rates are over the last few seconds.
    """

    elapsed_s: float
    total: int | None
    skipped: int
    ok: int
    failed: int
    detections: int
    images_per_s: float
    committed: int
    workers: tuple[WorkerSnapshot, ...]
    note: str = ""
    gone: int = 0
    failed_before: int = 0
    task: str | None = None

    @property
    def done(self) -> int:
        return self.ok + self.failed

    @property
    def progress(self) -> int:
        """How much of the source is dealt with. Rows of what has vanished are not of the source any more."""
        progress = self.skipped + self.done + self.gone
        return progress if self.total is None else min(progress, self.total)


@dataclass(frozen=True, slots=True)
class WorkerStart:
    """One start of a worker: seconds from its process to its readiness, and memory that no other process shares."""

    worker: int
    ready_s: float
    own_bytes: int


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended. Counts cover the whole run directory; `images_per_s` and `wall_s` this session alone.

    listed = ok + failed + gone when the run is complete; `interrupted` names the signal that stopped it early, and
    `remaining` is then what a rerun would still have to do (None where the source was not listed to its end).
    `labelling_s` is the part of `wall_s` that `images_per_s` is of: from the first worker's readiness to the last
    commit. `detections` are boxes, of masks and poses as well; where the task is to classify, `classes` counts those
    that came first in an image. `stage_s` are seconds by stage, of all workers together; `agreement` says how another
    backend, a lower precision or reduced decoding compares with torch in fp32 (fields of
    `farm.models.conversion.agreement.Agreement`). `left` are images of earlier runs, among `ok`, that could not be
    looked at this time. `left_out` counts what this session saw in the source and did not list: files by extension,
    `excluded`, and folders `made by farm`. `gone` are images that were listed once and are not there any more.
    """

    run_dir: str
    listed: int
    ok: int
    failed: int
    skipped: int
    detections: int
    images_per_s: float
    wall_s: float
    restarts: int
    exit_code: int
    interrupted: str | None = None
    remaining: int | None = 0
    failures: tuple[Failure, ...] = ()
    stage_s: dict[str, float] = field(default_factory=dict)
    bottleneck: str = ""
    backend: str = "torch"
    precision: str = "fp32"
    agreement: dict[str, Any] | None = None
    starts: tuple[WorkerStart, ...] = ()
    exports: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    left: int = 0
    gone: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    labelling_s: float = 0.0
    task: str | None = None
    classes: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The summary as JSON-able values, as `summary.json` holds it."""
        return asdict(self)
