"""Anything that Ultralytics' YOLO() loads, driven below `predict()`. Lives in a worker's process.

One call of `predict()` on an empty image sets everything up as Ultralytics does it (fusing, warm-up, end-to-end
head, transforms); from then on the predictor's own preprocess, inference and postprocess are called directly.

Parity: Ultralytics letterboxes a batch of mixed original shapes to a square, an image alone to the smallest
rectangle. Here every image is letterboxed as if it were alone, and only equal shapes are batched, so that labels
are those of `predict(batch=1)` whatever the batch.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from farm.config.sections import ModelConfig
from farm.core.schema import TASKS
from farm.errors import ModelError
from farm.models import checkpoint, foreign, shared_weights
from farm.models.arguments import BY_NAME, plain_size, told
from farm.models.base import is_out_of_memory
from farm.models.by_shape import ByShape
from farm.models.encode import encode_results
from farm.models.graphs import GRAPHS_KEPT, SEEN_BEFORE, Recorder, anchored_modules
from farm.models.runtimes import limited_backend
from farm.models.weights import environment

WARM_UP_SIDE = 32
YAML = (".yaml", ".yml")
SEED = 0  # of the weights of a model that has none
MEASURED_BATCHES = (1, 3)  # whose memory tells how many images fit
FILLED_SHARE = 0.8  # of a worker's part of a device's memory; a second batch is begun while one is postprocessed
ON_HOST = ("detect", "pose", "obb")  # what is left to do with their detections needs no device
REFUSALS = ("weights_only", "unsafe", "unsupported global", "blocked during restricted")  # of safe loading
UNSUPPORTED = "types outside the supported"  # said of a refusal, and of what is no model however it is loaded


@dataclass(frozen=True, slots=True)
class Launched:
    """A batch that the device works on, or has done. `raw` is what the network puts out.

    `begun` and `done` are events of the device; None on the CPU.
    """

    batch: Any
    raw: Any
    originals: list[np.ndarray]
    begun: Any
    done: Any
    preprocess_s: float
    forward_s: float


class YoloModel:
    """One model on one device with its thread budget.

    On CUDA a batch goes through three streams: images are copied on one, from pinned memory; the network runs on
    torch's own; a batch is postprocessed on a third, while the next one is already in the network.
    """

    needs_pixels = True

    def __init__(self, config: ModelConfig, device: str, threads: int, digest: str | None = None) -> None:
        """`digest`: of the weights, where it is known."""
        if config.precision == "fp16" and device == "cpu":
            raise ModelError("model.precision fp16 needs a CUDA device; set model.precision=fp32")
        self._config = config
        self._threads = threads
        self._device = device
        with _loading(config), limited_backend(str(config.weights), threads, config.precision):
            yolo = _set_up(config, device, digest)
        self.task: str = yolo.task
        self._predictor = yolo.predictor
        self._letterbox = self._predictor.pre_transform
        self._predictor.pre_transform = lambda images: images  # `prepare` has done it
        network = self._predictor.model
        self.overlaps = device != "cpu" and getattr(network, "format", None) == "pt"  # others reuse their outputs
        self._copying: Any = None
        self._beside: Any = None
        if self.overlaps:
            self._use_streams(device)
        self._infer: Callable[[Any], Any] = self._predictor.inference
        if config.cuda_graphs and self.overlaps:
            record = Recorder(anchored_modules(network.backend.model))
            self._infer = ByShape(self._predictor.inference, record, SEEN_BEFORE, GRAPHS_KEPT)
        self.max_batch: int | None = network.batch if getattr(network, "format", None) == "engine" else None
        if self.task == "segment":
            self._predictor.construct_result = with_polygons(self._predictor.construct_result)
        self._transforms_host_side = self.task == "classify" and self._predictor.device_transform is None
        self.names: Mapping[int, str] = {int(i): str(name) for i, name in self._predictor.model.names.items()}
        self.channels = int(getattr(self._predictor.model, "channels", 3) or 3)
        self.kpt_shape = _kpt_shape(self._predictor.model) if self.task == "pose" else None
        self.reduced_side = None if self.task == "classify" else max(self._predictor.imgsz)
        self.stages: dict[str, float] = {}
        self.restore_threads()

    def restore_threads(self) -> None:
        """Ultralytics' select_device gives torch all cores but one; the budget is applied again after it."""
        import cv2
        import torch

        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        cv2.setNumThreads(self._threads)

    def prepare(self, image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """The image letterboxed alone (or, for classification, resized and cropped). Safe in several threads."""
        if self._transforms_host_side:
            return image
        if image.shape[:2] != shape:
            image = self._resize_as_whole(image, shape)
        return self._letterbox([image])[0]  # type: ignore[no-any-return]

    def _resize_as_whole(self, image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """A reduced image at the size that letterboxing gives the whole one, so that boxes scale back the same."""
        import cv2

        (height, width), (high, wide) = shape, self._predictor.imgsz
        scale = min(high / height, wide / width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA)

    def predict(self, prepared: Sequence[np.ndarray], shapes: Sequence[tuple[int, int]]) -> list[Any]:
        """Ultralytics' Results of a batch of one prepared shape; seconds by stage are left in `stages`."""
        return self.finish(self.launch(prepared, shapes))

    def launch(self, prepared: Sequence[np.ndarray], shapes: Sequence[tuple[int, int]]) -> Launched:
        """Begin a batch. On CUDA it returns while the device still works."""
        import torch

        originals = [np.broadcast_to(np.uint8(0), (*shape, self.channels)) for shape in shapes]
        names = [""] * len(originals)
        with torch.inference_mode():
            began = time.perf_counter()
            self._predictor.batch = (names, originals, names)
            batch = self._transfer(prepared)
            ready = time.perf_counter()
            begun = self._stamp()
            raw = self._infer(batch)
            done = self._stamp()
        return Launched(batch, raw, originals, begun, done, ready - began, time.perf_counter() - ready)

    def is_done(self, launched: Launched) -> bool:
        """Has the network done with a batch that was begun?"""
        return launched.done is None or bool(launched.done.query())

    def finish(self, launched: Launched) -> list[Any]:
        """Ultralytics' Results of a batch that was begun."""
        import torch

        names = [""] * len(launched.originals)
        self._predictor.batch = (names, launched.originals, names)
        began = time.perf_counter()
        if launched.done is not None:
            launched.done.synchronize()
        inferred = time.perf_counter()
        with torch.inference_mode(), self._beside_the_network():
            results = list(self._predictor.postprocess(launched.raw, launched.batch, launched.originals))
        if self._beside is not None:
            self._beside.synchronize()  # what it reads is given back to the network's stream from here on
        done = time.perf_counter()
        self.stages = {
            "preprocess": launched.preprocess_s,
            "forward": launched.forward_s + inferred - began,
            "postprocess": done - inferred,
        }
        if launched.done is not None:
            self.stages["device"] = launched.begun.elapsed_time(launched.done) / 1e3
        return results

    def encode(self, predictions: list[Any]) -> Mapping[str, pa.Array]:
        with self._beside_the_network():
            return encode_results(self.task, predictions)

    def fitting_batch(self, wanted: int, share: float) -> int:
        """The largest batch, of `wanted` images at most, that a `share` of the device's memory has room for."""
        if self._device == "cpu":
            return wanted
        import torch

        try:
            peaks = [self._peak_bytes(count) for count in MEASURED_BATCHES]
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            torch.cuda.empty_cache()
            return 1
        free, total = torch.cuda.mem_get_info(self._device)
        free += torch.cuda.memory_reserved(self._device)  # what this process has taken is its own
        room = min(free, int(total * share))
        if self._config.cuda_graphs:
            room //= 2  # what graphs compute in is theirs alone
        return fitting_batch(wanted, room, MEASURED_BATCHES, peaks)

    def release_memory(self) -> None:
        """Give back what torch keeps of the device for later: workers beside this one are short of it too."""
        if self._device != "cpu":
            import torch

            torch.cuda.empty_cache()

    def _peak_bytes(self, count: int) -> int:
        """Memory of the device at its fullest in a batch of so many of the largest images."""
        import torch

        torch.cuda.reset_peak_memory_stats(self._device)
        self.predict([np.zeros((*self._predictor.imgsz, self.channels), np.uint8)] * count, [(1, 1)] * count)
        return int(torch.cuda.max_memory_allocated(self._device))

    def _use_streams(self, device: str) -> None:
        import torch

        self._copying = torch.cuda.Stream(device)
        self._beside = torch.cuda.Stream(device)
        if self.task in ON_HOST and hasattr(self._predictor, "construct_results"):
            self._predictor.construct_results = on_host(self._predictor.construct_results)

    def _transfer(self, prepared: Sequence[np.ndarray]) -> Any:
        """The batch as the network takes it."""
        if self.task == "classify" or prepared[0].dtype != np.uint8:
            return self._predictor.preprocess(list(prepared))
        import torch

        if self._device == "cpu":
            return torch.from_numpy(as_planes(prepared)).float().div_(255)
        if self._copying is None:
            return self._predictor.preprocess(list(prepared))

        with torch.cuda.stream(self._copying):
            pixels = pinned(prepared, True).to(self._device, non_blocking=True)
        stream = torch.cuda.current_stream(self._device)
        stream.wait_stream(self._copying)
        pixels.record_stream(stream)
        return as_input(pixels, self._predictor.model.fp16)

    def _stamp(self) -> Any:
        """An event behind what the device has been given so far; None on the CPU."""
        if self._device == "cpu":
            return None
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _beside_the_network(self) -> AbstractContextManager[Any]:
        """On the stream that does not wait for the network's next batch."""
        if self._beside is None:
            return nullcontext()
        import torch

        return torch.cuda.stream(self._beside)


def _kpt_shape(network: Any) -> tuple[int, int] | None:
    """Keypoints of an object and values of each, as the weights say it, of whatever format."""
    shape = getattr(network, "kpt_shape", None)
    return None if shape is None else (int(shape[0]), int(shape[1]))


def fitting_batch(wanted: int, room_bytes: int, measured: tuple[int, int], peaks: Sequence[int]) -> int:
    """The largest batch whose peak, a straight line through two measured ones, leaves a part of the room free. Pure."""
    fewer, more = measured
    each = max(1, (peaks[1] - peaks[0]) // (more - fewer))
    fixed = peaks[0] - each * fewer
    return max(1, min(wanted, int((room_bytes * FILLED_SHARE - fixed) // each)))


def pinned(prepared: Sequence[np.ndarray], pin: bool) -> Any:
    """Images (H, W, C) as one tensor (n, H, W, C) uint8, in memory that the device copies from by itself.

    torch keeps such memory for reuse, and hands it out again only when its copy is done.
    """
    import torch

    whole = torch.empty((len(prepared), *prepared[0].shape), dtype=torch.uint8, pin_memory=pin)
    np.stack(prepared, out=whole.numpy())
    return whole


def as_planes(prepared: Sequence[np.ndarray]) -> np.ndarray:
    """Images (H, W, C) BGR as (n, C, H, W) RGB: what Ultralytics does in two copies, in one."""
    import cv2

    height, width, channels = prepared[0].shape
    planes = np.empty((len(prepared), channels, height, width), prepared[0].dtype)
    for image, into in zip(prepared, planes, strict=True):
        for channel in range(channels):
            cv2.extractChannel(image, channels - 1 - channel if channels == 3 else channel, into[channel])
    return planes


def as_input(pixels: Any, half: bool) -> Any:
    """Pixels (n, H, W, C) uint8 BGR on the device as (n, C, H, W) RGB of 0 to 1: Ultralytics' own steps."""
    batch = pixels.permute(0, 3, 1, 2).contiguous()
    if batch.shape[1] == 3:
        batch = batch.flip(1)
    return (batch.half() if half else batch.float()).div_(255)


def with_polygons(construct: Callable[..., Any]) -> Callable[..., Any]:
    """`construct_result` with an image's masks made polygons at once: a whole batch of masks fills a device."""

    def construct_with_polygons(*args: Any, **kwargs: Any) -> Any:
        result = construct(*args, **kwargs)
        if result.masks is not None:
            result.masks = SimpleNamespace(xy=result.masks.xy)
        return result

    return construct_with_polygons


def on_host(construct: Callable[..., Any]) -> Callable[..., Any]:
    """`construct_results` with the detections of a whole batch brought from the device in one copy."""

    def construct_on_host(found: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        import torch

        whole = torch.cat(list(found)).cpu()
        return construct(list(whole.split([len(each) for each in found])), *args, **kwargs)

    return construct_on_host


@contextmanager
def _loading(config: ModelConfig) -> Iterator[None]:
    """Ultralytics as this config wants it. What decides over loading is afterwards as it was: threads may belong to a
    program that loads models of its own."""
    variables = environment(config)
    before = {name: os.environ.get(name) for name in variables}
    modules = [sys.modules.get(f"ultralytics.{name}") for name in ("utils", "nn.tasks", "utils.checks")]
    kept = [(m, name, getattr(m, name)) for m in modules for name in ("SAFE_LOAD", "AUTOINSTALL") if hasattr(m, name)]
    os.environ.update(variables)
    try:
        configure_ultralytics(config)
        yield
    finally:
        for module, name, value in kept:
            setattr(module, name, value)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def configure_ultralytics(config: ModelConfig) -> None:
    """The environment's meaning, also where a fork server imported Ultralytics under another one. No telemetry."""
    from ultralytics import utils
    from ultralytics.nn import tasks
    from ultralytics.utils import checks, nms
    from ultralytics.utils.events import events

    utils.SAFE_LOAD = tasks.SAFE_LOAD = config.safe_load
    utils.AUTOINSTALL = checks.AUTOINSTALL = config.autoinstall
    events.enabled = False
    # After 2 s non-maximum suppression drops the rest of a batch, with a warning only: no clock decides here.
    vars(nms)["time"] = SimpleNamespace(time=lambda: 0.0)


def _set_up(config: ModelConfig, device: str, digest: str | None) -> Any:
    """The YOLO object with its predictor: on weights that all workers of the machine share, where they can be."""
    if device == "cpu" and config.is_convertible and not config.prompts:
        make = functools.partial(_make, config, device)
        return shared_weights.load_once(str(config.weights), config.safe_load, make, digest)
    return _make(config, device, str(config.weights))


def _make(config: ModelConfig, device: str, weights: str, loaded: Callable[[Any], None] = lambda yolo: None) -> Any:
    """The YOLO object of a file, with its predictor. `loaded` gets it before the predictor is made."""
    config = config.model_copy(update={"weights": weights})
    yolo = _load(config)
    loaded(yolo)
    if config.prompts:
        _set_prompts(yolo, config)
    if yolo.task not in TASKS:
        raise ModelError(f"{config.weights} is a {yolo.task} model; farm labels {', '.join(TASKS)}")
    _predict_nothing(yolo, config, device)
    return yolo


def _load(config: ModelConfig) -> Any:
    from ultralytics import YOLO

    from farm.models import preload  # noqa: F401

    weights = str(config.weights)
    try:
        with _drawn_alike(weights):
            return _named(weights) or YOLO(weights, task=config.task, verbose=False)
    except Exception as error:
        raise ModelError(_why(config, error)) from None


@contextmanager
def _drawn_alike(weights: str) -> Iterator[None]:
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
    if BY_NAME in name:
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
    arguments: dict[str, Any] = {"device": device, **told(config)}
    if config.precision == "fp16":
        arguments |= {"quantize": 16, "channels_last": True}
    channels = int((getattr(yolo.model, "yaml", None) or {}).get("channels", 3))  # an export does not say
    empty = np.zeros((WARM_UP_SIDE, WARM_UP_SIDE, channels), np.uint8)
    try:
        yolo.predict(empty, verbose=False, save=False, **arguments)
    except Exception as error:
        if is_out_of_memory(error):
            raise  # another worker may give memory back
        raise ModelError(_why(config, error)) from None
    _check_size(config, yolo.predictor.args.imgsz)


def _check_size(config: ModelConfig, taken: Any) -> None:
    """Raises ModelError where a runtime has an export run at another size than the run was told."""
    if config.imgsz is not None and plain_size(taken) != plain_size(config.imgsz):
        raise ModelError(
            f"weights {config.weights} run at {taken} here, and not at {config.imgsz}; set model.imgsz={taken}"
        )


def _why(config: ModelConfig, error: Exception) -> str:
    """One line: the weights, what is wrong, what to change."""
    text = " ".join(str(error).split())
    lowered = text.lower()
    if config.is_convertible and (what := foreign.explain_file(Path(str(config.weights)))):
        return f"model.weights {config.weights} {what}"
    if config.safe_load and is_refused(error):
        return (
            f"weights {config.weights} hold code that safe loading refuses ({text[:200]}); "
            f"only if you trust the file: model.safe_load=false{_and_install(str(config.weights))}"
        )
    if UNSUPPORTED in lowered:
        return f"weights {config.weights} hold no model of Ultralytics'; save one with Ultralytics' model.save()"
    if "invalid cuda" in lowered:
        return (
            f"this torch cannot use the device of {config.weights}: {text[:300]}; set workers.devices=cpu, or mend it"
        )
    if isinstance(error, ModuleNotFoundError) or "no module named" in lowered or "not found, autoupdate" in lowered:
        return f"weights {config.weights} need a package that is not installed: {text[:300]}"
    return f"weights {config.weights} do not load: {type(error).__name__}: {text[:300]}"


def is_refused(error: BaseException) -> bool:
    """Is it safe loading that stands in the way, and nothing else? What it refuses is an error of unpickling."""
    text = str(error).lower()
    if UNSUPPORTED in text:
        return isinstance(error.__cause__, pickle.UnpicklingError)
    return any(word in text for word in REFUSALS)


def _and_install(weights: str) -> str:
    """What loading the file would need besides: packages that its classes come from."""
    found = checkpoint.read(weights)
    roots = {name.partition(".")[0] for name in found.names} if found else set()
    missing = sorted(root for root in roots - {"__builtin__", ""} if importlib.util.find_spec(root) is None)
    return f", and install {', '.join(missing)}" if missing else ""
