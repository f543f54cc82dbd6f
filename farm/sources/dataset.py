"""One split of an Ultralytics dataset YAML as a source; runs in the supervisor's process.

Paths resolve as in Ultralytics: `path` is the dataset's root, the split is one path or a list of them below it, each a
folder, a glob, a list file or an image. Two things differ: a relative `path` starts from the YAML's own folder before
the working directory is tried, and nothing is ever downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import yaml

from farm.errors import SourceError
from farm.sources.base import Entry, Source
from farm.sources.sampling import in_turn
from farm.surroundings import in_working_directory

SPLITS = ("train", "val", "validation", "test", "minival")
_NOT_SPLITS = frozenset(("path", "names", "download", "yaml_file"))  # other keys whose values look like paths


class DatasetSource(Source):
    """Several sources one after another, below the folder that they share."""

    def __init__(self, name: str, parts: list[Source]) -> None:
        root = os.path.commonpath([part.root for part in parts])
        super().__init__(name, root, may_repeat=len(parts) > 1 or parts[0].may_repeat)
        self._parts = parts
        for part in parts:
            part.problems = self.problems
            part.unlisted = self.unlisted

    def entries(self) -> Iterator[Entry]:
        for part in self._parts:
            prefix = os.path.relpath(part.root, self.root)
            for entry in part.entries():
                yield entry if prefix == "." else entry._replace(path=os.path.join(prefix, entry.path))

    def sample(self, count: int) -> list[str]:
        """As many of each part, as far as it has them."""
        sampled = []
        for part in self._parts:
            prefix = os.path.relpath(part.root, self.root)
            sampled.append([path if prefix == "." else os.path.join(prefix, path) for path in part.sample(count)])
        return list(islice(in_turn(sampled), count))

    def count(self) -> int | None:
        total = 0
        for part in self._parts:
            count = part.count()
            if count is None:
                return None
            total += count
        return total


def open_dataset(path: str, split: str, open_part: Callable[[str, str], Source]) -> DatasetSource:
    """The split's source. `open_part(path, name)` opens one of its paths. Raises SourceError."""
    data = _read(path)
    listed = _split_paths(data, split, path)
    root = _root(data, path)
    return DatasetSource(path, [open_part(_resolve(root, part), f"{path} ({split})") for part in listed])


def _read(path: str) -> Mapping[str, Any]:
    try:
        with open(path, "rb") as file:
            data = yaml.safe_load(file)
    except OSError as error:
        raise SourceError(f"source {path} cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise SourceError(f"source {path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict) or not _available(data):
        raise SourceError(f"source {path} is no dataset YAML: it has none of the splits {', '.join(SPLITS)}")
    return data


def _available(data: Mapping[str, Any]) -> list[str]:
    return [split for split in SPLITS if data.get(split)]


def _split_paths(data: Mapping[str, Any], split: str, path: str) -> list[str]:
    """What the YAML lists under `split`; `val` may be written `validation`, as in Ultralytics."""
    value = data.get(split) or (data.get("validation") if split == "val" else None)
    listed = [value] if isinstance(value, str) else value
    if split in _NOT_SPLITS or not listed:
        raise SourceError(f"source {path} has no split {split!r}; available: {', '.join(_available(data))}")
    if not isinstance(listed, list) or not all(isinstance(part, str) and part for part in listed):
        raise SourceError(f"source {path}: split {split!r} must be a path or a list of paths")
    return listed


def _root(data: Mapping[str, Any], path: str) -> str:
    folder = os.path.dirname(path)
    given = data.get("path") or ""
    if not isinstance(given, str):
        raise SourceError(f"source {path}: `path` must be the dataset's folder, not {given!r}")
    candidates = [os.path.join(folder, given), in_working_directory(given)]
    for candidate in candidates:
        if os.path.isdir(candidate):
            return candidate
    tried = " or ".join(dict.fromkeys(map(os.path.normpath, candidates)))
    raise SourceError(f"source {path}: its `path` {given!r} is no folder at {tried}; farm downloads no dataset")


def _resolve(root: str, part: str) -> str:
    """One path of a split below the root; `../x` that is not there is taken as `x`, which Roboflow's exports need."""
    full = os.path.realpath(os.path.join(root, part))
    if part.startswith("../") and not os.path.exists(full):
        return os.path.realpath(os.path.join(root, part[3:]))
    return full
