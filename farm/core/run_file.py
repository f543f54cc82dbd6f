"""run.json: what is in it, and one reader for all who look into a run directory. Pure: no I/O.

It is JSON that people edit, copy and lose the end of. Whoever reads it gets a mapping in which each entry that farm
uses has the type that farm wrote, or one line that says what is wrong with which file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from farm.core.schema import TASKS
from farm.errors import DamagedRunError, OutputError

KINDS: dict[type, str] = {dict: "a mapping", list: "a list", str: "a text"}
TYPES: dict[str, type] = {
    "created": str, "names": dict, "config": dict, "fingerprint": dict, "source_root": str, "mounts": dict,
    "history": list,
}  # fmt: skip
SHOWN_CHARS = 40  # of a value that is of the wrong type


def parse(data: bytes, path: str) -> dict[str, Any]:
    """What run.json holds. Raises DamagedRunError that names `path` where it is not what a run has written."""
    try:
        described = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise damaged(path, "it is empty" if not data.strip() else f"it is no JSON ({_line(error)})") from None
    wrong = _wrong(described)
    if wrong:
        raise damaged(path, wrong)
    return dict(described)


def damaged(path: str, what: str) -> DamagedRunError:
    return DamagedRunError(
        f"{path} is damaged: {what}; put a copy of it back, or move it away: `farm export` does without it, and so "
        f"does a run whose folder has no parts yet"
    )


def config_of(described: Mapping[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """The config that the run was made with, and its source's root. Raises OutputError where it does not say."""
    if not described:
        raise OutputError(
            f"{path} is not there, so that nobody knows the config of the run; put a copy of it back, or label into "
            f"another output.dir"
        )
    for name in ("config", "source_root"):
        if name not in described:
            raise damaged(path, f"it has no {name!r}")
    return dict(described["config"]), str(described["source_root"])


def output_of(described: Mapping[str, Any]) -> dict[str, Any]:
    """The config's section `output`; nothing where it is not known."""
    found: dict[str, Any] = described.get("config", {}).get("output", {})
    return found


def keypoint_shape_of(described: Mapping[str, Any]) -> tuple[int, int] | None:
    """Keypoints of an object and values of each; None of what is no pose run, or was begun before farm wrote it."""
    said = described.get("kpt_shape")
    if isinstance(said, list) and len(said) == 2 and all(isinstance(number, int) for number in said):
        return said[0], said[1]
    return None


def _wrong(described: Any) -> str:
    """What is wrong with it, in words; nothing where nothing is."""
    if not isinstance(described, dict):
        return f"it holds {_shown(described)}, not a mapping"
    for name, kind in TYPES.items():
        if name in described and not isinstance(described[name], kind):
            return f"{name!r} is {_shown(described[name])}, not {KINDS[kind]}"
    if described.get("task") not in (None, *TASKS):
        return f"'task' is {_shown(described['task'])}, not one of {', '.join(TASKS)}"
    for number, name in described.get("names", {}).items():
        if not number.lstrip("-").isdecimal() or not isinstance(name, str):
            return f"'names' has {_shown({number: name})}, not a number and a text"
    if not isinstance(described.get("config", {}).get("output", {}), dict):
        return f"'config' has an 'output' that is {_shown(described['config']['output'])}, not a mapping"
    if not all(isinstance(change, dict) for change in described.get("history", [])):
        return "'history' is no list of mappings"
    return ""


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS - 1]}…"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
