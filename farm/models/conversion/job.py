"""A conversion and its comparison, done once and kept in one entry of the cache. Runs where executables.py runs.

Conversion and comparison run in a process of their own (converter.py): this one never imports torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm.errors import ModelError, OutOfTimeError
from farm.models import cache
from farm.models.cache import Content, Entry
from farm.models.conversion import sampling
from farm.models.conversion.agreement import Agreement
from farm.models.conversion.converter_client import ask_converter
from farm.models.conversion.identity import agreement_name, entry_name
from farm.models.conversion.request import Request
from farm.models.weights.unchanged import check

DECODING_IN_WORDS = {"exact": "", "reduced": " and reduced decoding", "device": " and decoding on the device"}
UNWRITABLE = "the cache of converted models cannot be written"


@dataclass(frozen=True, slots=True)
class ConversionJob:
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
                if self.request.config.precision == "int8" and self.folder.name != entry_name(self.request):
                    raise ModelError(self._unusable("the images that it is calibrated with are being changed"))
                return self.entry.publish(made_in, about)
        except OSError as error:
            raise ModelError(f"{UNWRITABLE}: {self.folder}: {error.strerror}") from None

    def agreement(self, made: Content) -> Agreement | None:
        """How far the model agrees with the reference on the first of the sample; None where there is no sample."""
        sample, reference = list(self.request.sample[: sampling.SAMPLE_IMAGES]), self.request.reference
        if not sample:
            return None
        found, name = self._remembered(made), agreement_name(self.request, made)
        if found is None:
            self.note(f"comparing {self._in_words()} with {reference} on {len(sample)} of the images")
            task = {"what": "compare", "sample": sample, "converted": str(made.path), "converted_digest": made.digest}
            found = self._in_a_process(task)
            if name == agreement_name(self.request, made):  # no image has changed meanwhile
                self._remember(name, made, found)
        return Agreement(**found, reference=reference)

    def _kept(self) -> Content | None:
        """What is loaded, if it is there: the user's own weights always are."""
        if self.request.is_converted:
            return self.entry.content()
        return Content(Path(str(self.request.config.weights)), self.request.digest)

    def _remembered(self, made: Content) -> dict[str, Any] | None:
        """The fields of an Agreement of this very model, if it was compared before."""
        found = self.entry.recall(agreement_name(self.request, made))
        return found if isinstance(found, dict) else None

    def _remember(self, name: str, made: Content, found: dict[str, Any]) -> None:
        if not self.entry.manifest():  # nothing is converted, and it has no content
            about = {"weights": made.path.name, "made": f"{self._in_words()}, compared", "digest": made.digest}
            with contextlib.suppress(OSError):
                self.entry.describe({"about": about})
        self.entry.remember(name, found)

    def _in_words(self) -> str:
        decoding = DECODING_IN_WORDS[self.request.config.decode]
        return f"{self.request.backend} {self.request.config.precision}{decoding}"

    def _say_who(self, holder: str, waited_s: float) -> None:
        weights = Path(str(self.request.config.weights)).name
        since = f", for {waited_s / 60:.0f} min now" if waited_s >= cache.NOTE_S else ""
        self.note(f"waiting for {holder}, which makes or compares the {self._in_words()} of {weights}{since}")

    def _in_a_process(self, task: dict[str, Any]) -> dict[str, Any]:
        """Let a converter do the task."""
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
