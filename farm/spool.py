"""Images that are not files, made files for as long as they are on their way. Used by the library.

A worker reads what it labels from a path; encoded bytes, arrays and PIL images get one here. In memory where /dev/shm
has room, on disk elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np

from farm.decoding import ARRAY_SUFFIX
from farm.errors import ConfigError

FULL_BYTES = 512 << 20  # waiting in the spool, after which no more is taken
SHARED_MEMORY = Path("/dev/shm")
SHARED_ROOM_BYTES = 2 << 30  # less than this, and what waits lies on disk
SUFFIXES = ((b"II*\0", ".tif"), (b"MM\0*", ".tif"), (b"\0\0\0", ".avif"))
ACCEPTED = "a path, bytes, a BGR array (H, W, 3) uint8, a PIL image, or (key, one of these)"


class UnreadableImage(Exception):
    """An image object whose pixels cannot be had. `kind`: the error's name; `key`: the caller's, if it gave one."""

    def __init__(self, key: Any, kind: str, message: str) -> None:
        super().__init__(message)
        self.key = key
        self.kind = kind


class Spool:
    """Files named by number. Safe in several threads."""

    def __init__(self, name: str, fallback: Path) -> None:
        """`name`: of the folder in shared memory; `fallback`: the folder where that has no room."""
        self._name = name
        self._fallback = fallback
        self._folder: Path | None = None
        self._lock = threading.Lock()
        self._held = 0

    @property
    def used(self) -> bool:
        """Was anything ever placed that was no file?"""
        return self._folder is not None

    @property
    def full(self) -> bool:
        return self._held >= FULL_BYTES

    def place(self, item: Any, number: int) -> tuple[Any, str, int]:
        """(key, path, bytes spooled) of an item. Raises ConfigError for what is no image, UnreadableImage."""
        key, image = item if isinstance(item, tuple) and len(item) == 2 else (None, item)
        if isinstance(image, (str, os.PathLike)):
            path = os.fsdecode(image)
            return path if key is None else key, path, 0
        try:
            data, suffix = _encoded(image)
        except (OSError, SyntaxError) as error:  # PIL decodes when it is asked for pixels
            raise UnreadableImage(key, type(error).__name__, str(error)) from None
        path = str(self._ready() / f"{number}{suffix}")
        with open(path, "wb") as file:
            file.write(data)
        with self._lock:
            self._held += len(data)
        return number if key is None else key, path, len(data)

    def remove(self, path: str, size: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        with self._lock:
            self._held -= size

    def close(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _ready(self) -> Path:
        with self._lock:
            if self._folder is None:
                roomy = SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free >= SHARED_ROOM_BYTES
                if roomy:
                    self._folder = SHARED_MEMORY / self._name
                else:
                    self._folder = self._fallback
                self._folder.mkdir(mode=0o700)
            return self._folder


def _encoded(image: Any) -> tuple[Any, str]:
    """The bytes of a file that holds the image, and the end of its name."""
    if isinstance(image, (bytes, bytearray, memoryview)):
        start = bytes(image[:4])
        return image, next((suffix for magic, suffix in SUFFIXES if start.startswith(magic)), ".jpg")
    if hasattr(image, "convert") and hasattr(image, "mode"):  # PIL: not imported for those who have none
        image = np.asarray(image.convert("RGB"))[..., ::-1]
    if not isinstance(image, np.ndarray):
        raise ConfigError(f"a {type(image).__name__} is no item; give {ACCEPTED}")
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.size == 0:
        raise ConfigError(f"an array of shape {image.shape} and dtype {image.dtype} is no image; give {ACCEPTED}")
    header = np.array([image.ndim, *image.shape], "<i8").tobytes()
    return header + np.ascontiguousarray(image).tobytes(), ARRAY_SUFFIX
