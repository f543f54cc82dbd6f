"""What a value of the config may be: types with their JSON Schema, for farm.config.sections. Pure.

A number is a number: not text that looks like one, which YAML and editors tell apart, and not `true`, which Python
counts as 1. So the config and its JSON Schema say the same of every document.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

MAX_PIXELS = 178_956_970  # of an image, unless the config says otherwise; the limit of Pillow
LONGEST_S = 1e9  # thirty years; clocks and waits of the system end somewhere beyond
FACTORY = r"^[^\s:]+:[^\s:]+$"
DEVICES = r"^\s*(auto|cpu|(cuda:)?[0-9]+(\s*,\s*(cuda:)?[0-9]+)*)\s*$"
URL = r"^(?!file://|local://)[\s\S]*://"  # what farm.machine.locations.is_url calls one


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    if isinstance(value, str | bytes):
        raise ValueError("must be a number, not text")
    return value


def _whole(value: Any) -> Any:
    """JSON does not tell 2.0 from 2."""
    value = _number(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _switch(value: Any) -> Any:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _listed(value: Any) -> Any:
    """One class as a list of one."""
    return [value] if isinstance(value, int | float | str) and not isinstance(value, bool) else value


def _device_numbers(value: Any) -> Any:
    """`0`, `"0,1"` and `"cuda:0"` as a list of numbers, as Ultralytics takes them."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [value]
    if isinstance(value, str) and re.search(DEVICES, value):
        words = [word.strip().removeprefix("cuda:") for word in value.split(",")]
        return words[0] if words[0] in ("auto", "cpu") else [int(word) for word in words]
    return value


def _automatic_switch(value: Any) -> Any:
    if value != "auto" and not isinstance(value, bool):
        raise ValueError("is no switch")
    return value


Switch = Annotated[bool, BeforeValidator(_switch)]
AutoSwitch = Annotated[Literal["auto"] | bool, BeforeValidator(_automatic_switch)]
Positive = Annotated[int, Field(gt=0), BeforeValidator(_whole)]
Count = Annotated[int, Field(ge=0), BeforeValidator(_whole)]
Share = Annotated[float, Field(ge=0, le=1), BeforeValidator(_number)]
Part = Annotated[float, Field(gt=0, lt=1), BeforeValidator(_number)]
Seconds = Annotated[float, Field(gt=0, le=LONGEST_S), BeforeValidator(_number)]
ClassName = Annotated[str, Field(min_length=1)]
Classes = Annotated[
    list[Count | ClassName],
    BeforeValidator(_listed),
    WithJsonSchema(
        {
            "type": ["array", "integer", "string"],
            "items": {"type": ["integer", "string"], "minimum": 0, "minLength": 1},
            "minimum": 0,
            "minLength": 1,
        }
    ),
]
Devices = Annotated[
    Literal["auto", "cpu"] | Annotated[list[Count], Field(min_length=1)],
    BeforeValidator(_device_numbers),
    WithJsonSchema(
        {
            "type": ["array", "integer", "string"],
            "items": {"type": "integer", "minimum": 0},
            "minItems": 1,
            "minimum": 0,
            "pattern": DEVICES,
        }
    ),
]
