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
    """One kind of failure: images that failed in the same stage, with the same type and wording."""

    stage: str
    """Where it failed: `read`, `decode`, `predict`, and others."""
    type: str
    """The name of the error, such as `Truncated` or `Timeout`."""
    count: int
    """How many images failed like that."""
    example: str
    """The path of the first of them."""
    message: str
    """The error of that image, in words."""


@dataclass(frozen=True, slots=True)
class WorkerSnapshot:
    """One worker at this moment."""

    worker: int
    """Its index, from 0 on."""
    pin: str
    """Where it runs: its CPU cores or its device."""
    state: str
    """One of starting, idle, decoding, predicting, sending, dead, restarting and stopped."""
    images: int
    """How many it has labelled."""
    images_per_s: float
    """Its rate over the last few seconds."""
    restarts: int
    """How often it was replaced."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run at this moment. Without a word to the contrary, counts are of this session alone."""

    elapsed_s: float
    """Seconds since the run began."""
    total: int | None
    """Images of the source; None until they are counted."""
    skipped: int
    """Images listed so far that earlier sessions have dealt with."""
    ok: int
    """Images labelled."""
    failed: int
    """Images that failed."""
    detections: int
    """Objects found."""
    images_per_s: float
    """The rate over the last few seconds."""
    committed: int
    """Images whose rows are on the disk."""
    workers: tuple[WorkerSnapshot, ...]
    """Every worker."""
    note: str = ""
    """What the run is waiting for, or is about to do, in words."""
    gone: int = 0
    """Images that were deleted since they were listed."""
    failed_before: int = 0
    """Images that failed in earlier sessions and are not tried again."""
    task: str | None = None
    """The model's task; None until a worker has loaded it."""

    @property
    def done(self) -> int:
        """Images that have a result: ok + failed."""
        return self.ok + self.failed

    @property
    def progress(self) -> int:
        """How many images of the source are dealt with. It is never more than `total`."""
        progress = self.skipped + self.done + self.gone
        return progress if self.total is None else min(progress, self.total)


@dataclass(frozen=True, slots=True)
class WorkerStart:
    """One start of a worker."""

    worker: int
    """Its index, from 0 on."""
    ready_s: float
    """Seconds from the start of its process until it was ready."""
    own_bytes: int
    """Memory that it shares with no other process, when it was ready."""


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """How a CUDA device was used while images were labelled, as its driver says. Other programs' work counts, too."""

    device: str
    """As `workers.devices` numbers it, such as `cuda:0`."""
    busy: float | None
    """The mean share of the time in which it computed, 0 to 1; None where the driver does not say, as of a slice."""
    peak_bytes: int | None
    """The most of its memory that was in use."""
    total_bytes: int | None
    """All of its memory."""


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended. Counts are of the whole run directory; rates, times and restarts are of this session alone."""

    run_dir: str
    """The run directory: a path, or a URL."""
    listed: int
    """ok + failed + gone + remaining, as far as that is known. Complete: ok + failed + gone."""
    ok: int
    """Images labelled."""
    failed: int
    """Images that failed."""
    skipped: int
    """Images whose rows are from earlier sessions."""
    detections: int
    """Boxes, also of masks and poses."""
    images_per_s: float
    """Images of this session, over `labelling_s`."""
    wall_s: float
    """Seconds from the call to its end."""
    restarts: int
    """How many workers were replaced."""
    exit_code: int
    """What the command exits with."""
    interrupted: str | None = None
    """The signal that stopped the run early."""
    remaining: int | None = 0
    """Images that the same command would still have to label; None if the source was not listed to its end."""
    failures: tuple[Failure, ...] = ()
    """Failed images, by kind."""
    stage_s: dict[str, float] = field(default_factory=dict)
    """Seconds by stage, of all workers together."""
    bottleneck: str = ""
    """Where the time went and what would help, in a sentence."""
    backend: str = "torch"
    """What executed the network."""
    precision: str = "fp32"
    """In which precision it computed."""
    agreement: dict[str, Any] | None = None
    """How far labels agree with torch in fp32 and exact decoding: `farm.models.conversion.agreement.Agreement`."""
    starts: tuple[WorkerStart, ...] = ()
    """Every start of a worker."""
    exports: dict[str, str] = field(default_factory=dict)
    """Where each export was written."""
    warnings: tuple[str, ...] = ()
    """What the user should know, a sentence each."""
    left: int = 0
    """Images of earlier sessions, among `ok`, that could not be looked at this time."""
    gone: int = 0
    """Images that were listed once and are not there any more."""
    left_out: dict[str, int] = field(default_factory=dict)
    """What was seen in the source and not listed: files by extension, `excluded`, and folders `made by farm`."""
    labelling_s: float = 0.0
    """Seconds from the first worker's readiness to the last commit."""
    task: str | None = None
    """The model's task."""
    classes: int = 0
    """Of a classification: how many classes came first in some image."""
    devices: tuple[DeviceUse, ...] = ()
    """How each CUDA device was used, where that is known."""

    def to_dict(self) -> dict[str, Any]:
        """The summary as JSON-able values, as `summary.json` holds it."""
        return asdict(self)
