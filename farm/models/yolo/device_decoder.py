"""JPEGs that the device decodes (`model.decode: device`), with torchcodec, in threads of their own.

    reading threads ──submit──▶ what waits ──a list──▶ a thread of this decoder ──done──▶ whoever submitted it

A decoder is fast with lists: each thread takes what waits by then, and nothing waits for a list to be full. Two threads
keep it busy, one hands on what it has decoded while the other decodes. Each has a stream of its own, and waits until
the device has written its images: they can be read on any stream then.

A list fails as a whole. It is tried again in halves, until the image that is to blame is alone. That one is given back
as None: the CPU decodes it, or says what is wrong with it. Where nothing but failures comes, no more is taken.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Protocol

from farm.images.baseline_jpeg import BaselineJpeg
from farm.machine.standard_streams import tell

THREADS = 2  # one decodes 8,600 photographs of 480×640 a second on an H200, two 15,000, which no network there takes
LONGEST_LIST = 64  # twice as many are not faster
THREAD_NAME = "farm-device-decode"
CHANNELS = 3
MESSAGE_CHARS = 300  # of an error
FAILURES_IN_A_ROW = 64  # single images, with none decoded between: the decoder itself does not work

DecodeList = Callable[[Sequence[BaselineJpeg]], Sequence[Any]]
"""Decodes a list of JPEGs: each as (3, height, width) uint8 RGB on the device, written to its end. May raise."""


class Waiting(Protocol):
    """One image that was submitted, as who submitted it hears of it. Its methods are called in the decoder's threads,
    and must not raise."""

    def begin_decoding(self, together: int) -> None:
        """It is decoded now, with so many images in its list."""
        ...

    def done(self, pixels: Any, seconds: float) -> None:
        """(3, height, width) uint8 RGB on the device; None where the device does not decode it. `seconds`: its part of
        what its list took."""
        ...


class _Job(NamedTuple):
    jpeg: BaselineJpeg
    waiting: Waiting


class DeviceDecoder:
    """The decoder of one model. Its threads end with `close`, or when nobody refers to it any longer."""

    def __init__(self, make_decode: Callable[[], DecodeList], threads: int = THREADS) -> None:
        """`make_decode` is called in each thread: what a thread decodes with is its own."""
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._health = _Health()
        self._close = weakref.finalize(self, _end, self._jobs, threads)
        for number in range(threads):
            lists = _Lists(self._jobs, make_decode, self._health)  # which does not refer to this decoder
            threading.Thread(target=lists.run, name=f"{THREAD_NAME}-{number}", daemon=True).start()

    @property
    def works(self) -> bool:
        """False when it decodes nothing any more. What is submitted nevertheless is given back."""
        return self._health.is_good

    def submit(self, jpeg: BaselineJpeg, waiting: Waiting) -> None:
        """Decode it, soon; returns at once. May be called from any thread. After `close` it is given back."""
        if self._close.alive:
            self._jobs.put(_Job(jpeg, waiting))
        else:
            waiting.done(None, 0.0)

    def decode(self, jpeg: BaselineJpeg) -> Any:
        """Decode it, and wait: what `Waiting.done` is given."""
        alone = _Alone()
        self.submit(jpeg, alone)
        return alone.pixels.get()

    def close(self) -> None:
        """Nothing more is submitted. What waits is decoded, then the threads end."""
        self._close()


class _Alone:
    """`Waiting` for one image, which is waited for."""

    def __init__(self) -> None:
        self.pixels: SimpleQueue[Any] = SimpleQueue()

    def begin_decoding(self, together: int) -> None:
        pass

    def done(self, pixels: Any, seconds: float) -> None:
        self.pixels.put(pixels)


class _Health:
    """Whether decoding works, as far as the last images show it. Shared by the threads."""

    def __init__(self) -> None:
        self.is_good = True
        self._failed = 0

    def decoded(self) -> None:
        self._failed = 0

    def failed(self, why: str) -> None:
        """One image, alone, was not decoded."""
        self._failed += 1
        if self._failed >= FAILURES_IN_A_ROW and self.is_good:
            self.is_good = False
            tell(f"farm: the device decodes no image any more, the CPU does it: {why}")


class _Lists:
    """What one thread does."""

    def __init__(self, jobs: SimpleQueue[_Job | None], make_decode: Callable[[], DecodeList], health: _Health) -> None:
        self._jobs = jobs
        self._make_decode = make_decode
        self._decode: DecodeList | None = None
        self._health = health

    def run(self) -> None:
        while (first := self._jobs.get()) is not None:
            gathered = [first, *self._others()]
            self._decode_all(gathered)
            del first, gathered  # not held until the next one comes

    def _others(self) -> Iterator[_Job]:
        """What else waits by now."""
        with contextlib.suppress(Empty):
            for _ in range(LONGEST_LIST - 1):
                job = self._jobs.get_nowait()
                if job is None:
                    self._jobs.put(None)  # behind all others
                    return
                yield job

    def _decode_all(self, jobs: Sequence[_Job]) -> None:
        """A list; where it fails, each half of it."""
        for job in jobs:
            job.waiting.begin_decoding(len(jobs))
        began = time.perf_counter()
        decoded, why = self._attempt(jobs)
        each_s = (time.perf_counter() - began) / len(jobs)
        if decoded:
            self._health.decoded()
            for job, pixels in zip(jobs, decoded, strict=True):
                job.waiting.done(pixels if _is_whole(pixels, job.jpeg) else None, each_s)
        elif len(jobs) == 1 or not self._health.is_good:
            self._health.failed(why)
            for job in jobs:
                job.waiting.done(None, each_s)
        else:
            half = len(jobs) // 2
            self._decode_all(jobs[:half])
            self._decode_all(jobs[half:])

    def _attempt(self, jobs: Sequence[_Job]) -> tuple[Sequence[Any], str]:
        """The decoded images; none of them, and why. The error itself would hold memory of the device."""
        try:
            self._decode = self._decode or self._make_decode()
            decoded = self._decode([job.jpeg for job in jobs])
        except Exception as error:
            return (), f"{type(error).__name__}: {' '.join(str(error).split())[:MESSAGE_CHARS]}"
        if len(decoded) != len(jobs):
            return (), f"{len(decoded)} images of {len(jobs)}"
        return decoded, ""


def _end(jobs: SimpleQueue[_Job | None], threads: int) -> None:
    for _ in range(threads):
        jobs.put(None)


def _is_whole(pixels: Any, jpeg: BaselineJpeg) -> bool:
    """Is it of the size that the header says? A decoder may see another header in a damaged file than OpenCV does."""
    return tuple(pixels.shape) == (CHANNELS, jpeg.height, jpeg.width)
