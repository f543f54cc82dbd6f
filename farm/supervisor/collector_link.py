"""The link to the collector: starts it, tells it things, hears it, and notices its silence and its death.

    owns      the collector's process, or thread, and what is known of commits
    receives  CollectorReady, CollectorFailed, Committed    from the collector, and acts on them
              Published, Committed, Drained                 from the collector, and passes them on
    sends     AddWorker, RemoveWorker, Describe, Flush      to the collector, and what others have it told

A collector that died has a successor when the supervisor has put in order what was lost: see `on_death`.
"""

from __future__ import annotations

import functools
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from farm.collector.spec import CollectorSpec
from farm.core.deadlines import START_TIMEOUT_S, BeatAge
from farm.errors import CollectorError, OutputError
from farm.ipc.channel import Reader
from farm.ipc.messages import AddWorker, CollectorFailed, CollectorReady, Committed, Describe, Flush, RemoveWorker
from farm.machine import interrupts
from farm.storage import folders
from farm.storage.parts import part_number
from farm.supervisor.child_process import ChildProcess
from farm.supervisor.collector_process import CollectorProcess
from farm.supervisor.description import Description
from farm.supervisor.run_context import RunContext
from farm.supervisor.thread_children import RoleThread

# Short item timeouts do not count here: on a busy machine even a collector that beats may be silent for seconds, and
# its death costs all workers a new start
COLLECTOR_SILENCE_S = 10.0


class CollectorLink:
    """One collector at a time. It may be told things from its start on: they wait in its channel until it is ready."""

    def __init__(
        self,
        context: RunContext,
        description: Description,
        on_message: Callable[[Any], None],
        on_death: Callable[[str], None],
    ) -> None:
        """`on_message`: hears what is not the link's own. `on_death`: what ended a collector, in words."""
        self._context = context
        self._description = description
        self._on_message = on_message
        self._on_death = on_death
        self._collector: CollectorProcess | None = None
        self._beat_age = BeatAge()
        self._parts: set[str] = set()
        self._flushed = False
        self._trouble = ""  # what the last collector failed of, until another commits
        self._last_commit_s = 0.0
        self._stage_s: defaultdict[str, float] = defaultdict(float)

    # What there is

    @property
    def is_up(self) -> bool:
        """Whether a collector was started that has not died."""
        return self._collector is not None

    @property
    def has_parts(self) -> bool:
        """Whether there is any part, of this session or an earlier one."""
        return bool(self._parts)

    @property
    def last_commit_s(self) -> float:
        """When it committed last; 0 where it never did."""
        return self._last_commit_s

    @property
    def stage_s(self) -> Mapping[str, float]:
        """Seconds that its commits took."""
        return self._stage_s

    def processes(self) -> dict[str, ChildProcess | RoleThread]:
        return {"collector": self._collector.process} if self._collector else {}

    def find_parts(self) -> None:
        """Note which parts there are. Before the first start."""
        self._parts = {part.name for part in self._context.store.parts()}

    def new_keys(self) -> set[bytes]:
        """Keys in parts that nobody has told of: a dead collector has committed them and could not say so."""
        keys = self._context.store.history.keys_since(self._parts)
        self.find_parts()
        return keys

    # Start and stop

    def start(self) -> None:
        spec = self._spec()
        self._flushed = False
        self._context.memory.heartbeats.reset(spec.row)
        with interrupts.held():  # a process that was started is one that is known
            collector = self._collector = self._context.launcher.start_collector(spec)
        if self._description.task is not None:
            self.describe()
        self._context.loop.add(collector.control, functools.partial(self._on_control, collector))
        self._context.loop.add(collector.process.sentinel, functools.partial(self._on_end, collector))

    def stop(self, patience_s: float, hurry: Callable[[], bool]) -> None:
        """Let it commit what it has, hear it meanwhile, and end it. `hurry`: whether to wait no longer."""
        if self._collector is not None:
            self._collector.stop(self._hear, patience_s, hurry)

    def _spec(self) -> CollectorSpec:
        job, store, memory = self._context.job, self._context.store, self._context.memory
        numbers = [part_number(name, store.session) for name in self._parts]
        return CollectorSpec(
            parts_dir=str(store.parts_dir) if job.keep else None,
            session=store.session,
            number=1 + max(numbers, default=0),
            ring=memory.ring.name,
            slots=memory.ring.slots,
            slot_bytes=memory.ring.slot_bytes,
            commit_images=job.config.commit.images,
            commit_seconds=job.config.commit.seconds,
            weights_digest=job.weights_digest,
            heartbeats=memory.heartbeats.name,
            row=self._context.collector_row,
            environment=dict(os.environ) if folders.is_remote(store.path) else {},
        )

    # Tell

    def tell(self, message: Any, end: Reader | None = None) -> None:
        """Send a message, and after it a reading end, which is closed here then."""
        assert self._collector is not None
        self._collector.tell(message, end)

    def add_worker(self, uid: int, results: Reader) -> None:
        """A worker was started: these are its results."""
        self.tell(AddWorker(uid), results)

    def remove_worker(self, uid: int) -> None:
        """A worker is dead. When its results are read to their end, the collector says so (Drained)."""
        self.tell(RemoveWorker(uid))

    def describe(self) -> None:
        """What its parts are about, which has just become known."""
        assert self._description.task is not None
        self.tell(Describe(self._description.task, self._description.names))

    def flush(self) -> None:
        """Have it commit what it has, unless that was asked for and it has committed nothing since."""
        if not self._flushed:
            self.tell(Flush())
            self._flushed = True

    # Hear

    def _on_control(self, collector: CollectorProcess) -> None:
        try:
            message = collector.control.recv()
        except (EOFError, OSError):
            self._context.loop.drop(collector.control)
            return
        self._hear(message)

    def _hear(self, message: Any) -> None:
        match message:
            case CollectorReady():
                if self._collector is not None:
                    self._collector.ready = True
            case CollectorFailed(_, text, output):
                if output:
                    raise OutputError(f"{text}; make room or mend it, then run the same command to continue")
                self._failed(text)
            case Committed(_, part, write_s):
                if part:
                    self._parts.add(part)
                self._last_commit_s = time.monotonic()
                self._trouble = ""
                self._stage_s["commit"] += write_s
                self._flushed = False
                self._on_message(message)
            case _:
                self._on_message(message)

    def _failed(self, trouble: str) -> None:
        """An error in its own code. Another one starts anew, unless the last has failed before it could commit."""
        if self._trouble:
            raise CollectorError(
                f"the collector failed twice without a commit between: {trouble}. What is committed is kept; "
                f"mend the cause, then run the same command to continue"
            )
        self._trouble = trouble

    # Silence and death

    def check(self, awake_s: float) -> None:
        """Kill one that is stopped, not slow: it beats while it writes. Until it is ready it may be loading."""
        job = self._context.job
        if self._collector is None or job.config.workers.kind != "process":
            return  # a thread is not stopped alone
        beat_s = float(self._context.memory.heartbeats.row(self._context.collector_row)["beat_s"])
        silence_s = max(job.config.limits.item_timeout_s, COLLECTOR_SILENCE_S)
        limit_s = silence_s if self._collector.ready else START_TIMEOUT_S
        if self._beat_age.seconds(beat_s, awake_s) > limit_s:
            self._collector.kill()

    def _on_end(self, collector: CollectorProcess) -> None:
        """It is dead: hear what it said last."""
        self._context.loop.drop(collector.process.sentinel)
        self._context.loop.drop(collector.control)
        try:
            cause = collector.reap(self._hear)
        finally:
            self._collector = None
        self._on_death(self._trouble or cause)
