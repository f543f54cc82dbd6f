"""What executes the model of a run: chosen when the source can be looked into, before any worker starts.

A choice may need a conversion of the weights, and a comparison with torch on a sample of the images. It also says
whether the run may go on with the work in its directory. Runs in the calling process, between an engine's `prepare` and
its `run`.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from farm.config.sections import STDIN, ModelConfig
from farm.core.continuation import BACKEND, CONVERSION
from farm.core.marks import CONVERTED
from farm.engines import continuing
from farm.engines.base import LOCAL, Prepared, Runnable
from farm.engines.known_backend import backend_of, with_known_backend
from farm.errors import ModelError, WeightsChangedError
from farm.models import backends, cache
from farm.models.conversion import executables, sampling
from farm.models.conversion.agreement import Agreement
from farm.models.conversion.executables import CONVERT_TIMEOUT_S, Executable
from farm.models.conversion.request import Request, is_lowered
from farm.sources import first_entry_or_raise
from farm.sources.base import Entry, Source
from farm.sources.sampling import evenly, spread
from farm.storage import folders
from farm.storage.run_store import RunStore

ENOUGH_BOXES = 10  # of torch's in the sample, below which an agreement says nothing
CONFIDENCE_MOVED = 0.01  # on average: fp32 elsewhere moves it by a millionth, and a threshold by so much is felt


def choose_backend(
    prepared: Prepared,
    store: RunStore,
    note: Callable[[str], None],
    timeout_s: float = CONVERT_TIMEOUT_S,
    entries: Iterator[Entry] | None = None,
) -> tuple[Runnable, Iterator[Entry]]:
    """The run with what is to execute its model, converted and compared where need be, and the entries of its source.

    Conversion and comparison have `timeout_s`. A run that is continued keeps the backend it has, and the calibration of
    its int8. On a cluster every node needs what is converted: it is kept in the run directory then, and `auto` is
    torch. `entries`: those of the source, if somebody has begun to list it. Raises RunMismatchError where the directory
    holds other work, or where that calibration is gone.
    """
    entries = entries or first_entry_or_raise(prepared.source)
    before = store.fingerprint()
    for text in notes(prepared):
        note(text)
    model = with_known_backend(prepared, before.get(BACKEND))
    first = list(itertools.islice(entries, _entries_needed(prepared, model)))
    backend = backend_of(model, prepared.device, many=len(first) >= backends.AUTO_IMAGES)
    expected = Executable(str(model.weights), backend, conversion=before.get(CONVERSION))
    allowed = continuing.allowed_differences(prepared, store, before)
    continuing.check(prepared, expected, store, allowed)  # before a conversion that would be in vain
    entries = itertools.chain(first, entries)
    if model.weights is None:
        return Runnable(prepared, expected), entries
    request = Request(model, prepared.digest, backend, prepared.device)
    request = replace(request, sample=_sample(request, prepared.source, first))
    make = functools.partial(
        executables.make, note=note, folder=_cache(prepared, store, request), conversion=expected.conversion,
        timeout_s=timeout_s, spare=None if folders.is_remote(store.path) else store.path / CONVERTED,
    )  # fmt: skip
    executable = executable_for(request, make, note)
    try:
        continuing.check(prepared, executable, store, allowed)
    except BaseException:
        executable.release()
        raise
    return Runnable(prepared, executable), entries


def choose_backend_unseen(prepared: Prepared, note: Callable[[str], None], spare: Path | None = None) -> Runnable:
    """Like `choose_backend`, for a source that cannot be looked into: `auto` is torch, nothing is compared.

    `spare`: where a conversion lies if the user's cache cannot be written.
    """
    model = prepared.config.model
    for text in notes(prepared):
        note(text)
    backend = backend_of(model, prepared.device, many=False)
    if not model.is_convertible:
        return Runnable(prepared, Executable(str(model.weights), backend))
    request = Request(model, prepared.digest, backend, prepared.device)
    return Runnable(prepared, executables.make(request, note, spare=spare))


def notes(prepared: Prepared) -> tuple[str, ...]:
    """What a run is told before anything is labelled: what is otherwise than it was asked for, and what it lacks."""
    return *prepared.notes, *_without_cache(prepared)


def _without_cache(prepared: Prepared) -> list[str]:
    """What is said where no converted model can be kept."""
    why = cache.why_unwritable() if prepared.config.model.weights is not None else ""
    return [why] if why else []


def _entries_needed(prepared: Prepared, model: ModelConfig) -> int:
    """How many entries are listed before anything is labelled. A pipe is waited for no longer than need be.

    They tell whether the run is long, and are the sample of a source that cannot be sampled all over.
    """
    chosen = model.backend == "auto" and prepared.device == "cpu"
    explicit = model.backend not in ("auto", "torch")
    if model.weights is None or not (is_lowered(model) or (model.is_convertible and (chosen or explicit))):
        return 0
    if prepared.config.source.path != STDIN:
        return backends.AUTO_IMAGES
    return sampling.CALIBRATION_IMAGES if model.precision == "int8" else sampling.SAMPLE_IMAGES


def _sample(request: Request, source: Source, first: Sequence[Entry]) -> list[str]:
    """Paths of images that lie all over the source, and so do the first of them; where that would cost a listing, all
    over the first entries. It costs the listing of some folders, and only where there are more than these.
    """
    if not (request.is_converted or is_lowered(request.config)):
        return []
    count = sampling.sample_size(request, len(first))
    found = source.sample(count) if len(first) >= backends.AUTO_IMAGES else []
    found += spread(evenly([entry.path for entry in first], count))
    return [os.path.join(source.root, path) for path in list(dict.fromkeys(found))[:count]]


def _cache(prepared: Prepared, store: RunStore, request: Request) -> Path | None:
    """Where a converted model is kept, if not in the user's cache."""
    if prepared.config.engine == LOCAL or not request.is_converted:
        return None
    if folders.is_remote(store.path):
        raise ModelError(
            f"model.backend {request.backend} is converted into the run directory, which {store.path} cannot hold; "
            f"set model.backend=torch, or convert the weights yourself"
        )
    return store.path / CONVERTED


def executable_for(request: Request, make: Callable[[Request], Executable], note: Callable[[str], None]) -> Executable:
    """What `make` gives. Where farm itself chose the backend, torch if that cannot be made, or does not agree.

    A backend is compared with exact decoding, however the run decodes: what is doubted is the backend alone.
    """
    model = request.config
    if request.is_converted and model.backend == "auto" and model.precision == "fp32":
        try:
            made = make(replace(request, config=model.model_copy(update={"decode": "exact"})))
            made.release()
            agreement = made.agreement
            doubt = doubt_about(agreement, model.min_agreement) if agreement else ""
            doubt = doubt and f"{request.backend} {doubt}"
        except WeightsChangedError:
            raise
        except ModelError as error:
            doubt = str(error)
        if doubt:
            note(f"{doubt}: torch is used")
            request = replace(request, backend="torch")
    return make(request)


def doubt_about(agreement: Agreement, least: float) -> str:
    """Why a backend that farm chose itself should not be taken; nothing where it may."""
    if agreement.boxes < ENOUGH_BOXES:
        few = f"{agreement.boxes} {agreement.compared} in {agreement.images} images"
        return f"cannot be compared, since torch finds only {few}"
    if agreement.both_ways < least:
        share = f"{agreement.both_ways:.1%} of the {agreement.compared}"
        return f"and torch agree on {share}, less than model.min_agreement"
    if abs(agreement.confidence) > CONFIDENCE_MOVED:
        return f"gives confidences that are {agreement.confidence:+.3f} from torch's on average"
    return ""
