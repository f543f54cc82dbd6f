"""How a worker gets ready: pinned, its model loaded and warm, its decoding threads started; or why it cannot."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from farm.config.sections import ModelConfig
from farm.core.placement import Placement
from farm.errors import ModelError
from farm.images.decoder_threads import DecoderThreads
from farm.ipc.channel import Writer
from farm.ipc.messages import InitFailed, Ready
from farm.machine import shortage
from farm.machine.pinning import pin
from farm.machine.tracebacks import where
from farm.models.base import Model
from farm.worker.spec import WorkerSpec

LoadModel = Callable[[ModelConfig, str, int, str | None], Model]
"""`farm.models.load_model`, or what shares one model among threads."""


@dataclass(frozen=True, slots=True)
class Initialized:
    """What a worker works with. `batch`: images a forward pass, as far as the device's memory is known to have room."""

    model: Model
    batch: int
    decoders: DecoderThreads


def initialize(spec: WorkerSpec, load: LoadModel) -> Initialized:
    """Runs in the thread that will predict. Raises whatever a model raises while it is loaded."""
    pin(spec.placement.cpus)
    model = load(spec.model, spec.placement.loads_on, spec.placement.threads, spec.digest)
    batch = _fitting_batch(model, spec.placement)
    model.restore_threads()
    getattr(model, "full_batch", lambda images: None)(batch)
    return Initialized(model, batch, DecoderThreads(spec.placement.decoders).start())


def ready(spec: WorkerSpec, model: Model) -> Ready:
    """What is told of a worker whose model is loaded."""
    own_bytes = psutil.Process().memory_full_info().uss
    kpt_shape = getattr(model, "kpt_shape", None)
    return Ready(spec.uid, model.task, dict(model.names), own_bytes, kpt_shape, getattr(model, "overlaps", False))


def init_failed(spec: WorkerSpec, to_supervisor: Writer, error: Exception) -> SystemExit:
    """Say why this worker cannot start. Returns what it then leaves with."""
    permanent = isinstance(error, ModelError)
    message = str(error) if permanent else shortage.in_words(error) or f"{error} ({where(error)})"
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it is gone
        to_supervisor.send(InitFailed(spec.uid, type(error).__name__, message, permanent))
    return SystemExit(1)


def _fitting_batch(model: Model, place: Placement) -> int:
    """The planned batch, or a smaller one where this model takes no more, or this device has no room for it."""
    fits = getattr(model, "fitting_batch", None)
    batch = min(place.batch, getattr(model, "max_batch", None) or place.batch)
    return batch if place.share is None or fits is None else int(fits(batch, place.share))
