"""Which backend a config asks for, as far as that is known before the source is listed. Pure."""

from __future__ import annotations

from farm.config.sections import STDIN, ModelConfig
from farm.engines.base import LOCAL, Prepared
from farm.engines.fingerprint import FACTORY_DIGEST
from farm.models import backends
from farm.models.backends import runs_with


def backend_of(model: ModelConfig, device: str, many: bool) -> str:
    """What executes the model: a .pt may be converted, anything else runs as what it is."""
    if model.weights is None:
        return FACTORY_DIGEST
    if model.weights.endswith(".pt"):
        return backends.choose(model, device, many)
    return runs_with(model.weights) or "torch"


def with_known_backend(prepared: Prepared, before: str | None) -> ModelConfig:
    """The model's config without `auto`, where what that becomes does not depend on what is listed.

    A run keeps the backend that it has. On a cluster, and for standard input, `auto` is torch. Farm does not wait for a
    pipe.
    """
    model = prepared.config.model
    chosen = model.backend == "auto" and model.precision in ("fp32", "fp16")  # by farm
    if chosen and (before or prepared.config.engine != LOCAL or prepared.config.source.path == STDIN):
        return model.model_copy(update={"backend": before or "torch"})
    return model


def in_words(prepared: Prepared, before: str | None) -> str:
    """What will execute the model, as far as that is known of a source that is not listed yet.

    `before`: what executes it in the run directory, where that holds earlier work.
    """
    model = with_known_backend(prepared, before)
    few, many = (backend_of(model, prepared.device, many) for many in (False, True))
    if few != many:
        limit = f"{backends.AUTO_IMAGES:,} images"
        return f"auto: {few} for fewer than {limit}, {many} from there on, if it agrees to {model.min_agreement:g}"
    if before == few:
        return f"{few}, as the run was begun"
    return f"auto: {few}" if prepared.config.model.backend == "auto" and model.weights is not None else few
