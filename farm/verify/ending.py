"""How the last run of a run directory ended, by its summary.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from farm.core.schema import STATUS_GONE
from farm.storage import folders
from farm.storage.run_store import SUMMARY_FILE, RunStore


@dataclass(frozen=True, slots=True)
class End:
    """How the last run ended. `notes`: why it has not come to its end; `remaining`: what it has left, where known."""

    notes: tuple[str, ...] = ()
    remaining: int | None = None


def end_of(store: RunStore, counts: Mapping[str, int], problems: list[str]) -> End:
    """The end by summary.json, whose counts are compared where nothing was committed after it."""
    path = store.path / SUMMARY_FILE
    try:
        summary: dict[str, Any] = json.loads(folders.read(path))
    except FileNotFoundError:
        return End(("no summary.json: the run has not come to an end; run it again to continue",))
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"summary.json cannot be read: {error}")
        return End()
    if not isinstance(summary, dict):
        problems.append("summary.json holds no summary")
        return End()
    parts = store.parts()
    if parts and folders.modified_s(parts[-1]) > folders.modified_s(path):
        return End(("parts are newer than summary.json: the last run did not come to its end",))
    if wrong := _wrong_counts(summary, counts):
        problems.append(wrong)
    if not summary.get("interrupted"):
        return End()
    remaining = summary.get("remaining")
    return End(
        ("the run was interrupted; run it again to continue",), remaining if isinstance(remaining, int) else None
    )


def _wrong_counts(summary: Mapping[str, Any], counts: Mapping[str, int]) -> str:
    """Where a summary says something else than the parts; nothing where not. An older farm's knows no `gone`."""
    said = {name: summary.get(name) for name in counts if name != STATUS_GONE or name in summary}
    if said == {name: counts[name] for name in said}:
        return ""
    there = " + ".join(f"{count} {name}" for name, count in said.items())
    return f"summary.json says {there}, the parts hold " + " + ".join(f"{counts[name]} {name}" for name in said)
