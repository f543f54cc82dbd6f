"""The keys that a config has, as dotted names taken apart: (`workers`, `count`). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from farm.config.sections import FarmConfig


def type_of(names: Sequence[str]) -> Any:
    """The declared type of a dotted key, or None where there is no such key (validation will say so)."""
    model: Any = FarmConfig
    for name in names:
        field = getattr(model, "model_fields", {}).get(name)
        if field is None:
            return None
        model = field.annotation
    return model


def is_section(keys: Sequence[str]) -> bool:
    return hasattr(type_of(keys), "model_fields")


def keys_of(section: Sequence[str]) -> list[str]:
    """The keys that a section has; of the whole config where it is empty."""
    return list(getattr(type_of(section) if section else FarmConfig, "model_fields", {}))
