"""Weights as they will be executed, made ready by the supervisor's side before any worker starts: converted, compared.

A .pt is converted once per weights, backend, precision and version of the backend, into a cache that two runs may use
at once. Whatever may move boxes (another backend, a lower precision, reduced decoding) is compared with torch in fp32
and exact decoding, on a sample of the user's images. Conversion and comparison run in a process of their own
(convert.py): this one never imports torch.

Longer than other modules, because a conversion and its agreement are kept in one entry of the cache (cache.py), and
what they depend on is decided beside it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from farm.config.sections import ModelConfig
from farm.errors import ModelError, OutOfTimeError, RunMismatchError, WeightsChangedError
from farm.models import cache, upkeep
from farm.models.backends import PACKAGES
from farm.models.cache import Content, Entry
from farm.models.converter import ask_converter
from farm.models.packages import package_version
from farm.models.unchanged import check
from farm.storage import filesystem
from farm.storage.locks import Lock
from farm.storage.scratch import Scratch

SAMPLE_IMAGES = 32  # compared with torch
FEWEST_COMPARED, COMPARED_PART = 4, 8  # of a short run with torch: one image in eight, which costs a quarter of it
CALIBRATION_IMAGES = 128  # for int8; the sample is part of them
CONVERT_TIMEOUT_S = 3600.0  # of a conversion and its comparison together, unless the caller has less time
ROOM = 8  # times the size of the weights file must be free: a copy, the graph in float32, and what is made of it
EXPORTED_DET = 300  # boxes that a model without non-maximum suppression gives at least, as in torch
INT8_RECIPE = 2  # what is quantised, and what is kept in float
AGREEMENT_RECIPE = 2  # what is compared, and how
ENGINE_BATCH = 32  # the largest that a TensorRT engine is built for
UNWRITABLE = "the cache of converted models cannot be written"
COMPARED = ("imgsz", "conf", "iou", "max_det", "classes", "agnostic_nms", "retina_masks", "task")


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the detections of a run compare with those of torch in fp32 with exact decoding, on a sample of images.

    `matched` is the share of the reference's `boxes` that it also finds: of the same class, and alike to 0.9 or more in
    what the task gives (agreement.py says how that is measured); `confidence` the mean difference in confidence of
    those, signed. `compared` says in words what was counted; a classifier has one top class an image.
    """

    matched: float
    confidence: float
    boxes: int
    found: int
    images: int
    reference: str = "torch fp32"
    compared: str = "boxes"

    @property
    def both_ways(self) -> float:
        """The smaller of two shares: of the reference's that it finds, and of its own that the reference has."""
        return min(self.matched, self.matched * self.boxes / self.found) if self.found else self.matched


@dataclass(frozen=True, slots=True)
class Request:
    """Weights that a backend is to execute on a device: `digest` is theirs, `sample` some paths of the images."""

    config: ModelConfig
    digest: str
    backend: str
    device: str
    sample: Sequence[str] = ()

    @property
    def is_converted(self) -> bool:
        return self.config.is_convertible and self.backend != "torch"

    @property
    def is_compared(self) -> bool:
        """May what it finds differ from what the reference finds?"""
        return bool(self.sample) and (self.is_converted or is_lowered(self.config))

    @property
    def reference(self) -> str:
        """What it is compared with, in words. Of a model that was exported elsewhere there is no torch."""
        exported = "the same model" if self.config.precision == "fp32" else "the same model in fp32"
        model = "torch fp32" if self.config.is_convertible else exported
        return f"{model} and exact decoding" if self.config.decode == "reduced" else model


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
    place: Scratch | None = field(default=None, compare=False, repr=False)  # of its own, where nothing can be kept

    def release(self) -> None:
        """Nobody loads it any more. May be called twice."""
        if self.lease is not None:
            self.lease.release()
        if self.place is not None:
            self.place.close()


class _NoPlace(ModelError):
    """No cache can be written."""


def prepare(
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
    places = [folder] if folder else [*([root / cache.BACKENDS] if root else []), *([spare] if spare else [])]
    try:
        made = _made_ready(request, note, places, conversion, timeout_s)
    except _NoPlace as error:
        if folder or request.config.backend == "auto":
            raise
        note(f"{error}: this run has one of its own")
        place = Scratch("models")
        try:
            made = replace(_made_ready(request, note, [place.path], conversion, timeout_s), place=place)
        except BaseException:
            place.close()
            raise
    if folder or root:
        upkeep.tidy([folder] if folder else [root / kind for kind in upkeep.MADE] if root else [])
    return made


def _made_ready(
    request: Request, note: Callable[[str], None], places: Sequence[Path], conversion: str | None, timeout_s: float
) -> Executable:
    if request.is_converted:
        return _prepared(request, note, places, conversion, timeout_s)
    plain = Executable(str(request.config.weights), request.backend, lease=_lease_of_download(request.config))
    if request.is_compared:
        try:
            return replace(plain, agreement=_prepared(request, note, places, None, timeout_s).agreement)
        except WeightsChangedError:
            raise
        except ModelError as error:
            note(str(error))
    return plain


def _lease_of_download(config: ModelConfig) -> Lock | None:
    """Weights that farm has fetched are not cleared as long as a run loads them."""
    root, path = cache.root(), Path(str(config.weights))
    return cache.lease_file(path) if root and path.parent == root / cache.WEIGHTS else None


def is_lowered(config: ModelConfig) -> bool:
    """Does the config give labels up for speed, whatever the backend?"""
    return config.decode == "reduced" or config.precision != "fp32"


def sample_size(request: Request, images: int) -> int:
    """How many of the first `images` of a source it is to be made ready with."""
    if request.config.precision == "int8":
        return CALIBRATION_IMAGES
    if request.is_converted:
        return SAMPLE_IMAGES
    return min(SAMPLE_IMAGES, max(FEWEST_COMPARED, images // COMPARED_PART))


def _prepared(
    request: Request, note: Callable[[str], None], places: Sequence[Path], conversion: str | None, timeout_s: float
) -> Executable:
    """Converted and compared, each where need be and nobody has done it before."""
    entry = _entry(request, places, conversion)
    lease = entry.lease() if request.is_converted else None
    try:
        work = _Work(request, entry, note, timeout_s, time.monotonic() + timeout_s)
        made, agreement = work.done()
    except BaseException:
        if lease is not None:
            lease.release()
        raise
    name = entry.folder.name if request.is_converted else None
    return Executable(str(made.path), request.backend, agreement, name, made.digest, lease)


def _entry(request: Request, places: Sequence[Path], conversion: str | None) -> Entry:
    """The first place that has it, or has room for it: ModelError where none has, RunMismatchError if it is gone."""
    if conversion:
        for place in places:
            if Entry(place / conversion).content() is not None:
                return Entry(place / conversion)
        if conversion != _name(request):  # else it is made again with the images that it was made with
            raise RunMismatchError(
                f"{conversion}, the {request.config.precision} model that the run was calibrated with, is no longer in "
                f"the cache ({', '.join(map(str, places))}): give another output.dir to calibrate anew, or put it back"
            )
    refusals = []
    for place in places:
        entry = Entry.of(place, _label(request), _depends_on(request))
        refusal = "" if entry.manifest() else _refusal(entry, request)
        if not refusal:
            return entry
        refusals.append(refusal)
    raise _NoPlace(f"{UNWRITABLE}: {'; '.join(refusals) or 'there is no home folder'}")


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


@dataclass(frozen=True, slots=True)
class _Work:
    """What is kept in one entry of the cache: a converted model, and how what it finds agrees on samples."""

    request: Request
    entry: Entry
    note: Callable[[str], None]
    timeout_s: float
    deadline_s: float  # by time.monotonic

    @property
    def folder(self) -> Path:
        return self.entry.folder

    def done(self) -> tuple[Content, Agreement | None]:
        """The model that the backend loads, and how it agrees. Nobody is waited for where both are known."""
        made = self._kept()
        if made is not None and (not self.request.sample or self._remembered(made) is not None):
            return made, self.agreement(made)
        with self.alone():
            made = self.converted()
            return made, self.agreement(made)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """One process converts; another that wants the same waits, and finds it done. Nothing half-made is left."""
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(self.entry.alone(self.deadline_s, self._say_who))
            except TimeoutError:
                raise self._out_of_time() from None
            except OSError as error:
                if self._kept() is None:
                    raise ModelError(f"{UNWRITABLE}: {self.folder}: {error.strerror}") from None
            yield

    def converted(self) -> Content:
        """The model that the backend loads, made now where it is not there or not whole."""
        made = self._kept()
        if made is not None:
            return made
        weights, what = Path(str(self.request.config.weights)).name, self._in_words()
        self.note(f"converting {weights} to {what}, once; kept in {self.folder}")
        about = {"weights": weights, "made": what, "digest": self.request.digest}
        try:
            with self.entry.making() as folder:
                task = {"what": "convert", "sample": list(self.request.sample), "out": str(folder)}
                made_in = folder / self._in_a_process(task)["file"]
                if self.request.config.precision == "int8" and self.folder.name != _name(self.request):
                    raise ModelError(self._unusable("the images that it is calibrated with are being changed"))
                return self.entry.publish(made_in, about)
        except OSError as error:
            raise ModelError(f"{UNWRITABLE}: {self.folder}: {error.strerror}") from None

    def agreement(self, made: Content) -> Agreement | None:
        """Of the model with the reference, on the first of the sample; None where there is no sample."""
        sample, reference = list(self.request.sample[:SAMPLE_IMAGES]), self.request.reference
        if not sample:
            return None
        found, name = self._remembered(made), self._agreement_name(made)
        if found is None:
            self.note(f"comparing {self._in_words()} with {reference} on {len(sample)} of the images")
            task = {"what": "compare", "sample": sample, "converted": str(made.path), "converted_digest": made.digest}
            found = self._in_a_process(task)
            if name == self._agreement_name(made):  # no image has changed meanwhile
                self._remember(name, made, found)
        return Agreement(**found, reference=reference)

    def _kept(self) -> Content | None:
        """What is loaded, if it is there: the user's own weights always are."""
        if self.request.is_converted:
            return self.entry.content()
        return Content(Path(str(self.request.config.weights)), self.request.digest)

    def _remembered(self, made: Content) -> dict[str, Any] | None:
        """The fields of an Agreement of this very model, if it was compared before."""
        found = self.entry.recall(self._agreement_name(made))
        return found if isinstance(found, dict) else None

    def _remember(self, name: str, made: Content, found: dict[str, Any]) -> None:
        if not self.entry.manifest():  # nothing is converted, and it has no content
            about = {"weights": made.path.name, "made": f"{self._in_words()}, compared", "digest": made.digest}
            with contextlib.suppress(OSError):
                self.entry.describe({"about": about})
        self.entry.remember(name, found)

    def _agreement_name(self, made: Content) -> str:
        """For all that it depends on: both models, the arguments, the images as they are, and what it says."""
        sample = [_as_it_is(path) for path in self.request.sample[:SAMPLE_IMAGES]]
        said = [each.name for each in fields(Agreement)]
        words = [self.request.digest, made.digest, _compared(self.request.config), sample, said]
        return f"agreement-{cache.digest_of(words)[: cache.NAME_DIGITS]}"

    def _in_words(self) -> str:
        reduced = " and reduced decoding" if self.request.config.decode == "reduced" else ""
        return f"{self.request.backend} {self.request.config.precision}{reduced}"

    def _say_who(self, holder: str, waited_s: float) -> None:
        weights = Path(str(self.request.config.weights)).name
        since = f", for {waited_s / 60:.0f} min now" if waited_s >= cache.WORD_S else ""
        self.note(f"waiting for {holder}, which makes or compares the {self._in_words()} of {weights}{since}")

    def _in_a_process(self, task: dict[str, Any]) -> dict[str, Any]:
        """Let convert.py do the task."""
        request = self.request
        task |= {"config": request.config.model_dump(mode="json"), "weights_digest": request.digest}
        task |= {"backend": request.backend, "device": request.device}
        try:
            return ask_converter(task, self.deadline_s)
        except TimeoutError:
            raise self._out_of_time() from None
        except ModelError as error:
            with contextlib.suppress(OSError):
                check(str(request.config.weights), request.digest)
            raise ModelError(self._unusable(str(error))) from None

    def _out_of_time(self) -> OutOfTimeError:
        return OutOfTimeError(self._unusable(f"it took longer than {round(self.timeout_s, 1):g} s"))

    def _unusable(self, why: str) -> str:
        if not self.request.is_converted:
            return f"{self._in_words()} could not be compared with {self.request.reference}: {why}"
        weights = self.request.config.weights
        return f"weights {weights} cannot be used with model.backend {self._in_words()}: {why}; set model.backend=torch"


def _compared(config: ModelConfig) -> dict[str, Any]:
    """The arguments that a comparison depends on, and how it is made."""
    reduced = {"decode"} if config.decode == "reduced" else set()
    return {**config.model_dump(mode="json", include=set(COMPARED) | reduced), "recipe": AGREEMENT_RECIPE}


def _as_it_is(path: str) -> list[Any]:
    """An image as it was compared: another one may get its name."""
    with contextlib.suppress(OSError):
        status = os.stat(path)
        return [path, status.st_size, status.st_mtime_ns]
    return [path]


def _label(request: Request) -> str:
    """How the name of its entry begins."""
    return f"{Path(str(request.config.weights)).stem}-{request.backend}-{request.config.precision}"


def _name(request: Request) -> str:
    return Entry.of(Path(), _label(request), _depends_on(request)).folder.name


def _depends_on(request: Request) -> list[Any]:
    """What a conversion depends on. The images only where they calibrate it, GPUs and imgsz only in an engine.

    What is not converted has an entry for its comparisons alone: on a GPU it rounds as that does.
    """
    config, backend = request.config, request.backend
    packages = {name: package_version(name) for name in ("ultralytics", "torch", *PACKAGES.get(backend, ()))}
    calibration: list[Any] = []
    if config.precision == "int8":
        calibration = [INT8_RECIPE, _content_of(request.sample), config.imgsz, package_version("nncf")]
    fixed: list[Any] = [config.imgsz, ENGINE_BATCH] if backend == "tensorrt" else []
    fixed += [devices_here()] if backend == "tensorrt" or (request.device != "cpu" and not request.is_converted) else []
    baked = [max(config.max_det, EXPORTED_DET), config.agnostic_nms]  # in models without non-maximum suppression
    return [request.digest, backend, config.precision, config.task, packages, calibration, fixed, baked]


def _content_of(sample: Sequence[str]) -> str:
    """A digest of what these images hold now: others may get their names, their sizes and their dates.

    128 photographs of a camera are some hundred MiB, read in about a second; the conversion takes minutes.
    """
    found: list[str | None] = []
    for path in sample:
        try:
            found.append(cache.content_digest(Path(path)) if stat.S_ISREG(os.stat(path).st_mode) else None)
        except OSError:
            found.append(None)
    return cache.digest_of(found)


def devices_here() -> list[str]:
    """Names and driver of the GPUs."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return []
    return sorted(set(listed.stdout.splitlines()))
