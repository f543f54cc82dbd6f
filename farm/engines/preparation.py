"""Everything about a run that can be known before the first process starts, resolved and checked.

Runs in the calling process, and imports no torch. The order is the order in which a mistake is cheapest to report:
weights, source, machine.
"""

from __future__ import annotations

from typing import BinaryIO

from farm.config import factories
from farm.config.sections import FarmConfig
from farm.core.continuation import MODEL
from farm.core.placement import plan, shortfall, unused_devices
from farm.engines.base import LOCAL, Prepared
from farm.engines.fingerprint import FACTORY_DIGEST
from farm.engines.known_backend import backend_of
from farm.errors import ModelError
from farm.machine import standard_streams
from farm.machine.hardware import Machine
from farm.machine.inspection import inspect_machine
from farm.models import backends, device_decoding
from farm.models.weights.files import resolve_weights, weights_digest
from farm.models.weights.predict_arguments import Resolved, resolve, untrained
from farm.models.weights.unchanged import unchanged
from farm.sources import open_source
from farm.sources.base import Source


def prepare(
    config: FarmConfig,
    stdin: BinaryIO | None = None,
    source: Source | None = None,
    machine: Machine | None = None,
) -> Prepared:
    """Resolve and check all that can be known without a process. Raises the FarmError that says what to change.

    `stdin` is read where `source.path` is `-`; `source` replaces what the config names; `machine` what is found.
    """
    standard_streams.reserve()  # before anything is opened that lasts
    resolved, digest = _with_weights(config)
    config = config.model_copy(update={"model": resolved.model})
    source = source or open_source(config.source, stdin)
    machine = machine or inspect_machine(cuda=config.workers.devices != "cpu")
    placements = plan(machine, config.workers)
    backend_of(config.model, placements[0].device, many=False)  # raises where this machine cannot run it
    device_decoding.check(config.model, placements[0].device)
    implied = frozenset(f"{MODEL}{name}" for name in resolved.implied)
    own = [untrained(config.model), shortfall(machine, config.workers), unused_devices(machine, config.workers)]
    notes = (*resolved.notes, *filter(None, own))
    return Prepared(config, source, placements, digest, resolved.origins, implied, notes)


def _with_weights(config: FarmConfig) -> tuple[Resolved, str]:
    """The model with weights as an existing path and the arguments that predict would take; the weights' digest."""
    if config.model.weights is None:
        if config.model.precision != "fp32" or config.model.backend != "auto":
            raise ModelError("model.backend and model.precision are for weights; a factory makes the model as it likes")
        if config.engine == LOCAL:  # other nodes have folders of their own
            factories.check(str(config.model.factory), config.model.factory_dir)
        return resolve(config.model), FACTORY_DIGEST
    path = resolve_weights(config.model.weights)
    backends.check_weights(config.model)
    digest = weights_digest(path)
    with unchanged(path, digest):  # what the file says of itself is said by these very bytes
        return resolve(config.model.model_copy(update={"weights": path})), digest
