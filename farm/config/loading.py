"""A config from a YAML file, from `section.key=value` overrides or from a mapping: one tree, validated once.

Runs in the supervisor's process only. argv is never read here; of the surroundings only the home folder (`~`) and the
working directory.
"""

from __future__ import annotations

import contextlib
import os
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import ValidationError

from farm.config import factories, yaml_file
from farm.config.explaining import explain
from farm.config.keys import type_of
from farm.config.sections import BARE_KEYS, PATH_KEYS, STDIN, FarmConfig, as_section, expanded
from farm.errors import ConfigError
from farm.machine.filenames import here
from farm.machine.locations import is_url, local_path
from farm.machine.working_directory import in_working_directory

FACTORY_KEY = ("model", "factory")


def as_config(config: str | Path | Mapping[str, Any] | FarmConfig, overrides: Iterable[str] = ()) -> FarmConfig:
    """The config in any of the forms that `run` takes, with the overrides applied. Raises ConfigError."""
    if isinstance(overrides, str):
        raise ConfigError(f"overrides are a list, of strings such as workers.count=4: write [{overrides!r}]")
    overrides = list(overrides)
    if isinstance(config, FarmConfig):
        return from_mapping(config.model_dump(), overrides) if overrides else config
    if isinstance(config, Mapping):
        return from_mapping(config, overrides)
    if not isinstance(config, (str, Path)):
        raise ConfigError(f"a {type(config).__name__} is no config; give a YAML file's path, a mapping or a FarmConfig")
    return load(expanded(config), overrides)


def load(path: str | Path | None, overrides: Sequence[str] = (), cwd: str | Path = ".") -> FarmConfig:
    """Config from a YAML file (or none) and overrides; paths resolve against the file, overrides against `cwd`.

    Raises ConfigError with the file, line and nearest valid key.
    """
    data: dict[str, Any] = {}
    origins: dict[tuple[str, ...], str] = {}
    if path is not None:
        in_working_directory(str(path))  # raises where a relative one has nothing to belong to
        data, lines = yaml_file.read(Path(path))
        origins = {keys: f"{path}:{line}" for keys, line in lines.items()}
        data = _resolve_paths(data, Path(path).resolve().parent)
    origins = _override(data, overrides, cwd, origins)
    folders = [Path(path).resolve().parent, cwd] if path is not None else [cwd]
    overridden = any(text.partition("=")[0] == ".".join(FACTORY_KEY) for text in overrides)
    _say_where_the_factory_is(data, reversed(folders) if overridden else folders)
    return validate(data, str(path) if path is not None else None, origins)


def from_mapping(data: Mapping[str, Any], overrides: Sequence[str] = ()) -> FarmConfig:
    """Config from a mapping and overrides. Raises ConfigError as `load` does."""
    changed = dict(data)
    origins = _override(changed, overrides, ".", {})
    _say_where_the_factory_is(changed, ["."])
    return validate(changed, None, origins)


def _override(
    data: dict[str, Any], overrides: Sequence[str], cwd: str | Path, origins: dict[tuple[str, ...], str]
) -> dict[tuple[str, ...], str]:
    """Set them in `data`, one after the other; returns where each key was set then."""
    for override in overrides:
        names = _apply_override(data, override, cwd)
        origins = {keys: where for keys, where in origins.items() if keys[: len(names)] != names}
        for n in range(1, len(names)):
            origins.setdefault(names[:n], f"override {override!r}")
        origins[names] = f"override {override!r}"
    return origins


def validate(
    data: Mapping[str, Any], origin: str | None = None, origins: Mapping[tuple[str, ...], str] | None = None
) -> FarmConfig:
    """Config from a mapping. Raises ConfigError that names every wrong key and what would be right.

    `origins` says where each key was set (a line of `origin`, or an override), to be named in the message.
    """
    try:
        return FarmConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(error, origin, origins or {}))) from None


def _resolve_paths(data: dict[str, Any], base: Path) -> dict[str, Any]:
    """Relative paths made absolute against `base`. A bare model name that is no file there stays a name."""
    data = {key: as_section(key, value) for key, value in data.items()}
    for section, key in PATH_KEYS:
        value = data.get(section, {}).get(key) if isinstance(data.get(section), dict) else None
        if isinstance(value, str) and value != STDIN and not is_url(value):
            data[section] = {**data[section], key: _absolute(here(value), base, may_be_name=key == "weights")}
    return data


def _absolute(value: str, base: str | Path, may_be_name: bool) -> str:
    """Asks for the working directory only where that is the base of a relative path: it may have been removed."""
    if not value:
        return value  # an unset variable must not become the folder one is in
    path = expanded(local_path(value))
    if may_be_name and os.sep not in value and not os.path.exists(os.path.join(base, path)):
        return value
    return path if os.path.isabs(path) else _below(Path(in_working_directory(str(base))).resolve(), path)


def _below(base: Path, path: str) -> str:
    """`../images` of a folder that has no links in its name is beside it, whatever becomes of the folder's own name."""
    while path == os.pardir or path.startswith(f"{os.pardir}{os.sep}"):
        base, path = base.parent, path[len(os.pardir) :].lstrip(os.sep)
    return os.path.join(base, path) if path else str(base)


def _say_where_the_factory_is(data: dict[str, Any], folders: Iterable[str | Path]) -> None:
    """Set `model.factory_dir` for the workers and `farm retry`: the config that a run keeps has no file beside it."""
    model = data.get("model")
    if isinstance(model, dict) and isinstance(model.get("factory"), str) and "factory_dir" not in model:
        absolute = list(_absolute_folders(folders))
        folder = factories.folder_for(model["factory"], absolute) if absolute else None
        data["model"] = {**model, **({"factory_dir": folder} if folder else {})}


def _absolute_folders(folders: Iterable[str | Path]) -> Iterator[str]:
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):  # the working directory was removed: nothing lies there
            yield os.path.abspath(folder)


def _apply_override(data: dict[str, Any], override: str, cwd: str | Path) -> tuple[str, ...]:
    """Set one `section.key=value` in `data`; returns the key as names."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"{override!r} is no override; write section.key=value, for example workers.count=4")
    names = key.split(".")
    if len(names) == 1 and names[0] in BARE_KEYS:
        names.append(BARE_KEYS[names[0]])
    value = _parse(text, type_of(names))
    if tuple(names) in PATH_KEYS and isinstance(value, str) and value != STDIN and not is_url(value):
        value = _absolute(value, cwd, may_be_name=names[-1] == "weights")
    section = data
    for name in names[:-1]:
        child = as_section(name, section.get(name))
        section[name] = dict(child) if isinstance(child, dict) else {}
        section = section[name]
    section[names[-1]] = value
    return tuple(names)


def _parse(text: str, annotation: Any) -> Any:
    """The value of an override: text where the key takes only text, or text or a list; YAML otherwise."""
    options = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    if set(options) <= {str, type(None)}:
        return None if type(None) in options and text in ("null", "~") else text
    try:
        value = yaml_file.parse(text)
    except (yaml.YAMLError, RecursionError):
        return text
    return value if str not in options or isinstance(value, list) else text
