"""The pipeline: what has blocks labelled, as the driver sees it, and the thread in which it runs.

driver's thread      PipelineThread.start, news, abandon
pipeline's thread    Pipeline.results, whose BlockResults become news; PipelineEnded is the last
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from farm.cluster.block_result import BlockResult
from farm.cluster.blocks import Blocks, OpenBlocks


class Pipeline(Protocol):
    """What labels blocks; `results` runs in a thread of its own."""

    def results(self, blocks: Blocks, open_blocks: OpenBlocks) -> Iterator[BlockResult]:
        """A result for every block to do, in any order, until the last. Called again where it raised."""
        ...

    def abandon(self) -> None:
        """Stop now, from another thread."""
        ...


@dataclass(frozen=True, slots=True)
class PipelineEnded:
    """The pipeline came to its end, or to an error."""

    error: BaseException | None


class PipelineThread:
    """Runs the pipeline once at a time, and again when it is started again."""

    def __init__(self, pipeline: Pipeline, blocks: Blocks) -> None:
        self._pipeline = pipeline
        self._blocks = blocks
        self._news: queue.SimpleQueue[BlockResult | PipelineEnded] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        """Whether it was started, and its end was not heard yet."""
        return self._thread is not None

    def start(self, open_blocks: OpenBlocks) -> None:
        self._thread = threading.Thread(target=self._run, args=(open_blocks,), name="farm-pipeline", daemon=True)
        self._thread.start()

    def news(self, timeout_s: float) -> Iterator[BlockResult | PipelineEnded]:
        """All that has come; waits for the first so long."""
        try:
            yield self._heard(self._news.get(timeout=timeout_s))
            while not self._news.empty():
                yield self._heard(self._news.get())
        except queue.Empty:
            pass

    def abandon(self, patience_s: float) -> None:
        """Stop it now, and wait for its end."""
        if self._thread is not None:
            self._pipeline.abandon()
            self._thread.join(patience_s)

    def _heard(self, news: BlockResult | PipelineEnded) -> BlockResult | PipelineEnded:
        if isinstance(news, PipelineEnded):
            self._thread = None
        return news

    def _run(self, open_blocks: OpenBlocks) -> None:
        try:
            for result in self._pipeline.results(self._blocks, open_blocks):
                self._news.put(result)
        except BaseException as error:
            self._news.put(PipelineEnded(error))
        else:
            self._news.put(PipelineEnded(None))
