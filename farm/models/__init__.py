"""Models: what labels images, behind one small protocol. Loaded in the worker that uses them.

base            the protocol that a worker drives         yolo/           the adapter of Ultralytics' YOLO()
simple          anything with predict(images)             backends/       what executes the network
locked          one model for several threads             conversion/     .pt → another backend, and how it agrees
fake            no weights: for tests and measurements    weights/        weights files, looked into without torch
arrays          Arrow arrays from numpy columns           cache           what is kept between runs
packages        what is installed                         cache_eviction  what is removed from it, and when
device_decoding can a run decode on its devices?

Workers use base, yolo, locked, simple; the supervisor's side (engines) uses weights, backends and conversion, none of
which imports torch there. Conversion runs in a process of its own. How to add a backend: backends/__init__.py. Another
kind of model is a module here beside simple.py, and a line in `load_model`.
"""

from __future__ import annotations

from farm.config import factories
from farm.config.sections import ModelConfig
from farm.errors import ModelError
from farm.models.base import MODEL_MEMBERS, Model


def load_model(config: ModelConfig, device: str, threads: int, digest: str | None = None) -> Model:
    """The config's model, loaded and warm. Runs in a worker; raises ModelError where another try cannot help.

    `digest`: of the weights that the run was begun with; others raise WeightsChangedError.
    """
    if config.factory is not None:
        return _from_factory(config)
    from farm.models.weights.unchanged import unchanged
    from farm.models.yolo.adapter import YoloModel

    with unchanged(str(config.weights), digest):
        return YoloModel(config, device, threads, digest)


def _from_factory(config: ModelConfig) -> Model:
    """Call the user's function. What it raises itself is passed on: it may be a passing trouble."""
    model = factories.find(str(config.factory), config.factory_dir)(**config.args)
    if all(hasattr(model, name) for name in MODEL_MEMBERS):
        return model  # type: ignore[no-any-return]
    if callable(getattr(model, "predict", None)):
        from farm.models.simple import SimpleModel

        return SimpleModel(model, str(config.factory))
    raise ModelError(f"model.factory {config.factory} made a {type(model).__name__} without predict(images)")
