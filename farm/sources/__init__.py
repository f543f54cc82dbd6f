"""Sources of images: `open_source` decides by what the path is. Runs in the supervisor's process.

base        Entry, Source, the key of an item           listing     list file (.txt, .csv) and standard input
directory   a folder, and the walk that globs share     lines       what a line of a list stands for
globbing    a glob pattern                              dataset     a split of an Ultralytics dataset YAML
choice      what is left out, and how much of it        single      one image file
own_work    what farm has made itself
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

from farm.errors import SourceError
from farm.machine.locations import local_path
from farm.machine.surroundings import in_working_directory
from farm.sources.base import Entry, Source, first_entry_or_raise, has_image_extension, item_key
from farm.sources.urls import refusal

if TYPE_CHECKING:
    from farm.config.sections import SourceConfig

__all__ = ["Entry", "Source", "first_entry_or_raise", "item_key", "named", "open_source"]

MAY_BE = (
    "a folder, a glob, a list file (.txt, .csv), an Ultralytics dataset YAML, an image file, or - for standard input"
)
_STDIN = "-"


def named(path: str) -> str:
    """A source as titles name it."""
    return "what standard input lists" if path == _STDIN else path


def open_source(config: SourceConfig, stdin: BinaryIO | None = None) -> Source:
    """The source that `config.path` names, without listing it. `stdin`: the binary stream that `-` reads.

    Raises SourceError where there is no such source or it cannot be read.
    """
    source = _open(config, stdin)
    if config.exclude:
        from farm.sources.choice import Choice

        source.choose(Choice([config.exclude] if isinstance(config.exclude, str) else config.exclude))
    return source


def _open(config: SourceConfig, stdin: BinaryIO | None) -> Source:
    if config.path == _STDIN:
        from farm.sources.listing import StdinSource

        if stdin is None:
            raise SourceError("source - is standard input, which is not available here; give a list file")
        return StdinSource(stdin, config.recursive)
    refused = "" if os.path.exists(config.path) else refusal(config.path)
    if refused:
        raise SourceError(refused)
    path = in_working_directory(local_path(config.path))
    if os.path.isfile(path) and path.lower().endswith((".yaml", ".yml")):
        from farm.sources.dataset import open_dataset

        return open_dataset(path, config.split, lambda part, name: _open_path(part, config.recursive, name))
    return _open_path(path, config.recursive, config.path)


def _open_path(path: str, recursive: bool, name: str) -> Source:
    """A folder, glob, list file or image at an absolute path. An existing path is literal, whatever is in its name."""
    if os.path.isdir(path):
        from farm.sources.directory import DirectorySource

        return DirectorySource(path, recursive, name)
    if os.path.exists(path):
        return _open_file(path, recursive, name)
    from farm.sources.globbing import GlobSource, has_magic

    if has_magic(path):
        return GlobSource(path, name)
    where = "" if name == path else f" ({path})"
    raise SourceError(f"source {name}{where} does not exist; it may be {MAY_BE}")


def _open_file(path: str, recursive: bool, name: str) -> Source:
    if path.lower().endswith((".txt", ".csv")):
        from farm.sources.listing import ListFileSource

        return ListFileSource(path, name, recursive)
    if has_image_extension(os.path.basename(path)):
        from farm.sources.single import SingleFileSource

        return SingleFileSource(path, name)
    raise SourceError(f"source {name} is a file that farm cannot label; it may be {MAY_BE}")
