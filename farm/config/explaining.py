"""What is wrong with a config, in words: a line for each wrong key, with what would be right. Pure."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError

from farm.config.keys import is_section, keys_of, type_of
from farm.config.misspelt import meant
from farm.config.sections import BARE_KEYS, Auto, FarmConfig

TAKES = {  # in words, where a type has branches that pydantic would report one by one
    "workers.devices": "must be `auto` or cpu or a list of device numbers",
    "model.imgsz": "must be a whole number of pixels above 0, or [height, width], or null",
    "model.cuda_graphs": "must be auto, true or false",
    "model.classes": "must be numbers or names of classes, such as [0, 2] or person, or null",
    "limits.max_failed": "must be a count of images (0: none, 1: one), or a share above 0 and below 1, or null",
}


def explain(error: ValidationError, origin: str | None, origins: Mapping[tuple[str, ...], str]) -> Iterator[str]:
    """One line per wrong key: where it stands, what is wrong, what would be right."""
    seen = set()
    problems = error.errors(include_url=False)
    for problem in sorted(problems, key=lambda problem: problem["type"] != "extra_forbidden"):  # what else is missing?
        loc = _keys_only(problem["loc"])
        if (loc, problem["type"] == "extra_forbidden") in seen:  # a union reports each of its branches
            continue
        seen.add((loc, problem["type"] == "extra_forbidden"))
        where = next((origins[loc[:n]] for n in range(len(loc), 0, -1) if loc[:n] in origins), origin)
        yield (f"{where}: " if where else "") + _reason(problem, loc)


def _keys_only(loc: tuple[int | str, ...]) -> tuple[str, ...]:
    """The location as config keys: pydantic adds the branch of a union (`int`, `literal['auto']`)."""
    keys: list[str] = []
    for part in loc:
        if isinstance(part, int) or (type_of([*keys, part]) is None and keys and not is_section(keys)):
            break
        keys.append(part)
    return tuple(keys)


def _reason(problem: Any, loc: tuple[str, ...]) -> str:
    key = ".".join(loc)
    if problem["type"] == "extra_forbidden":
        return _unknown_key(loc)
    if problem["type"] == "missing":
        hint = " (for example output=runs/a)" if loc[:1] == ("output",) else ""
        return f"`{key}` is missing; it must be set{hint}"
    if problem["type"] == "invalid_key":
        return _unknown_key((*loc, str(problem["input"])))
    if "_type" in problem["type"] and is_section(loc):
        text = "text, or " if loc[0] in BARE_KEYS else ""
        return f"`{key}` takes {text}a mapping of {', '.join(keys_of(loc))} (given: {problem['input']!r})"
    if problem["type"] == "string_type":
        return f"`{key}` takes text, in quotes where it looks like something else (given: {problem['input']!r})"
    if problem["type"] == "string_too_short":
        return f"`{key}` is empty; it must be set"
    if problem["type"] == "list_type" and not _takes(loc):
        return f"`{key}` takes a list: write [{problem['input']}]"
    message = problem["msg"].removeprefix("Value error, ")
    takes = _takes(loc)
    given = "" if loc == () or is_section(loc) else f" (given: {problem['input']!r})"
    return f"`{key}`: {takes or message}{given}" if key else message


def _takes(loc: tuple[str, ...]) -> str:
    """What a key takes, where its type is a choice that pydantic would report branch by branch."""
    annotation = type_of(loc)
    if ".".join(loc) in TAKES:
        return TAKES[".".join(loc)]
    if get_origin(annotation) is Literal:
        return "must be one of " + ", ".join(map(str, get_args(annotation)))
    if get_origin(annotation) in (Union, types.UnionType) and Auto in get_args(annotation):
        return "must be `auto` or a whole number above 0"
    return ""


def _unknown_key(loc: tuple[str, ...]) -> str:
    *parents, key = loc
    valid = keys_of(parents)
    sections = [name for name in FarmConfig.model_fields if is_section([name]) and [name] != parents]
    elsewhere = [f"{name}.{inner}" for name in sections for inner in keys_of([name])]
    elsewhere += sections if parents else ()
    near = meant(key, valid, elsewhere)
    hint = f"did you mean `{near}`?" if near else f"valid keys: {', '.join(valid)}"
    section = f" in `{'.'.join(parents)}`" if parents else ""
    return f"unknown key `{key}`{section}; {hint}"
