"""Sources of images: `open_source` decides by what the path is. A file a kind; all run in the supervisor's process.

Imported by the lister and by whoever opens a source. Images are never opened here, only listed.

base            Entry, Source, the key of an item
directory       a folder, and the walk that globs share
globbing        a glob pattern
list_file       a list file (.txt, .csv), and standard input
  list_lines      what a line of a list stands for
dataset         a split of an Ultralytics dataset YAML
single          one image file
failed_images   what a run could not label, for `farm retry`
urls            why a URL is no source yet, and what works today

path_filter     what of a source is wanted (source.exclude), and how much was left out
  made_by_farm    folders that farm has made itself, which are never a source
sampling        a few images from all over a source, without listing it

earlier_runs    a listing against what the run directory holds: which images are gone
moved_source    is it the source that the run directory was labelled from, at another place?
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

from farm.errors import SourceError
from farm.machine.locations import local_path
from farm.machine.working_directory import in_working_directory
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
        from farm.sources.path_filter import PathFilter

        source.set_filter(PathFilter([config.exclude] if isinstance(config.exclude, str) else config.exclude))
    return source


def _open(config: SourceConfig, stdin: BinaryIO | None) -> Source:
    if config.path == _STDIN:
        from farm.sources.list_file import StdinSource

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
        from farm.sources.list_file import ListFileSource

        return ListFileSource(path, name, recursive)
    if has_image_extension(os.path.basename(path)):
        from farm.sources.single import SingleFileSource

        return SingleFileSource(path, name)
    raise SourceError(f"source {name} is a file that farm cannot label; it may be {MAY_BE}")
