"""Weights once: what workers on the CPU predict with lies in one file, which all of them map into memory.

The first worker that loads a .pt writes the model behind its predictor (fused, in float32, in the layout it computes
with) into a cache, as a checkpoint of its own. From then on every worker of the machine, of this run and of others,
maps that file: its pages are in memory once. Nothing writes to them; the model object, and whatever changes while it
predicts, is each worker's own. The numbers are the same to the bit, and nothing is left to convert or to fuse.

The model is made from a copy of the weights that has the digest it is kept under, so that a file which is overwritten
meanwhile leaves nothing wrong behind. A damaged one is made again. Where the cache cannot be written, has no room, or
a model cannot be kept like this, weights are loaded as Ultralytics does it, and nothing else changes.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any

from farm.errors import ModelError, WeightsChangedError
from farm.models import cache
from farm.models.cache import Content, Entry
from farm.models.packages import package_version
from farm.models.weights.files import weights_digest
from farm.models.weights.unchanged import changed
from farm.storage.filesystem import has_room

FORMAT = 2  # of what is kept; another number makes everything anew
FORWARDS = "farm.forwards"  # in the checkpoint: which method fusing made a module's `forward`
LOCK_S = 120.0  # for another worker to load and write a model; after that this one loads its own
ROOM = 5  # times the size of the weights file, which may hold halves, must be free: a copy, and the model in float32
REFUSED = "refused"  # in the manifest: why the model cannot be kept


def load_once(weights: str, safe: bool, make: Callable[..., Any], digest: str | None = None) -> Any:
    """What `make(path, loaded)` gives, a YOLO object with its predictor, on shared weights where that can be.

    `make` is called with `weights`, or with a file of the cache (~/.cache/farm/mapped), and calls `loaded` between
    loading and setting up. `safe`: the weights are loaded without running code, and so is what is kept. `digest`: of
    the weights, where it is known. Raises what `make(weights)` raises, and WeightsChangedError.
    """
    root = cache.root()
    if root is None:
        return make(weights)
    digest = digest or weights_digest(weights)
    entry = Entry.of(root / cache.SHARED_WEIGHTS, Path(weights).stem, _depends_on(digest, safe))
    lease = entry.lease()  # what lies in memory is not removed: its room would not be free
    plain, content = None, entry.content()
    if content is None:
        plain, content = _keep(weights, digest, make, entry)
    yolo = None
    if content is not None:
        plain = None
        yolo = _map(content.path, make)
        _return_memory()
    if yolo is not None:
        yolo.predictor.farm_lease = lease
    elif lease is not None:
        lease.release()
    return yolo or plain or make(weights)


def _keep(weights: str, digest: str, make: Callable[..., Any], entry: Entry) -> tuple[Any, Content | None]:
    """Load the weights and keep the result in the entry, unless another worker has done it meanwhile.

    Returns what was loaded, if anything was, and what the entry holds, if it holds something now.
    """
    yolo = None
    try:
        if REFUSED in entry.manifest():
            return None, None
        with entry.alone(time.monotonic() + LOCK_S):
            content = entry.content()
            if content is not None or not has_room(entry.folder, ROOM * os.path.getsize(weights)):
                return None, content
            with entry.making() as folder:
                yolo = make(_copy(weights, digest, folder))
                return yolo, _write(yolo, folder / Path(weights).name, entry, digest)
    except WeightsChangedError:
        raise
    except (OSError, ModelError):
        return yolo, None  # the weights themselves are loaded next, or say in their own name why they cannot be


def _copy(weights: str, digest: str, folder: Path) -> str:
    """A copy of the weights that nobody else writes to. Raises WeightsChangedError where they are others by now."""
    copy = folder / "copy" / Path(weights).name
    copy.parent.mkdir()
    shutil.copyfile(weights, copy)
    now = cache.content_digest(copy)
    if now != digest:
        raise changed(weights, digest, now)
    return str(copy)


def _write(yolo: Any, file: Path, entry: Entry, digest: str) -> Content | None:
    """Publish the model behind the predictor as a checkpoint, made at `file`. None where that cannot be.

    The name begins as the weights' does: Ultralytics recognises some kinds of model by it.
    """
    import torch

    if yolo.ckpt.get("modelopt"):
        return None  # its quantisers are put back from another part of the checkpoint
    model = yolo.predictor.model.backend.model
    about = {"weights": file.name, "digest": digest}
    forwards: dict[str, str] = {}
    try:
        forwards |= _take_forwards(model)
        torch.save({"model": model, "train_args": yolo.ckpt.get("train_args", {}), FORWARDS: forwards}, file)
        return entry.publish(file, about)
    except OSError:
        return None
    except Exception as error:  # nobody needs to try again
        with contextlib.suppress(OSError):
            entry.describe({"about": about, REFUSED: f"{type(error).__name__}: {error}"})
        return None
    finally:
        _put_forwards(model, forwards)


def _map(file: Path, make: Callable[..., Any]) -> Any:
    """The YOLO object on the mapped file, or None."""
    from torch.utils.serialization import config as torch_config

    def loaded(yolo: Any) -> None:
        model = yolo.model
        _put_forwards(model, yolo.ckpt[FORWARDS])
        model.__deepcopy__ = lambda memo: model  # the predictor would work on a copy, in memory of its own

    try:
        with torch_config.patch({"load.mmap": True}):  # type: ignore[attr-defined]
            yolo = make(str(file), loaded)
        del yolo.model.__deepcopy__
    except (ModelError, RuntimeError, OSError, KeyError, AttributeError):
        return None
    return yolo


def _take_forwards(model: Any) -> dict[str, str]:
    """Take away what fusing made of `forward`, for a safe checkpoint holds no methods. Returns their names by module.

    Raises TypeError for a `forward` that is none of the module's methods.
    """
    names = {}
    for path, module in model.named_modules():
        forward = vars(module).get("forward")
        if forward is None:
            continue
        if not isinstance(forward, MethodType) or forward.__self__ is not module:
            raise TypeError(f"forward of {path or 'the model'} is {forward!r}")
        names[path] = forward.__name__
    for path in names:
        del model.get_submodule(path).forward
    return names


def _put_forwards(model: Any, names: dict[str, str]) -> None:
    for path, name in names.items():
        module = model.get_submodule(path)
        module.forward = getattr(module, name)


def _depends_on(digest: str, safe: bool) -> list[Any]:
    """What the kept model depends on: the memory layout is chosen by torch and by the processor."""
    packages = {name: package_version(name) for name in ("torch", "ultralytics")}
    return [FORMAT, digest, safe, packages, platform.machine()]


def _return_memory() -> None:
    """Give what loading took back to the system; the C library would keep it for this process."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
