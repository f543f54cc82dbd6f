"""What executes the model, and whether the run may go on with the work in its directory: settled when the source can
be looked into, before any worker starts.

Runs in the calling process, between an engine's `prepare` and its `run`.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from farm.config.sections import STDIN, ModelConfig
from farm.core.continuation import BACKEND, CONVERSION, SOURCE, SOURCE_ROOT
from farm.core.marks import CONVERTED
from farm.engines.local import Prepared, backend_of
from farm.errors import ModelError, RunMismatchError, WeightsChangedError
from farm.machine.filenames import kept
from farm.models import backends, cache, converted_weights
from farm.models.converted_weights import CONVERT_TIMEOUT_S, Agreement, Executable, Request
from farm.sources import first_entry_or_raise
from farm.sources.base import Entry, Source
from farm.sources.moved_source import look_for_images
from farm.sources.sampling import evenly, spread
from farm.storage import folders
from farm.storage.run_store import RunStore

ENOUGH_BOXES = 10  # of torch's in the sample, below which an agreement says nothing
CONFIDENCE_MOVED = 0.01  # on average: fp32 elsewhere moves it by a millionth, and a threshold by so much is felt


def settle(
    prepared: Prepared,
    store: RunStore,
    note: Callable[[str], None],
    timeout_s: float = CONVERT_TIMEOUT_S,
    entries: Iterator[Entry] | None = None,
) -> tuple[Prepared, Iterator[Entry]]:
    """The run with what is to execute its model, converted and compared where need be, and the entries of its source.

    Conversion and comparison have `timeout_s`. A run that is continued keeps the backend it has, and the calibration of
    its int8. On a cluster every node needs what is converted: it is kept in the run directory then, and `auto` is
    torch. `entries`: those of the source, if somebody has begun to list it. Raises RunMismatchError where the directory
    holds other work, or where that calibration is gone.
    """
    entries = entries or first_entry_or_raise(prepared.source)
    fingerprint = store.fingerprint()
    for text in notes(prepared):
        note(text)
    model = _as_known(prepared, fingerprint.get(BACKEND))
    first = list(itertools.islice(entries, _looked_into(prepared, model)))
    backend = backend_of(model, prepared.device, many=len(first) >= backends.AUTO_IMAGES)
    conversion = fingerprint.get(CONVERSION)
    expected = Executable(str(model.weights), backend, conversion=conversion)
    expecting = replace(prepared, executable=expected).fingerprint
    accepted, moved = _accepted(prepared, store, fingerprint)
    terms = (prepared.implied, prepared.resolved, accepted, moved)
    store.check(expecting, *terms)  # at once: nothing is converted for nothing
    if model.weights is not None:
        request = Request(model, prepared.digest, backend, prepared.device)
        request = replace(request, sample=_sample(request, prepared.source, first))
        make = functools.partial(
            converted_weights.prepare, note=note, folder=_cache(prepared, store, request), conversion=conversion,
            timeout_s=timeout_s, spare=None if folders.is_remote(store.path) else store.path / CONVERTED,
        )  # fmt: skip
        prepared = replace(prepared, executable=_executable(request, make, note))
        try:
            store.check(prepared.fingerprint, *terms)
        except BaseException:
            prepared.executable.release()
            raise
    return prepared, itertools.chain(first, entries)


def notes(prepared: Prepared) -> tuple[str, ...]:
    """What a run is told before anything is labelled: what is otherwise than it was asked for, and what it lacks."""
    return *prepared.notes, *_without_cache(prepared)


def _without_cache(prepared: Prepared) -> list[str]:
    """What is to be said where nothing can be kept of what the model's weights are made into."""
    why = cache.refusal() if prepared.config.model.weights is not None else ""
    return [why] if why else []


def _accepted(prepared: Prepared, store: RunStore, before: Mapping[str, Any]) -> tuple[frozenset[str], str]:
    """What may differ from `before`, by the config, or because the source was found again at another place; what was
    found there, in words."""
    accepted, root = frozenset(prepared.config.accept), prepared.source.root
    if not before or before.get(SOURCE_ROOT) == kept(root) or SOURCE in accepted:
        return accepted, ""
    found = look_for_images(store, root)
    return (accepted | {SOURCE}) if found.is_the_same else accepted, found.in_words()


def refusal(prepared: Prepared, store: RunStore) -> str:
    """Why `run` would not go on with the work in the directory, as far as that can be said before the source is looked
    into; nothing where it would. Reads; changes nothing."""
    before = store.fingerprint()
    model = _as_known(prepared, before.get(BACKEND))
    backend = backend_of(model, prepared.device, many=False)
    if before.get(BACKEND) == backend_of(model, prepared.device, many=True):
        backend = before[BACKEND]
    expected = Executable(str(model.weights), backend, conversion=before.get(CONVERSION))
    try:
        accepted, moved = _accepted(prepared, store, before)
        fingerprint = replace(prepared, executable=expected).fingerprint
        store.check(fingerprint, prepared.implied, prepared.resolved, accepted, moved)
    except RunMismatchError as error:
        return str(error)
    return ""


def _looked_into(prepared: Prepared, model: ModelConfig) -> int:
    """How many entries are listed before anything is labelled. A pipe is waited for no longer than need be.

    They tell whether the run is long, and are the sample of a source that cannot be sampled all over.
    """
    chosen = model.backend == "auto" and prepared.device == "cpu"
    explicit = model.backend not in ("auto", "torch")
    if model.weights is None or not (
        converted_weights.is_lowered(model) or (model.is_convertible and (chosen or explicit))
    ):
        return 0
    if prepared.config.source.path != STDIN:
        return backends.AUTO_IMAGES
    return converted_weights.CALIBRATION_IMAGES if model.precision == "int8" else converted_weights.SAMPLE_IMAGES


def _sample(request: Request, source: Source, first: Sequence[Entry]) -> list[str]:
    """Paths of images that lie all over the source, and so do the first of them; where that would cost a listing, all
    over the first entries. It costs the listing of some folders, and only where there are more than these.
    """
    if not (request.is_converted or converted_weights.is_lowered(request.config)):
        return []
    count = converted_weights.sample_size(request, len(first))
    found = source.sample(count) if len(first) >= backends.AUTO_IMAGES else []
    found += spread(evenly([entry.path for entry in first], count))
    return [os.path.join(source.root, path) for path in list(dict.fromkeys(found))[:count]]


def _cache(prepared: Prepared, store: RunStore, request: Request) -> Path | None:
    """Where a converted model is kept, if not in the user's cache."""
    if prepared.config.engine == "local" or not request.is_converted:
        return None
    if folders.is_remote(store.path):
        raise ModelError(
            f"model.backend {request.backend} is converted into the run directory, which {store.path} cannot hold; "
            f"set model.backend=torch, or convert the weights yourself"
        )
    return store.path / CONVERTED


def _executable(request: Request, make: Callable[[Request], Executable], note: Callable[[str], None]) -> Executable:
    """What `make` gives. Where farm itself chose the backend, torch if that cannot be made, or does not agree.

    What is asked of a backend is that it agrees as such: with exact decoding, if the run has that or not.
    """
    model = request.config
    if request.is_converted and model.backend == "auto" and model.precision == "fp32":
        try:
            made = make(replace(request, config=model.model_copy(update={"decode": "exact"})))
            made.release()
            agreement = made.agreement
            doubt = _doubt(agreement, model.min_agreement) if agreement else ""
            doubt = doubt and f"{request.backend} {doubt}"
        except WeightsChangedError:
            raise
        except ModelError as error:
            doubt = str(error)
        if doubt:
            note(f"{doubt}: torch it is")
            request = replace(request, backend="torch")
    return make(request)


def _doubt(agreement: Agreement, least: float) -> str:
    """Why a backend that nobody asked for should not be taken; nothing where it may."""
    if agreement.boxes < ENOUGH_BOXES:
        few = f"{agreement.boxes} {agreement.compared} in {agreement.images} images"
        return f"cannot be compared, since torch finds only {few}"
    if agreement.both_ways < least:
        share = f"{agreement.both_ways:.1%} of the {agreement.compared}"
        return f"and torch agree on {share}, less than model.min_agreement"
    if abs(agreement.confidence) > CONFIDENCE_MOVED:
        return f"gives confidences that are {agreement.confidence:+.3f} from torch's on average"
    return ""


def settle_unseen(prepared: Prepared, note: Callable[[str], None], spare: Path | None = None) -> Prepared:
    """As `settle`, for a source that cannot be looked into: `auto` is torch, nothing is compared.

    `spare`: where a conversion lies if the user's cache cannot be written.
    """
    model = prepared.config.model
    for text in _without_cache(prepared):
        note(text)
    if not model.is_convertible:
        return prepared
    backend = backend_of(model, prepared.device, many=False)
    executable = converted_weights.prepare(Request(model, prepared.digest, backend, prepared.device), note, spare=spare)
    return replace(prepared, executable=executable)


def in_words(prepared: Prepared, before: str | None) -> str:
    """What will execute the model, as far as that is known of a source that is not listed yet.

    `before`: what executes it in the run directory, where that holds earlier work.
    """
    model = _as_known(prepared, before)
    few, many = (backend_of(model, prepared.device, many) for many in (False, True))
    if few != many:
        limit = f"{backends.AUTO_IMAGES:,} images"
        return f"auto: {few} for fewer than {limit}, {many} from there on, if it agrees to {model.min_agreement:g}"
    if before == few:
        return f"{few}, as the run was begun"
    return f"auto: {few}" if prepared.config.model.backend == "auto" and model.weights is not None else few


def _as_known(prepared: Prepared, before: str | None) -> ModelConfig:
    """The model's config without `auto`, where what that becomes does not depend on what is listed.

    A run keeps the backend that it has; a cluster has torch, and so has a pipe, which is not waited for.
    """
    model = prepared.config.model
    chosen = model.backend == "auto" and model.precision in ("fp32", "fp16")  # by farm
    if chosen and (before or prepared.config.engine != "local" or prepared.config.source.path == STDIN):
        return model.model_copy(update={"backend": before or "torch"})
    return model
