"""A line a step, printed and kept as it comes: a run that is killed has what it measured until then."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any


class Journal:
    """Lines are dictionaries: `step`, `at_s` (seconds since the beginning), and what the step has to say."""

    def __init__(self, path: Path | None) -> None:
        """`path`: a file that is begun anew; None keeps nothing."""
        self._began = time.monotonic()
        self._file = path.open("w", encoding="utf-8") if path else None
        self.lines: list[dict[str, Any]] = []

    @property
    def at_s(self) -> float:
        return time.monotonic() - self._began

    def write(self, step: str, line: dict[str, Any]) -> None:
        line = {"step": step, "at_s": round(self.at_s, 1), **line}
        self.lines.append(line)
        print(in_words(line), flush=True)
        if self._file:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a file that a journal wrote, but for a last one that was cut off."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def in_words(line: dict[str, Any]) -> str:
    """A line for people. Pure."""
    said = [f"{key} {_value(value)}" for key, value in line.items() if key not in ("step", "at_s")]
    return f"[{line['at_s']:5.1f} s] {line['step']}: {', '.join(said)}"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {_value(each)}" for key, each in value.items()) + ")"
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1000 else str(value)
