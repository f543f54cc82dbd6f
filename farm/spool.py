"""Images that are not files, made files for as long as they are on their way. Used by the library.

A worker reads what it labels from a path; encoded bytes, arrays and PIL images get one here. In memory where /dev/shm
has room, on disk elsewhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np

from farm.decoding import ARRAY_SUFFIX
from farm.errors import ConfigError, OutputError

FULL_BYTES = 512 << 20  # waiting in the spool, after which no more is taken
SHARED_MEMORY = Path("/dev/shm")
SHARED_ROOM_BYTES = 2 << 30  # less than this, and what waits lies on disk
SUFFIXES = ((b"II*\0", ".tif"), (b"MM\0*", ".tif"), (b"\0\0\0", ".avif"))
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)
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
        """`name`: how that of the folder in shared memory begins; `fallback`: the folder where that has no room."""
        self._name = name
        self._fallback = fallback
        self._folders: list[Path] = []
        self._lock = threading.Lock()
        self._held = 0

    @property
    def used(self) -> bool:
        """Was anything ever placed that was no file?"""
        return bool(self._folders)

    @property
    def full(self) -> bool:
        return self._held >= FULL_BYTES

    def place(self, item: Any, number: int) -> tuple[Any, str, int]:
        """(key, path, bytes spooled) of an item.

        Raises ConfigError for what is no image, UnreadableImage, OutputError where there is no room for it.
        """
        key, image = item if isinstance(item, tuple) and len(item) == 2 else (None, item)
        if isinstance(image, (str, os.PathLike)):
            path = os.fsdecode(image)
            return path if key is None else key, path, 0
        try:
            data, suffix = _encoded(image)
        except ConfigError:
            raise
        except Exception as error:  # PIL decodes when it is asked for pixels, and raises what its plugins raise
            raise UnreadableImage(key, type(error).__name__, str(error)) from None
        path = self._write(f"{number}{suffix}", data)
        with self._lock:
            self._held += len(data)
        return number if key is None else key, path, len(data)

    def remove(self, path: str, size: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        with self._lock:
            self._held -= size

    def close(self) -> None:
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _write(self, name: str, data: Any) -> str:
        """A file in the first folder that has room for it."""
        for folder in self._ready():
            path = folder / name
            try:
                with open(path, "wb") as file:
                    file.write(data)
                return str(path)
            except OSError as error:
                path.unlink(missing_ok=True)
                if error.errno not in NO_ROOM:
                    raise
        raise OutputError(
            f"no room for images that are no files in {' or '.join(map(str, self._ready()))}; submit fewer at a time, "
            f"make room there, or set TMPDIR to a larger disk"
        )

    def _ready(self) -> list[Path]:
        """Where files go: in memory if there is much of it, and then on disk."""
        with self._lock:
            if not self._folders:
                self._fallback.mkdir(mode=0o700)
                self._folders = [*self._in_memory(), self._fallback]
            return self._folders

    def _in_memory(self) -> list[Path]:
        """A folder in shared memory, where there is room for it, and this user may have one."""
        with contextlib.suppress(OSError):
            if shutil.disk_usage(SHARED_MEMORY).free >= SHARED_ROOM_BYTES:
                return [Path(tempfile.mkdtemp(prefix=f"{self._name}-", dir=SHARED_MEMORY))]
        return []


def _encoded(image: Any) -> tuple[Any, str]:
    """The bytes of a file that holds the image, and the end of its name."""
    if isinstance(image, (bytes, bytearray, memoryview)):
        start = bytes(image[:4])
        return image, next((suffix for magic, suffix in SUFFIXES if start.startswith(magic)), ".jpg")
    if hasattr(image, "convert") and hasattr(image, "mode"):  # PIL: not imported for those who have none
        image = _of_pil(image)
    if not isinstance(image, np.ndarray):
        raise ConfigError(f"a {type(image).__name__} is no item; give {ACCEPTED}")
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.size == 0:
        raise ConfigError(f"an array of shape {image.shape} and dtype {image.dtype} is no image; give {ACCEPTED}")
    header = np.array([image.ndim, *image.shape], "<i8").tobytes()
    return header + np.ascontiguousarray(image).tobytes(), ARRAY_SUFFIX


def _of_pil(image: Any) -> np.ndarray:
    """The array that Ultralytics makes of a PIL image: upright, sixteen bits cut to eight, BGR or grey."""
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode == "L" or image.mode.startswith("I;16"):  # of which convert() would make white beyond 255
        return np.asarray(image)
    return np.asarray(image.convert("RGB"))[..., ::-1]
