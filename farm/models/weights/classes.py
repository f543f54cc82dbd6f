"""Classes by name: the numbers that weights have for them, resolved on the supervisor's side, before any worker. Pure.

From here on a run knows the numbers alone, so that a name and its number are the same run.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from farm.errors import ModelError

NEAREST = 3  # names that are proposed
LISTED = 12  # names of classes, where none is alike
MOST_CHARS = 100  # of a name that is shown


def names_of(value: Any) -> Mapping[int, str] | None:
    """Names by number, as weights keep them: a list, or a dict whose keys may be text. None for what is neither."""
    pairs = enumerate(value) if isinstance(value, list | tuple) else value.items() if isinstance(value, dict) else ()
    try:
        return {int(number): str(name) for number, name in pairs if isinstance(name, str | int | float)} or None
    except ValueError:
        return None


def numbers_of(wanted: Sequence[int | str], names: Mapping[int, str] | None, weights: str) -> list[int]:
    """The numbers of classes that are given by number or by name, each once, in their order.

    Raises ModelError for a name that the weights do not have, with those that are alike; and for any, where `names`
    are not known before the model is loaded.
    """
    numbers: list[int] = []
    for one in wanted:
        numbers += [one] if isinstance(one, int) else _numbers(one, names, weights)
    return list(dict.fromkeys(numbers)) if any(isinstance(one, str) for one in wanted) else numbers


def in_words(numbers: Sequence[int], names: Mapping[int, str] | None) -> str:
    """What the numbers stand for; nothing where that is not known."""
    return ", ".join(names.get(number, f"{number} is no class") for number in numbers)[:MOST_CHARS] if names else ""


def unknown(numbers: Sequence[int], names: Mapping[int, str] | None) -> list[int]:
    """Numbers that no detection can have."""
    return [number for number in numbers if names and number not in names]


def _numbers(name: str, names: Mapping[int, str] | None, weights: str) -> list[int]:
    """The numbers of one name, or of several between commas."""
    if names is None:
        raise ModelError(
            f"model.classes {name!r}: {weights} does not say the names of its classes before it is loaded; give their "
            f"numbers, as in model.classes=[0,2]"
        )
    found = [number for number, known in names.items() if known == name]
    if found:
        return found
    if "," in name:
        return [number for part in name.split(",") for number in _part(part.strip(), names, weights)]
    raise ModelError(f"model.classes {name!r} is no class of {weights}{_proposal(name, names)}")


def _part(text: str, names: Mapping[int, str], weights: str) -> list[int]:
    return [int(text)] if text.isdecimal() and text not in names.values() else _numbers(text, names, weights)


def _proposal(name: str, names: Mapping[int, str]) -> str:
    """The names that are alike; else some of them all."""
    lowered = {known.lower(): known for known in names.values()}
    near = [lowered[found] for found in difflib.get_close_matches(name.lower(), lowered, n=NEAREST)]
    if near:
        return f"; did you mean {' or '.join(near)}?"
    if name.isdecimal():
        return f"; a number stands without quotes: {int(name)}"
    rest = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"; it has {', '.join(list(names.values())[:LISTED])}{rest}"
