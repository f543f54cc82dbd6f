"""Weights once: what workers on the CPU predict with lies in one file, which all of them map into memory.

The first worker that loads a .pt writes the model behind its predictor (fused, in float32, in the layout it computes
with) into a cache, as a checkpoint of its own. From then on every worker of the machine, of this run and of others,
maps that file: its pages are in memory once. Nothing writes to them; the model object, and whatever changes while it
predicts, is each worker's own. The numbers are the same to the bit, and nothing is left to convert or to fuse.

A file is whole by its name, which holds its digest; a damaged one is made again. Where the cache cannot be written,
has no room, or a model cannot be kept like this, weights are loaded as Ultralytics does it, and nothing else changes.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import hashlib
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import MethodType
from typing import Any

from farm.errors import ModelError
from farm.models.weights import weights_digest

CACHE = Path("~/.cache/farm/mapped")
FORMAT = 1  # of what is kept; another number makes everything anew
FORWARDS = "farm.forwards"  # in the checkpoint: which method fusing made a module's `forward`
LOCK_S = 120.0  # for another worker to load and write a model; after that this one loads its own
POLL_S = 0.05
ROOM = 4  # times the size of the weights file, which may hold halves, must be free
KEEP_S = 30 * 86400.0  # a file that nobody has mapped for so long is removed when the next one is made
REFUSED = "refused"
MAKING = ".making-"


def load_once(weights: str, safe: bool, make: Callable[..., Any], cache: Path | None = None) -> Any:
    """What `make(path, loaded)` gives, a YOLO object with its predictor, on shared weights where that can be.

    `make` is called with `weights`, or with a file of the cache (~/.cache/farm/mapped), and calls `loaded` between
    loading and setting up. `safe`: the weights are loaded without running code, and so is what is kept. Raises what
    `make(weights)` raises.
    """
    cache = (cache or CACHE).expanduser()
    folder = cache / f"{Path(weights).stem}-{_key(weights, safe)}"
    file = _whole(folder)
    if file is None:
        plain, file = _keep(weights, make, cache, folder)
        if file is None:
            return plain or make(weights)
        del plain
    yolo = _map(file, make) or make(weights)
    _return_memory()
    return yolo


def _keep(weights: str, make: Callable[..., Any], cache: Path, folder: Path) -> tuple[Any, Path | None]:
    """Load the weights and keep the result in the folder, unless another worker has done it meanwhile.

    Returns what was loaded, if anything was, and the file, if there is one now.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if (folder / REFUSED).exists() or shutil.disk_usage(folder).free < ROOM * os.path.getsize(weights):
                return None, None
            stack.enter_context(_alone(folder / "lock"))
            file = _whole(folder)
            _remove_old(cache, folder)
        except OSError:
            return None, None
        if file is not None:
            return None, file
        yolo = make(weights)
        return yolo, _write(yolo, Path(weights).stem, folder)


def _write(yolo: Any, stem: str, folder: Path) -> Path | None:
    """The model behind the predictor as a checkpoint; it appears whole. None where that cannot be.

    The name begins as the weights' does: Ultralytics recognises some kinds of model by it.
    """
    import torch

    if yolo.ckpt.get("modelopt"):
        return None  # its quantisers are put back from another part of the checkpoint
    model = yolo.predictor.model.backend.model
    forwards: dict[str, str] = {}
    try:
        forwards |= _take_forwards(model)
        kept = {"model": model, "train_args": yolo.ckpt.get("train_args", {}), FORWARDS: forwards}
        with tempfile.NamedTemporaryFile(dir=folder, prefix=MAKING, delete=False) as made:
            torch.save(kept, made)
            made.flush()
            os.fsync(made.fileno())
        file = folder / f"{stem}.{_digest(Path(made.name))}.pt"
        os.rename(made.name, file)
    except OSError:
        return None
    except Exception as error:
        with contextlib.suppress(OSError):  # nobody needs to try again
            (folder / REFUSED).write_text(f"{type(error).__name__}: {error}\n")
        return None
    finally:
        _put_forwards(model, forwards)
    return file


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
    with contextlib.suppress(OSError):
        os.utime(file)
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


def _key(weights: str, safe: bool) -> str:
    """What the kept model depends on: the memory layout is chosen by torch and by the processor."""
    packages = {name: version(name) for name in ("torch", "ultralytics")}
    words = [FORMAT, weights_digest(weights), safe, packages, platform.machine()]
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]


def _whole(folder: Path) -> Path | None:
    """The file that is kept, read once to the end; a damaged one is removed."""
    with contextlib.suppress(OSError):
        for file in folder.glob("*.pt"):
            if _digest(file) == file.name.split(".")[-2]:
                return file
            file.unlink()
    return None


def _digest(file: Path) -> str:
    with open(file, "rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()[:32]


def _remove_old(cache: Path, folder: Path) -> None:
    """Under the folder's lock: files that a killed worker left unfinished; and of the whole cache what is unused."""
    for left in folder.glob(f"{MAKING}*"):
        left.unlink(missing_ok=True)
    for file in cache.glob("*/*.pt"):
        if file.stat().st_mtime < time.time() - KEEP_S:
            file.unlink(missing_ok=True)


def _return_memory() -> None:
    """Give what loading took back to the system; the C library would keep it for this process."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One worker makes a file. Raises TimeoutError where another has been at it for too long."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    deadline_s = time.monotonic() + LOCK_S
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    raise TimeoutError(f"{lock} is taken") from None
                time.sleep(POLL_S)
        yield
    finally:
        os.close(descriptor)
