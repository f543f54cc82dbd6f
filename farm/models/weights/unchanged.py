"""Weights are those that the run began with: whoever loads them compares their digest with the run's, before and after.

Runs in workers of every kind and engine, in converters, and around them. A file may be overwritten at any moment
(a training run writes its best.pt again and again); a run holds the work of one model, whoever loads it and when.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from farm.core.marks import CONVERTED
from farm.errors import WeightsChangedError
from farm.models import cache
from farm.models.cache import Entry, content_digest, files_in
from farm.models.weights.files import file_of

GONE = (errno.ENOENT, errno.ENOTDIR)
SHOWN_DIGITS = 12  # of a digest in a message


@contextlib.contextmanager
def unchanged(weights: str, digest: str | None) -> Iterator[None]:
    """What is read of the weights meanwhile has this digest (farm.models.weights.files.weights_digest).

    Raises WeightsChangedError where it has not: at once, at the end, or in place of an error of whoever reads them.
    Raises OSError where they cannot be read now, which may pass. None: of nothing that is a file.
    """
    if digest is None:
        yield
        return
    path = file_of(weights)
    before = _identity(path)
    check(weights, digest)
    try:
        yield
    except Exception:
        if _identity(path) != before:
            check(weights, digest)
        raise
    if before is None or _identity(path) != before:
        check(weights, digest)


def check(weights: str, digest: str) -> None:
    """Raises WeightsChangedError where the weights have another digest now, or are gone."""
    try:
        now = content_digest(file_of(weights))
    except OSError as error:
        if error.errno not in GONE:
            raise
        raise changed(weights, digest, None) from None
    if now != digest:
        raise changed(weights, digest, now)


def changed(weights: str, digest: str, now: str | None) -> WeightsChangedError:
    """The error for weights that had this digest and have another one `now`, or are gone (None)."""
    then, seen = digest[:SHOWN_DIGITS], f"now {now[:SHOWN_DIGITS]}" if now else "now gone"
    if _is_made(Path(weights)):
        return WeightsChangedError(
            f"the converted model {weights} changed since the run began (sha256 {then}, {seen}): run again to continue"
        )
    return WeightsChangedError(
        f"model.weights {weights} changed since the run began (sha256 {then}, {seen}): put the file back and run again "
        f"to continue, or give another output.dir"
    )


def _is_made(path: Path) -> bool:
    """Has farm made it, which makes it again where it is not whole? It lies in an entry of a cache then."""
    kind, root = path.parent.parent, cache.root()
    if root is not None and kind in (root / cache.BACKENDS, root / cache.SHARED_WEIGHTS):
        return True
    return kind.name == CONVERTED and Entry(path.parent).manifest().get("name") == path.name


def _identity(path: Path) -> list[tuple[int, ...]] | None:
    """What changes whenever something is written, also where its length and its date are set back; None: unknown."""
    try:
        return [_of_file(file) for file in files_in(path)]
    except OSError:
        return None


def _of_file(path: Path) -> tuple[int, ...]:
    with open(path, "rb") as file:  # opening asks a file server anew, where a bare stat may be remembered
        found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
