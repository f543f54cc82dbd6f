"""What the collector is told at its start. Built by the supervisor; travels pickled."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class CollectorSpec:
    """All that the collector is told at its start. Without `parts_dir` nothing is written: the reader keeps it all.

    `number`: of its first part. `row`: its own, of the heartbeats. `environment`: variables that the fork server may
    not know, such as what opens a remote file system.
    """

    parts_dir: str | None
    session: int
    number: int
    ring: str
    slots: int
    slot_bytes: int
    commit_images: int
    commit_seconds: float
    weights_digest: str
    heartbeats: str
    row: int
    environment: dict[str, str] = field(default_factory=dict)
