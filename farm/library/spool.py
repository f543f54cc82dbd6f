"""Files for items that are not files: bytes, arrays, PIL images. Used in the caller's threads and the supervisor's.

A worker reads what it labels from a path. Encoded bytes, arrays and PIL images are written to files here: to memory
where /dev/shm has room, to disk elsewhere. An item that is no image gets a file, too, which says why it is none; its
result is a failed one.
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

from farm.errors import DecodeError, OutputError
from farm.images.diagnosis import too_many_pixels
from farm.images.in_memory import ARRAY_SUFFIX, FAILED_SUFFIX, failed_file
from farm.machine import interrupts

FULL_BYTES = 512 << 20  # in the spool: `map` and its like take no more items while it holds as much
SHARED_MEMORY = Path("/dev/shm")
SHARED_ROOM_BYTES = 2 << 30  # free in shared memory; where there is less, files go to disk
SUFFIXES = ((b"II*\0", ".tif"), (b"MM\0*", ".tif"), (b"\0\0\0", ".avif"))
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)
ACCEPTED = "a path, bytes, a BGR array (H, W, 3) uint8, a PIL image, or (key, one of these)"


class Spool:
    """Files named by number. Safe in several threads."""

    def __init__(self, name: str, fallback: Path, max_pixels: int) -> None:
        """`name`: how that of the folder in shared memory begins; `fallback`: the folder where that has no room."""
        self._name = name
        self._fallback = fallback
        self._max_pixels = max_pixels
        self._folders: list[Path] = []
        self._lock = threading.Lock()
        self.held_bytes = 0  # of files that are there

    @property
    def used(self) -> bool:
        """Whether any item had to be written to a file."""
        return bool(self._folders)

    @property
    def full(self) -> bool:
        return self.held_bytes >= FULL_BYTES

    def put(self, item: Any, number: int) -> tuple[Any, str, int | None]:
        """(key, path, bytes written; None for an item that is a path). Raises OutputError where there is no room."""
        key, image = item if isinstance(item, tuple) and len(item) == 2 else (None, item)
        if isinstance(image, (str, os.PathLike)):
            path = os.fsdecode(image)
            return path if key is None else key, path, None
        try:
            data, suffix = _encoded(image, self._max_pixels)
        except DecodeError as error:
            data, suffix = failed_file(error.kind, str(error)), FAILED_SUFFIX
        except Exception as error:  # PIL decodes when it is asked for pixels, and raises what its plugins raise
            data, suffix = failed_file(type(error).__name__, str(error)), FAILED_SUFFIX
        path = self._write(f"{number}{suffix}", data)
        with self._lock:
            self.held_bytes += len(data)
        return number if key is None else key, path, len(data)

    def remove(self, path: str, size: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        with self._lock:
            self.held_bytes -= size

    def close(self) -> None:
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _write(self, name: str, data: Any) -> str:
        """A file in the first folder that has room for it."""
        for folder in self._made_folders():
            path = folder / name
            try:
                with open(path, "wb") as file:
                    file.write(data)
                return str(path)
            except OSError as error:
                path.unlink(missing_ok=True)
                if error.errno not in NO_ROOM:
                    raise
        folders = " or ".join(map(str, self._made_folders()))
        raise OutputError(
            f"no room for images that are no files in {folders}; submit fewer at a time, "
            f"make room there, or set TMPDIR to a larger disk"
        )

    def _made_folders(self) -> list[Path]:
        """The folders, made before the first file: in memory if there is much of it, and on disk."""
        with self._lock, interrupts.held():
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


def _encoded(image: Any, max_pixels: int) -> tuple[Any, str]:
    """The bytes of a file that holds the image, and the end of its name. Raises DecodeError for what is none."""
    if isinstance(image, (bytes, bytearray, memoryview)):
        start = bytes(image[:4])
        return image, next((suffix for magic, suffix in SUFFIXES if start.startswith(magic)), ".jpg")
    if hasattr(image, "convert") and hasattr(image, "mode"):  # PIL: not imported for those who have none
        _check_pixels(image.height * image.width, max_pixels)
        image = _of_pil(image)
    if not isinstance(image, np.ndarray):
        raise DecodeError("decode", "NotAnImage", f"a {type(image).__name__} is no item; give {ACCEPTED}")
    if image.dtype not in (np.uint8, np.uint16) or image.ndim not in (2, 3) or image.size == 0:
        said = f"an array of shape {image.shape} and dtype {image.dtype} is no image"
        raise DecodeError("decode", "NotAnImage", f"{said}; give {ACCEPTED}")
    _check_pixels(image.shape[0] * image.shape[1], max_pixels)
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    header = np.array([image.ndim, *image.shape], "<i8").tobytes()
    return header + np.ascontiguousarray(image).tobytes(), ARRAY_SUFFIX


def _check_pixels(pixels: int, max_pixels: int) -> None:
    """Check an image as a file is checked, before it is copied."""
    if pixels > max_pixels:
        raise DecodeError("decode", "TooManyPixels", too_many_pixels(pixels, max_pixels))


def _of_pil(image: Any) -> np.ndarray:
    """The array that Ultralytics makes of a PIL image: upright, sixteen bits cut to eight, BGR or grey."""
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode == "L" or image.mode.startswith("I;16"):  # of which convert() would make white beyond 255
        return np.asarray(image)
    return np.asarray(image.convert("RGB"))[..., ::-1]
