"""Weights to Ultralytics' YOLO object with its predictor, fused and warm. Runs in workers, when they start.

One call of `predict()` on an empty image sets everything up as Ultralytics does it (fusing, warm-up, end-to-end head,
transforms).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from farm.config.sections import ModelConfig
from farm.core.schema import TASKS
from farm.errors import ModelError
from farm.models.base import is_out_of_memory
from farm.models.weights.predict_arguments import FASTSAM, given_arguments, plain_size
from farm.models.yolo import shared_weights
from farm.models.yolo.load_errors import explained

WARM_UP_SIDE = 32
YAML = (".yaml", ".yml")
SEED = 0  # of the weights of a model that has none


def load(config: ModelConfig, device: str, digest: str | None) -> Any:
    """The YOLO object with its predictor: on weights that all workers of the machine share, where they can be."""
    if device == "cpu" and config.is_convertible and not config.prompts:
        make = functools.partial(load_from, config, device)
        return shared_weights.load_once(str(config.weights), config.safe_load, make, digest)
    return load_from(config, device, str(config.weights))


def load_from(config: ModelConfig, device: str, weights: str, loaded: Callable[[Any], None] = lambda yolo: None) -> Any:
    """The YOLO object of a file, with its predictor. `loaded` gets it before the predictor is made."""
    config = config.model_copy(update={"weights": weights})
    yolo = _open(config)
    loaded(yolo)
    if config.prompts:
        _set_prompts(yolo, config)
    if yolo.task not in TASKS:
        raise ModelError(f"{config.weights} is a {yolo.task} model; farm labels {', '.join(TASKS)}")
    _predict_nothing(yolo, config, device)
    return yolo


def _open(config: ModelConfig) -> Any:
    from ultralytics import YOLO

    from farm.models.yolo import preload  # noqa: F401

    weights = str(config.weights)
    try:
        with _same_random_weights(weights):
            return _named(weights) or YOLO(weights, task=config.task, verbose=False)
    except Exception as error:
        raise ModelError(explained(config, error)) from None


@contextmanager
def _same_random_weights(weights: str) -> Iterator[None]:
    """A model YAML has no weights: they are drawn, and must be the same ones in all workers and sessions of a run."""
    if not weights.endswith(YAML):
        yield
        return
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        yield


def _named(weights: str) -> Any:
    """The object of a class that `yolo predict` takes by the name alone; None for YOLO(), which looks into the file."""
    from ultralytics import RTDETR, FastSAM

    name = Path(weights).stem.lower()
    if "rtdetr" in name and not weights.endswith(".pt"):
        return RTDETR(weights)  # exports before Ultralytics 8.3 do not say what they are
    if FASTSAM in name:
        found = FastSAM(weights)
        return found if found.task == "segment" else None
    return None


def _set_prompts(yolo: Any, config: ModelConfig) -> None:
    """Classes in words. Raises ModelError where the model knows only those that it was trained on."""
    from ultralytics import YOLOE, YOLOWorld

    prompts = list(config.prompts or ())
    try:
        if isinstance(yolo, YOLOE):
            yolo.set_classes(prompts, yolo.get_text_pe(prompts))
        elif isinstance(yolo, YOLOWorld):
            yolo.set_classes(prompts)
        else:
            raise ModelError(f"model.prompts: {config.weights} takes none; YOLO-World and YOLOE weights do")
    except ImportError as error:
        raise ModelError(
            f"model.prompts: the text encoder of {config.weights} is missing ({error}); install Ultralytics' CLIP, or "
            f"leave model.prompts out and use weights that were saved after set_classes()"
        ) from None
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        raise ModelError(f"model.prompts: {config.weights} does not take them: {error}") from None


def _predict_nothing(yolo: Any, config: ModelConfig, device: str) -> None:
    """One call on an empty image, after which the predictor is set up, fused and warm."""
    arguments: dict[str, Any] = {"device": device, **given_arguments(config)}
    if device != "cpu" and str(config.weights).endswith((".pt", *YAML)):
        arguments["channels_last"] = True  # an H200 does a seventh more in fp32 too
    if config.precision == "fp16":
        arguments["quantize"] = 16
    channels = int((getattr(yolo.model, "yaml", None) or {}).get("channels", 3))  # an export does not say
    empty = np.zeros((WARM_UP_SIDE, WARM_UP_SIDE, channels), np.uint8)
    try:
        yolo.predict(empty, verbose=False, save=False, **arguments)
    except Exception as error:
        if is_out_of_memory(error):
            raise  # another worker may give memory back
        raise ModelError(explained(config, error)) from None
    _check_size(config, yolo.predictor.args.imgsz)


def _check_size(config: ModelConfig, taken: Any) -> None:
    """Raises ModelError where a runtime has an export run at another size than the run was told."""
    if config.imgsz is not None and plain_size(taken) != plain_size(config.imgsz):
        raise ModelError(
            f"weights {config.weights} run at {taken} here, and not at {config.imgsz}; set model.imgsz={taken}"
        )
