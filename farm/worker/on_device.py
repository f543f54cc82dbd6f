"""One image that the device decodes: from the bytes that a decoding thread has read to what comes of them.

    decoding thread           begin           waits for memory, and submits it to the model's device decoder
    thread of that decoder    begin_decoding  with others
                              done            the image is prepared, or decoded on the CPU after all

No thread stands still for it meanwhile. Nor does its clock run, but while the device decodes the list that it is in.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from farm.core.rows import Decoded, Unread
from farm.images.baseline_jpeg import BaselineJpeg
from farm.images.decoder_threads import Elsewhere, Settle

BYTES_A_PIXEL = 6  # of the device: three for the image, and as much again for what its decoder makes of it on the way


class OnDevice(Elsewhere):
    """What a decoding thread returns for it, and `Waiting` of the device decoder (models/yolo/device_decoder.py)."""

    def __init__(
        self, jpeg: BaselineJpeg, decoder: Any, memory: AbstractContextManager[None],
        began: Callable[[int], None], decoded: Callable[[Any, float], Decoded | Unread],
    ) -> None:  # fmt: skip
        """`memory` is entered until the image is decoded. `began` and `decoded`: see `Waiting`."""
        self._jpeg = jpeg
        self._decoder = decoder
        self._memory = memory
        self._held = ExitStack()
        self._decoded = decoded
        self.begin_decoding = began

    def begin(self, settle: Settle) -> None:
        """Submit it."""
        self._settle = settle
        self._held.enter_context(self._memory)
        self._decoder.submit(self._jpeg, self)

    def done(self, pixels: Any, seconds: float) -> None:
        """It is decoded, or not; the rest is done here."""
        self._settle(functools.partial(self._finish, pixels, seconds))

    def _finish(self, pixels: Any, seconds: float) -> Decoded | Unread:
        with self._held:
            return self._decoded(pixels, seconds)
