"""Weights as they will be executed, made by the supervisor's side before any worker starts: converted, compared.

A .pt is converted once per weights, backend, precision and version of the backend, into a cache that two runs may use
at once. Whatever may move boxes (another backend, a lower precision, decoding that is not exact) is compared with torch
in fp32 and exact decoding, on a sample of the user's images. Which cache has it, or has room for it, is decided here;
what is done in its entry, in job.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from farm.config.sections import ModelConfig
from farm.errors import ModelError, RunMismatchError, WeightsChangedError
from farm.models import cache, cache_eviction
from farm.models.cache import Entry, Lock
from farm.models.conversion.agreement import Agreement
from farm.models.conversion.identity import entry_name, entry_of
from farm.models.conversion.job import UNWRITABLE, ConversionJob
from farm.models.conversion.request import Request
from farm.storage import filesystem
from farm.storage.scratch import Scratch

CONVERT_TIMEOUT_S = 3600.0  # of a conversion and its comparison together, unless the caller has less time
ROOM = 8  # times the size of the weights file must be free: a copy, the graph in float32, and what is made of it


@dataclass(frozen=True, slots=True)
class Executable:
    """What workers load: `weights` run by `backend`.

    `agreement` is None where nothing was compared, `conversion`, its name in the cache, where nothing was converted.
    `digest` is that of `weights`; "" where they are the run's own. What lies in the cache stays until `release`.
    """

    weights: str
    backend: str
    agreement: Agreement | None = None
    conversion: str | None = None
    digest: str = ""
    lease: Lock | None = field(default=None, compare=False, repr=False)
    scratch: Scratch | None = field(default=None, compare=False, repr=False)  # of its own, where nothing can be kept

    def release(self) -> None:
        """Nobody loads it any more. May be called twice."""
        if self.lease is not None:
            self.lease.release()
        if self.scratch is not None:
            self.scratch.close()


class _NoCache(ModelError):
    """No cache can be written."""


def make(
    request: Request,
    note: Callable[[str], None],
    folder: Path | None = None,
    conversion: str | None = None,
    timeout_s: float = CONVERT_TIMEOUT_S,
    spare: Path | None = None,
) -> Executable:
    """The weights as the backend runs them, from the cache or converted now, and how they agree on the sample.

    `note` hears what takes long. `folder`: another cache than the user's; `spare`: where a conversion lies if that
    cannot be written; then, if somebody asked for the backend, in a temporary folder until `release`. `conversion`: an
    earlier one of the same run, which is taken again. Raises RunMismatchError where that is gone and other images would
    make another, ModelError with the converter's own words, OutOfTimeError where it is not done after `timeout_s`,
    WeightsChangedError; where nothing is to be converted, another comparison that fails is no more than a note.
    """
    root = cache.root()
    folders = [folder] if folder else [*([root / cache.BACKENDS] if root else []), *([spare] if spare else [])]
    try:
        made = _made_in(folders, request, note, conversion, timeout_s)
    except _NoCache as error:
        if folder or request.config.backend == "auto":
            raise
        note(f"{error}: this run has one of its own")
        scratch = Scratch("models")
        try:
            made = replace(_made_in([scratch.path], request, note, conversion, timeout_s), scratch=scratch)
        except BaseException:
            scratch.close()
            raise
    if folder or root:
        cache_eviction.tidy([folder] if folder else [root / kind for kind in cache_eviction.MADE] if root else [])
    return made


def _made_in(
    folders: Sequence[Path], request: Request, note: Callable[[str], None], conversion: str | None, timeout_s: float
) -> Executable:
    """`make`, in the first of these caches that has it or can hold it."""
    if request.is_converted:
        return _converted_and_compared(request, note, folders, conversion, timeout_s)
    plain = Executable(str(request.config.weights), request.backend, lease=_lease_of_download(request.config))
    if request.is_compared:
        try:
            return replace(plain, agreement=_converted_and_compared(request, note, folders, None, timeout_s).agreement)
        except WeightsChangedError:
            raise
        except ModelError as error:
            note(str(error))
    return plain


def _lease_of_download(config: ModelConfig) -> Lock | None:
    """Weights that farm has fetched are not cleared as long as a run loads them."""
    root, path = cache.root(), Path(str(config.weights))
    return cache.lease_file(path) if root and path.parent == root / cache.WEIGHTS else None


def _converted_and_compared(
    request: Request, note: Callable[[str], None], folders: Sequence[Path], conversion: str | None, timeout_s: float
) -> Executable:
    """Converted and compared, each where need be and nobody has done it before."""
    entry = _entry(request, folders, conversion)
    lease = entry.lease() if request.is_converted else None
    try:
        job = ConversionJob(request, entry, note, timeout_s, time.monotonic() + timeout_s)
        made, agreement = job.done()
    except BaseException:
        if lease is not None:
            lease.release()
        raise
    name = entry.folder.name if request.is_converted else None
    return Executable(str(made.path), request.backend, agreement, name, made.digest, lease)


def _entry(request: Request, folders: Sequence[Path], conversion: str | None) -> Entry:
    """The entry in the first cache that has it, or has room for it.

    Raises ModelError where none has, RunMismatchError if it is gone.
    """
    if conversion:
        for folder in folders:
            if Entry(folder / conversion).content() is not None:
                return Entry(folder / conversion)
        if conversion != entry_name(request):  # else it is made again with the images that it was made with
            raise RunMismatchError(
                f"{conversion}, the {request.config.precision} model that the run was calibrated with, is no longer in "
                f"the cache ({', '.join(map(str, folders))}): give another output.dir to calibrate anew, or put it back"
            )
    refusals = []
    for folder in folders:
        entry = entry_of(request, folder)
        refusal = "" if entry.manifest() else _refusal(entry, request)
        if not refusal:
            return entry
        refusals.append(refusal)
    raise _NoCache(f"{UNWRITABLE}: {'; '.join(refusals) or 'there is no home folder'}")


def _refusal(entry: Entry, request: Request) -> str:
    """Why nothing can be made there; nothing where it can."""
    weights = str(request.config.weights)
    wanted = ROOM * os.path.getsize(weights) if request.is_converted and os.path.exists(weights) else 0
    try:
        lock = cache.take(entry.folder / cache.LOCK)
        if lock is not None:
            lock.release()
        has_room = filesystem.has_room(entry.folder, wanted)
    except OSError as error:
        return f"{entry.folder}: {error.strerror}"
    return "" if has_room else f"{entry.folder}: no room for {wanted >> 20} MiB"
