"""The awaited stream of results, `amap`. Runs in the caller's event loop; results come from another thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from concurrent.futures import Future
from typing import Any

from farm.library.results import ImageResult
from farm.library.streams import HasRoom, OnError, Order, let_through


async def results(
    submit: Callable[[Any], Future[ImageResult]],
    has_room: HasRoom,
    items: Iterable[Any] | AsyncIterable[Any],
    order: Order,
    on_error: OnError,
) -> AsyncIterator[ImageResult]:
    """Results of the items in that order. Cancels what is on its way when it is left early."""
    waiting = _Waiting(order)
    try:
        async for item in _asynchronous(items):
            waiting.add(submit(item))
            while waiting and not has_room(len(waiting)):
                yield let_through(await waiting.next(), on_error)
        while waiting:
            yield let_through(await waiting.next(), on_error)
    finally:
        waiting.cancel()


async def _asynchronous(items: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


class _Waiting:
    """Futures of the farm, awaited one after the other in one of the orders."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._futures: dict[Future[ImageResult], None] = {}
        self._done: asyncio.Queue[Future[ImageResult]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self._futures)

    def add(self, future: Future[ImageResult]) -> None:
        self._futures[future] = None
        if self._order == "completed":
            future.add_done_callback(self._tell)

    async def next(self) -> ImageResult:
        if self._order == "completed":
            future = await self._done.get()
        else:
            future = next(iter(self._futures))
            await asyncio.wait([asyncio.wrap_future(future)])
        del self._futures[future]
        return future.result()

    def cancel(self) -> None:
        for future in self._futures:
            future.cancel()

    def _tell(self, future: Future[ImageResult]) -> None:
        """Pass a future on to the loop. Called in the thread that gave the future its result."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            self._loop.call_soon_threadsafe(self._done.put_nowait, future)
