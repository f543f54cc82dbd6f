"""Memory that a device copies batches from, cut into slots that decoding threads letterbox into.

    decoding thread   take(shape) → Slot, letterbox_into(image, slot.pixels, plan)
    worker            gathers slots of one slab (its `batch_key`); launch: gathered(slots) → memory, rows

A slab holds one batch of one shape. No image is stacked: a batch is copied to the device from where it was written.
torch's caching allocator owns the memory. A slab is dropped, never pooled: it lives as long as a slot or a batch refers
to it, so that a batch which failed can be launched again in parts, and torch hands its memory out again only when the
device has copied it.

Where shapes are many or large, the slabs that are being filled have no room for all of them. The images of the other
shapes lie in memory of their own then, as on the CPU, and are copied together when their batch is full.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import Any

import numpy as np

from farm.machine.standard_streams import tell

Shape = tuple[int, int, int]

OPEN_BYTES = 512 << 20  # of slabs that are being filled; full ones, bounded by the worker's read-ahead, come on top
RARE_PART = 4  # a shape that is rare so far gets a slab of a batch's fourth: less memory waits for it in vain
STALE_BATCHES = 64  # of other images, after which a slab makes room: its batch does not wait longer (ShapeBatcher)


class Slab:
    """Slots of one shape (H, W, C), in memory of their own. Compared and hashed by identity: it is a batch's key.

    tensor  (size, H, W, C) uint8 of torch's, pinned where the device is CUDA's
    pixels  the same memory for numpy
    taken   slots handed out, from the first on
    used    how many images had come when the last of them was
    closed  no more are
    """

    __slots__ = ("__weakref__", "closed", "pixels", "size", "taken", "tensor", "used")

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor
        self.pixels: np.ndarray = tensor.numpy()
        self.size: int = len(self.pixels)
        self.taken = self.used = 0
        self.closed = False

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes


class Slot:
    """A place for one letterboxed image, as `prepare` returns it. `pixels` (H, W, C) uint8 is the slab's own memory."""

    __slots__ = ("index", "pixels", "slab")

    def __init__(self, slab: Slab, index: int) -> None:
        self.slab = slab
        self.index = index
        self.pixels: np.ndarray = slab.pixels[index]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.pixels.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.pixels.dtype

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes

    @property
    def batch_key(self) -> Slab:
        return self.slab

    @property
    def batch_of(self) -> int:
        """Images that its batch gathers: all that the slab has room for, or that it was closed with."""
        return self.slab.taken if self.slab.closed else self.slab.size


class PinnedSlots:
    """Slots of any shape, for batches of `batch` images. Safe in any number of threads.

    `pin`: the memory is page-locked, so that a device copies from it by itself; False where there is no CUDA.
    `open_bytes`: of slabs that are being filled, at most; one there is at least. `device`: that copies from them.
    """

    def __init__(self, batch: int, pin: bool, open_bytes: int = OPEN_BYTES, device: str | None = None) -> None:
        self._batch = batch
        self._pin = pin
        self._device = device
        self._most_bytes = open_bytes
        self._lock = threading.Lock()
        self._open: OrderedDict[Shape, Slab] = OrderedDict()  # the one used longest ago first
        self._open_bytes = 0
        self._seen: Counter[Shape] = Counter()
        self._come = 0

    def take(self, shape: Shape) -> Slot | None:
        """A slot that nobody else has, with pixels of any value; None where slabs of other shapes have all the room.

        Raises what torch raises where memory is short.
        """
        with self._lock:
            self._come += 1
            self._seen[shape] += 1
            slab = self._open.get(shape) or self._opened(shape)
            if slab is None:
                return None
            self._open.move_to_end(shape)
            slot = Slot(slab, slab.taken)
            slab.taken += 1
            slab.used = self._come
            if slab.taken == slab.size:
                self._close(slab)
            return slot

    def close(self, slab: Slab) -> None:
        """Hand out no more of it. Its slots stay valid."""
        with self._lock:
            self._close(slab)

    def gathered(self, prepared: Sequence[Slot | np.ndarray]) -> tuple[Any, list[int] | None]:
        """A batch of one shape as host memory (n, H, W, C) uint8, and the rows of it that are wanted, in order.

        None for all of them as they come. Where all images lie in one slab, it is the slab's own memory from the first
        of them to the last, and the slab is closed; else they are copied together.
        """
        slab = prepared[0].slab if isinstance(prepared[0], Slot) else None
        indices = [each.index for each in prepared if isinstance(each, Slot) and each.slab is slab]
        if slab is None or len(indices) < len(prepared):
            return self._stacked(prepared), None
        self.close(slab)
        first, last = min(indices), max(indices)
        rows = [index - first for index in indices]
        return slab.tensor[first : last + 1], None if rows == list(range(len(rows))) else rows

    def _opened(self, shape: Shape) -> Slab | None:
        """A new slab, where it has room. None is closed for it that is still being filled.

        One that was would hold its memory for the few images that it has: shapes that take turns would fill the host
        with such slabs, and the device would be given an image at a time.
        """
        size = self._batch if self._seen[shape] > self._batch else max(1, self._batch // RARE_PART)
        while self._open and self._open_bytes + size * prod(shape) > self._most_bytes:
            oldest = next(iter(self._open.values()))
            if self._come - oldest.used <= STALE_BATCHES * self._batch:
                return None
            self._close(oldest)
        slab = self._open[shape] = Slab(self._memory((size, *shape)))
        self._open_bytes += slab.nbytes
        return slab

    def _close(self, slab: Slab) -> None:
        slab.closed = True
        shape = slab.pixels.shape[1:]
        if self._open.get(shape) is slab:
            del self._open[shape]
            self._open_bytes -= slab.nbytes

    def _stacked(self, prepared: Sequence[Slot | np.ndarray]) -> Any:
        images = [each.pixels if isinstance(each, Slot) else each for each in prepared]
        whole = self._memory((len(images), *images[0].shape))
        np.stack(images, out=whole.numpy())
        return whole

    def _memory(self, shape: tuple[int, ...]) -> Any:
        """Where memory cannot be pinned, by a limit of the machine's, the device copies from any other, slower."""
        import torch

        if self._pin:
            try:
                with self._on_device():
                    return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
            except RuntimeError as error:
                self._pin = False
                tell(f"farm: no memory can be pinned for copies to the device, which are slower so: {error}")
        return torch.empty(shape, dtype=torch.uint8)

    def _on_device(self) -> AbstractContextManager[Any]:
        """torch asks the device whether older copies are done: the one that is current, which is the first in a thread
        that was told of none, and takes some hundred megabytes there."""
        import torch

        return nullcontext() if self._device is None else torch.cuda.device(self._device)
