"""Checks of what callers give to `Farm`; each raises the error that says what to write instead."""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Mapping
from typing import Any, get_args

from farm.config.sections import FarmConfig
from farm.errors import ConfigError, ModelError
from farm.library.streams import OnError, Order


def check_stream(items: Any, order: str, on_error: str) -> None:
    """The arguments of `map`, `amap` and `batches`. Raises ConfigError."""
    if isinstance(items, (str, bytes, bytearray, memoryview, os.PathLike)) or hasattr(items, "__array_interface__"):
        raise ConfigError(_instead_of(items))
    if not any(hasattr(items, name) for name in ("__iter__", "__aiter__", "__getitem__")):
        raise ConfigError(f"a {type(items).__name__} is no list of items; give a list or a generator of them")
    if order not in get_args(Order):
        raise ConfigError(f"order is input or completed, not {order!r}")
    if on_error not in get_args(OnError):
        raise ConfigError(f"on_error is return or raise, not {on_error!r}")


def _instead_of(item: Any) -> str:
    """What to write in place of one item, or of a folder."""
    name = type(item).__name__
    if isinstance(item, (str, os.PathLike)) and os.path.isdir(item):
        return (
            f'a folder is no list of items; give its files: Path({os.fspath(item)!r}).rglob("*.jpg"), or call farm.run'
        )
    if isinstance(item, str) and glob.has_magic(item):
        return f"a pattern is no list of items; give its files: glob.iglob({item!r})"
    return f"one {name} is no list of items; give [item], or call submit(item)"


def check_sections(sections: Mapping[str, Any]) -> None:
    """A farm has no source and writes nothing: the sections about those are for whole runs. Raises ConfigError."""
    for name in sorted(set(sections) - {"limits"}):
        if name in FarmConfig.model_fields:
            raise ConfigError(f"Farm labels what it is given and writes nothing: `{name}` is for farm.run")
        raise ConfigError(
            f"Farm takes model, workers and limits, not {name!r}{_where_it_belongs(name, sections[name])}"
        )


def _where_it_belongs(name: str, value: Any) -> str:
    """What to write where an option of a section stands beside the sections."""
    written = {"model": '"weights": ...', "workers": '"count": ...', "limits": ""}
    for section, first in written.items():
        if name in FarmConfig.model_fields[section].annotation.model_fields:  # type: ignore[union-attr]
            options = ", ".join(filter(None, [first if first != f'"{name}": ...' else "", f'"{name}": {value!r}']))
            return f"; write {section}={{{options}}}"
    near = difflib.get_close_matches(name, written, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def check_precision(config: FarmConfig) -> None:
    """Raises ModelError for weights that would have to be quantised with images first."""
    if config.model.precision == "int8" and config.model.is_convertible:
        raise ModelError(
            "model.precision int8 is calibrated with images of a source, which a Farm has not; quantise with farm.run, "
            "or give a model that is int8 already (an OpenVINO folder)"
        )
