"""The verdict on a run: its files first, then its rows, then its label files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from farm.core.marks import LABELS
from farm.core.schema import STATUS_FAILED, STATUS_GONE, STATUS_OK
from farm.errors import DamagedRunError
from farm.storage import folders
from farm.storage.run_store import RunStore
from farm.verify.ending import end_of
from farm.verify.label_files import problems_of_labels
from farm.verify.part_files import problems_of_files
from farm.verify.rows import counts_of, problems_of_rows

SHOWN = 20  # problems of one kind that are spelled out


@dataclass(frozen=True, slots=True)
class Verification:
    """Counts of a run, and what is wrong with it: one line a problem. `notes` are worth knowing and not wrong.

    `gone`: rows of images that were deleted since they were listed. `finished`: the last run came to its end, and no
    image of its source is without a row; `remaining`: how many are, where that is known.
    """

    ok: int
    failed: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    gone: int = 0
    finished: bool = True
    remaining: int | None = None

    @property
    def listed(self) -> int:
        return self.ok + self.failed + self.gone


def verify(run_dir: str | Path) -> Verification:
    """Raises OutputError where `run_dir` is no run directory."""
    store = RunStore.view(run_dir)
    problems, notes = problems_of_files(store)
    described = _described(store, problems)
    if problems:  # what cannot be read cannot be counted
        return Verification(0, 0, tuple(problems), tuple(notes))
    problems += _limited(problems_of_rows(store), "more rows that count twice")
    counts = counts_of(store)
    end = end_of(store, counts, problems)
    if not folders.is_remote(store.path) and (store.path / LABELS).is_dir() and counts[STATUS_OK]:
        problems += _limited(problems_of_labels(store, described), "more label files that disagree")
    return Verification(
        counts[STATUS_OK], counts[STATUS_FAILED], tuple(problems), (*notes, *end.notes), counts[STATUS_GONE],
        not end.notes, end.remaining,
    )  # fmt: skip


def _described(store: RunStore, problems: list[str]) -> dict[str, Any]:
    """run.json; nothing where it is damaged, which is a problem of its own."""
    try:
        return store.describe()
    except DamagedRunError as error:
        problems.append(str(error))
        return {}


def _limited(found: Iterator[str], more: str) -> list[str]:
    """The first SHOWN lines, and how many more there are. Those are counted, not kept: there may be millions."""
    lines = list(islice(found, SHOWN))
    rest = sum(1 for _ in found)
    return lines + ([f"{rest} {more}"] if rest else [])
