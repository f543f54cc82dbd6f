"""Sources of images: `open_source` decides by what the path is. Runs in the supervisor's process.

base        Entry, Source, the key of an item           listing     list file (.txt) and standard input
directory   a folder, and the walk that globs share     dataset     a split of an Ultralytics dataset YAML
globbing    a glob pattern                              single      one image file
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

from farm.errors import SourceError
from farm.sources.base import Entry, Source, first_entry_or_raise, has_image_extension, item_key
from farm.surroundings import in_working_directory

if TYPE_CHECKING:
    from farm.config import SourceConfig

__all__ = ["Entry", "Source", "first_entry_or_raise", "item_key", "open_source"]

MAY_BE = "a folder, a glob, a list file (.txt), an Ultralytics dataset YAML, an image file, or - for standard input"
_STDIN = "-"


def open_source(config: SourceConfig, stdin: BinaryIO | None = None) -> Source:
    """The source that `config.path` names, without listing it. `stdin`: the binary stream that `-` reads.

    Raises SourceError where there is no such source or it cannot be read.
    """
    if config.path == _STDIN:
        from farm.sources.listing import StdinSource

        if stdin is None:
            raise SourceError("source - is standard input, which is not available here; give a list file")
        return StdinSource(stdin)
    path = in_working_directory(config.path)
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
        return _open_file(path, name)
    from farm.sources.globbing import GlobSource, has_magic

    if has_magic(path):
        return GlobSource(path, name)
    where = "" if name == path else f" ({path})"
    raise SourceError(f"source {name}{where} does not exist; it may be {MAY_BE}")


def _open_file(path: str, name: str) -> Source:
    if path.lower().endswith(".txt"):
        from farm.sources.listing import ListFileSource

        return ListFileSource(path, name)
    if has_image_extension(os.path.basename(path)):
        from farm.sources.single import SingleFileSource

        return SingleFileSource(path, name)
    raise SourceError(f"source {name} is a file that farm cannot label; it may be {MAY_BE}")
