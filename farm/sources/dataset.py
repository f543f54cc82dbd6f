"""One split of an Ultralytics dataset YAML as a source; runs in the supervisor's process.

Paths resolve as in Ultralytics: `path` is the dataset's root, the split is one path or a list of them below it, each a
folder, a glob, a list file or an image. Two things differ: a relative `path` starts from the YAML's own folder before
the working directory is tried, and nothing is ever downloaded. A YAML that is no UTF-8, or that has characters which
YAML does not allow, is read without them, as Ultralytics does; but a path whose bytes exist as they stand comes first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import yaml

from farm.errors import SourceError
from farm.machine.filenames import here
from farm.machine.working_directory import working_directory_if_any
from farm.sources.base import Entry, Source
from farm.sources.path_filter import PathFilter
from farm.sources.sampling import in_turn

SPLITS = ("train", "val", "validation", "test", "minival")
STAND_INS = 0xF700  # characters of private use, for bytes that are no UTF-8 while a YAML is parsed
_NOT_YAML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")
_NOT_SPLITS = frozenset(("path", "names", "download", "yaml_file"))  # other keys whose values look like paths


class DatasetSource(Source):
    """Several sources one after another, below the folder that they share."""

    def __init__(self, name: str, parts: list[Source]) -> None:
        root = os.path.commonpath([part.root for part in parts])
        super().__init__(name, root, may_repeat=len(parts) > 1 or parts[0].may_repeat)
        self._parts = parts
        for part in parts:
            part.report_to(self)

    def set_filter(self, wanted: PathFilter) -> None:
        super().set_filter(wanted)
        for part in self._parts:
            prefix = os.path.relpath(part.root, self.root)
            part.set_filter(wanted if prefix == "." else wanted.below(f"{prefix}/"))

    @property
    def elsewhere(self) -> str | None:
        return next(filter(None, (part.elsewhere for part in self._parts)), None)

    def nothing_found(self) -> str:
        places = ", ".join(dict.fromkeys(part.root for part in self._parts))
        return f"{super().nothing_found()}; looked in {places}"

    def entries(self) -> Iterator[Entry]:
        for part in self._parts:
            prefix = os.path.relpath(part.root, self.root)
            for entry in part.entries():
                yield entry if prefix == "." else entry._replace(path=os.path.join(prefix, entry.path))

    def sample(self, count: int) -> list[str]:
        """As many paths of each part as of the others, as far as it has them."""
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
            content = file.read()
    except OSError as error:
        raise SourceError(f"source {path} cannot be read: {error.strerror or error}") from None
    try:
        data = _parsed(content)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SourceError(f"source {path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict) or not _available(data):
        raise SourceError(f"source {path} is no dataset YAML: it has none of the splits {', '.join(SPLITS)}")
    return data


def _parsed(content: bytes) -> Any:
    """The YAML as it stands; else with bytes that are no UTF-8 as surrogates, without what YAML allows in no text."""
    try:
        return yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError):
        text = content.decode("utf-8-sig", "surrogateescape")
    stand_ins = str.maketrans({chr(0xDC00 + byte): chr(STAND_INS + byte) for byte in range(128, 256)})
    return _with_bytes(yaml.safe_load(_NOT_YAML.sub("", text.translate(stand_ins))))


def _with_bytes(value: Any) -> Any:
    """The stand-ins in a parsed YAML's text become the bytes that they stand for."""
    if isinstance(value, str):
        return "".join(
            chr(ord(c) - STAND_INS + 0xDC00) if STAND_INS + 128 <= ord(c) < STAND_INS + 256 else c for c in value
        )
    if isinstance(value, list):
        return [_with_bytes(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_bytes(item) for key, item in value.items()}
    return value


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
    given_names = _spellings(given)
    here_too = working_directory_if_any() or folder
    candidates = [os.path.join(place, name) for name in given_names for place in (folder, here_too)]
    for candidate in candidates:
        if os.path.isdir(candidate):
            return candidate
    tried = " or ".join(dict.fromkeys(map(os.path.normpath, candidates)))
    raise SourceError(f"source {path}: its `path` {given!r} is no folder at {tried}; farm downloads no dataset")


def _resolve(root: str, part: str) -> str:
    """One path of a split below the root; `../x` that is not there is taken as `x`, which Roboflow's exports need."""
    for name in _spellings(part):
        full = os.path.realpath(os.path.join(root, name))
        if os.path.exists(full):
            return full
    if part.startswith("../"):
        return os.path.realpath(os.path.join(root, name[3:]))
    return full


def _spellings(name: str) -> list[str]:
    """A path with the bytes that the YAML has, and as Ultralytics reads it, without those that are no UTF-8."""
    return list(dict.fromkeys((here(name), here(name.encode("utf-8", "ignore").decode()))))
