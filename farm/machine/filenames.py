"""File names as the bytes on disk, whatever the locale. Pure; used in every process.

Python holds a name as text in the locale's encoding: the same bytes are "düne" where that is UTF-8, and "dÃ¼ne" where
it is Latin-1. What farm keeps must not depend on that. So keys are made of the bytes, and what is written as text
(rows, run.json, lists) is these bytes read as UTF-8, with those that are none as lone surrogates (PEP 383). In a UTF-8
locale that is the name as Python holds it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

UTF8 = "utf-8"
AS_SURROGATES = "surrogateescape"
HELD_AS = sys.getfilesystemencoding()  # of a Python process, decided when it starts
IS_UTF8 = HELD_AS.lower().replace("_", "-") in ("utf-8", "utf8")


def to_bytes(name: str) -> bytes:
    """The bytes on disk. A name that the locale has no bytes for cannot be on disk, and is taken as UTF-8."""
    try:
        return name.encode(HELD_AS, AS_SURROGATES)
    except UnicodeEncodeError:
        return name.encode(UTF8, AS_SURROGATES)


def from_bytes(name: bytes) -> str:
    """The name as Python holds it, to open the file with."""
    return name.decode(HELD_AS, AS_SURROGATES)


def kept(name: str) -> str:
    """The same text for the same bytes in every locale: what is written down."""
    return name if IS_UTF8 else to_bytes(name).decode(UTF8, AS_SURROGATES)


def here(name: str) -> str:
    """The name as Python holds it, of what is written down."""
    return name if IS_UTF8 else from_bytes(name.encode(UTF8, AS_SURROGATES))


def with_names(
    config: Mapping[str, Any], keys: Iterable[tuple[str, str]], change: Callable[[str], str]
) -> dict[str, Any]:
    """A config as plain values, with `change` made to the names that stand under these (section, key)."""
    changed = dict(config)
    for section, key in keys:
        values = changed.get(section)
        if isinstance(values, Mapping) and isinstance(values.get(key), str):
            changed[section] = {**values, key: change(values[key])}
    return changed
