"""Models: what labels images, behind one small protocol (base.py). Loaded in the worker that uses them.

base.py         the protocol a worker drives
yolo.py         anything that Ultralytics' YOLO() loads
cache.py        what is kept between runs: entries, their locks, their digests
upkeep.py       what is removed from the cache, and when
unchanged.py    whoever loads weights compares them with the run's
mapped.py       weights once: a file that the workers of a machine map into memory
by_shape.py     a network made anew for each shape of batch that is often seen
graphs.py       CUDA graphs, for by_shape.py
compiled.py     OpenVINO compiled for one shape, for by_shape.py
encode.py       Ultralytics' Results as Arrow columns
budgets.py      a thread budget for onnxruntime and OpenVINO
simple.py       anything with predict(images)
arrays.py       Arrow arrays from numpy columns
backends.py     the supervisor's side: which backend executes the network
conversions.py  the supervisor's side: converted weights in a cache, and how they agree with torch
converter.py    the supervisor's side: the process of convert.py, which ends with whoever waits for it
convert.py      a process of its own that converts, and compares with torch
locked.py       one model for several threads
fake.py         a model that needs no weights, for tests and for measuring farm itself
weights.py      the supervisor's side: where weights are, their digest, the environment they are loaded in
arguments.py    the supervisor's side: what predict would take where the config says nothing
checkpoint.py   what a .pt says of itself, without torch
exported.py     what an export says of its size, without a runtime
classes.py      the supervisor's side: classes by name, as the numbers that weights have for them
agreement.py    how far two models agree on the same images
sampled.py      the images on which they are compared
preload.py      what the fork server imports, once for all workers
packages.py     what is installed, by the name it is imported by
foreign.py      checkpoints that hold no model of Ultralytics'
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
    from farm.models.unchanged import unchanged
    from farm.models.yolo import YoloModel

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
