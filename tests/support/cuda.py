"""torch.cuda on CPU tensors, under which what is launched really runs, by CUDA's rules as far as farm depends on them.

- A copy with `non_blocking` is done when something waits for it: an event's synchronize, or a stream that waits for
  the copying one. Until then its target holds numbers that nobody could take for results.
- What one stream writes, another reads only behind a wait (torch's own sanitizer looks for it).
- While a graph is recorded nothing may wait for the device, nor come from the host's numbers; a recording is replayed
  kernel by kernel on the memory that it was recorded with.
- A recording that was broken cannot be ended; torch goes on routing memory to its pool (before pytorch#180395), and a
  pool that all its graphs have left is refused.

Faults: `fail(error, when)` raises it once at the next kernel for which `when(name, is_recording)`; `lose()` makes every
call raise, as after an illegal access; `drift` is added to what a replay gives; `stuck` events never come.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.cuda._sanitizer import EventHandler
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

WAITS = ("aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::equal", "aten::allclose")
FROM_HOST = ("aten::arange", "aten::scalar_tensor", "aten::lift_fresh")
POISON = 0x7F
LOST = "CUDA error: an illegal memory access was encountered"
NOT_PERMITTED = "CUDA error: operation not permitted when stream is capturing"


@dataclass
class Stream:
    device: Any
    cuda: FakeCuda
    pending: list[Callable[[], None]] = field(default_factory=list)
    kernels: int = 0  # that it was given
    waited_for: int = 0  # of them
    cuda_stream: int = field(default_factory=itertools.count(1).__next__)

    def __hash__(self) -> int:
        return self.cuda_stream

    def __eq__(self, other: object) -> bool:
        return self is other

    def wait_stream(self, other: Stream) -> None:
        event = self.cuda.event()
        event.record(other)
        event.wait(self)

    def synchronize(self) -> None:
        self.cuda.waits_for_device()
        self.cuda.complete(self, len(self.pending))
        self.cuda.races._handle_stream_synchronization(self.cuda_stream)


class Event:
    def __init__(self, cuda: FakeCuda, enable_timing: bool = False, blocking: bool = False) -> None:
        self._cuda, self._timing, self.blocking = cuda, enable_timing, blocking
        self._stream: Stream | None = None
        self._at, self._recorded_s = 0, 0.0
        self._kernels = 0
        self.ident = next(cuda.events)
        cuda.races._handle_event_creation(self.ident)

    def record(self, stream: Stream) -> None:
        self._cuda.check()
        self._stream, self._at, self._recorded_s = stream, len(stream.pending), time.perf_counter()
        self._kernels = stream.kernels
        self._cuda.races._handle_event_record(self.ident, stream.cuda_stream)

    def wait(self, stream: Stream) -> None:
        assert self._stream is not None
        self._cuda.complete(self._stream, self._at)
        self._cuda.races._handle_event_wait(self.ident, stream.cuda_stream)

    def query(self) -> bool:
        self._cuda.check()
        return not self._cuda.stuck

    def synchronize(self) -> None:
        self._cuda.waits_for_device()
        if self._cuda.stuck:
            raise TimeoutError("an event that never comes")
        assert self._stream is not None, "an event that was not recorded"
        self._cuda.complete(self._stream, self._at)
        self._stream.waited_for = self._kernels
        self._cuda.races._handle_event_synchronization(self.ident)

    def elapsed_time(self, end: Event) -> float:
        assert self._timing and end._timing, "events that keep no time"
        return (end._recorded_s - self._recorded_s) * 1e3


class CUDAGraph:
    """A recording: kernels, what they read, and what they wrote."""

    def __init__(self, cuda: FakeCuda) -> None:
        self._cuda = cuda
        self._kernels: list[tuple[Any, Any, Any, Any]] = []
        self.pool: Any = None
        self.is_broken = self.is_recorded = False

    def capture_begin(self, pool: Any, capture_error_mode: str) -> None:
        cuda = self._cuda
        cuda.check()
        assert capture_error_mode == "thread_local", "decoding threads pin memory meanwhile"
        assert cuda.current is not cuda.default, "graphs are recorded on a stream of one's own"
        if cuda.routed:
            raise RuntimeError("beginAllocateToPool: already recording to mempool_id")
        if pool in cuda.pools and cuda.pools[pool] == 0:
            raise RuntimeError("it->second->use_count > 0 INTERNAL ASSERT FAILED")
        cuda.pools[pool] += 1
        cuda.routed.append(pool)
        self.pool, cuda.recording = pool, self

    def record(self, kernel: tuple[Any, Any, Any, Any]) -> None:
        self._kernels.append(kernel)

    def capture_end(self) -> None:
        self._cuda.recording = None
        if self.is_broken or not self._cuda.routed:
            raise torch.AcceleratorError("CUDA error: operation failed due to a previous error during capture")
        self._cuda.routed.remove(self.pool)
        self.is_recorded = True

    def replay(self) -> None:
        self._cuda.check()
        assert self.is_recorded
        self._cuda.replays += 1
        for func, args, kwargs, outputs in self._kernels:
            made = func(*args, **kwargs)
            for old, new in zip(_tensors(outputs), _tensors(made), strict=True):
                if old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                    old.copy_(new)
                    if self._cuda.drift and old.is_floating_point():
                        old.add_(self._cuda.drift)

    def reset(self) -> None:
        if self.is_recorded:
            self._cuda.pools[self.pool] -= 1
            self._kernels, self.is_recorded = [], False

    def __del__(self) -> None:
        self.reset()


class FakeCuda(TorchDispatchMode):
    """The device. A dispatch mode: it sees every kernel while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.races = EventHandler()
        self.events = itertools.count(1)
        self.default = self.current = Stream("cpu", self)
        self.recording: CUDAGraph | None = None
        self.routed: list[Any] = []
        self.pools: Counter[Any] = Counter()
        self.told: set[tuple[int, int]] = set()
        self.replays = self.emptied = 0
        self.drift, self.stuck, self.is_lost, self.may_wait = 0.0, False, False, True
        self.free_bytes = 1 << 40
        self._faults: list[tuple[BaseException, Callable[[str, bool], bool]]] = []
        self._alive: list[Any] = []  # addresses must not come again, as memory of the device's would not

    def event(self) -> Event:
        return Event(self)

    def fail(self, error: BaseException, when: Callable[[str, bool], bool]) -> None:
        self._faults.append((error, when))

    def lose(self) -> None:
        self.is_lost = True

    def check(self) -> None:
        if self.is_lost:
            raise torch.AcceleratorError(LOST)

    def waits_for_device(self) -> None:
        self.check()
        if self.recording is not None:
            self.recording.is_broken = True
            raise torch.AcceleratorError(NOT_PERMITTED)
        assert self.may_wait, "nothing may be waited for here"

    def complete(self, stream: Stream, count: int) -> None:
        done, stream.pending[:count] = stream.pending[:count], [lambda: None] * count
        with torch.inference_mode(), _disable_current_modes():  # no kernels of now
            for each in done:
                each()

    @contextlib.contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextlib.contextmanager
    def without_waiting(self) -> Iterator[None]:
        self.may_wait = False
        try:
            yield
        finally:
            self.may_wait = True

    def empty_cache(self) -> None:
        assert self.recording is None and not self.routed, "captures_underway.empty() INTERNAL ASSERT FAILED"
        self.emptied += 1

    def end_allocate(self, device: int, pool: Any) -> None:
        if pool not in self.routed:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.routed.remove(pool)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func._schema.name, kwargs or {}
        self.check()
        self._fault(name)
        if name in WAITS:
            self.waits_for_device()
        if self.recording is not None and name in FROM_HOST:
            self.recording.is_broken = True
            raise torch.AcceleratorError(NOT_PERMITTED)
        if name == "aten::copy_" and len(args) > 2 and args[2]:
            return self._begin_copy(*args[:2])
        outputs = func(*args, **kwargs)
        if self.recording is not None:
            self.recording.record((func, args, kwargs, outputs))
        self._watch(func, args, kwargs, outputs)
        return outputs

    def _fault(self, name: str) -> None:
        for fault in self._faults:
            if fault[1](name, self.recording is not None):
                self._faults.remove(fault)
                raise fault[0]

    def _begin_copy(self, target: Any, source: Any) -> Any:
        assert self.recording is None, "a copy to the host is no part of a graph"
        now = source.clone()
        target.view(torch.uint8).fill_(POISON)
        self.current.pending.append(lambda: target.copy_(now))
        self._alive += [target, source]
        self._kernel("copy", [source], [target])
        return target

    def _watch(self, func: Any, args: Any, kwargs: Any, outputs: Any) -> None:
        arguments = func._schema.arguments
        given = [*zip(arguments, args, strict=False), *((a, kwargs[a.name]) for a in arguments if a.name in kwargs)]
        written = [t for a, v in given if a.alias_info and a.alias_info.is_write for t in _tensors(v)]
        read = [t for a, v in given if not (a.alias_info and a.alias_info.is_write) for t in _tensors(v)]
        known = {_address(t) for t in [*written, *read]}
        new = [t for t in _tensors(outputs) if _address(t) not in known]
        self._alive += [*read, *written, *new]
        if (written or new) and not func._schema.name.startswith("aten::empty"):  # else it is a view, or only memory
            self._kernel(func._schema.name, read, [*written, *new])

    def _kernel(self, name: str, read: list[Any], written: list[Any]) -> None:
        self.current.kernels += 1
        writes = {_address(t) for t in written}
        reads = {_address(t) for t in read} - writes
        names = {key: [name] for key in reads | writes}
        found = self.races._handle_kernel_launch(self.current.cuda_stream, reads, writes, set(), name, names)
        assert not found, "\n".join(map(str, found))


def _address(tensor: Any) -> int:
    return int(tensor.untyped_storage().data_ptr())


def _tensors(value: Any) -> list[Any]:
    return [leaf for leaf in _pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def install(monkeypatch: Any) -> FakeCuda:
    """In torch.cuda's place until the test ends. Whoever launches does so inside `with` it."""
    cuda = FakeCuda()
    pools = itertools.count(1)
    fakes = {
        "Stream": lambda device=None: Stream(device, cuda),
        "Event": lambda **options: Event(cuda, **options),
        "stream": cuda.on,
        "current_stream": lambda device=None: cuda.current,
        "current_device": lambda: 0,
        "CUDAGraph": lambda: CUDAGraph(cuda),
        "graph_pool_handle": lambda: (0, next(pools)),
        "mem_get_info": lambda device=None: (cuda.free_bytes, 1 << 40),
        "max_memory_allocated": lambda device=None: 1 << 30,
        "empty_cache": cuda.empty_cache,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", cuda.end_allocate, raising=False)
    told = lambda tensor, stream: cuda.told.add((_address(tensor), stream.cuda_stream))  # noqa: E731
    monkeypatch.setattr(torch.Tensor, "record_stream", told)
    return cuda
