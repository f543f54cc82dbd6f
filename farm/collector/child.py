"""The collector as a process: its entry point; and what it does from its start to its end, as in a thread."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from farm.collector.collector import Collector
from farm.collector.spec import CollectorSpec
from farm.ipc.heartbeat import Heartbeats
from farm.ipc.messages import CollectorFailed, CollectorReady
from farm.ipc.ring import Ring
from farm.machine import child, shortage, standard_streams
from farm.machine.tracebacks import where
from farm.storage.filesystem import in_words

MESSAGE_CHARS = 300  # of an error in its own code


def main(spec: CollectorSpec, control: Connection) -> None:
    """Entry point of the process."""
    child.ignore_signals()
    standard_streams.make_unfailing()
    child.name_process("farm-collector")
    os.environ.update(spec.environment)
    try:
        heartbeats = Heartbeats.attach(spec.heartbeats, spec.row + 1)
        child.watch_parent(lambda: _beat(heartbeats, spec.row))
    except (OSError, RuntimeError, MemoryError) as error:
        raise _failed(control, error) from None
    serve(spec, control)


def serve(spec: CollectorSpec, control: Connection, is_abandoned: Callable[[], bool] = lambda: False) -> None:
    """What the collector does from its start to its end, in a process or a thread. Raises SystemExit where it cannot.

    `is_abandoned`: a thread cannot be killed; once it is given up, no part of it appears any more.
    """
    try:
        collector = Collector(spec, control, Ring.attach(spec.ring, spec.slots, spec.slot_bytes), is_abandoned)
    except (OSError, MemoryError) as error:
        raise _failed(control, error) from None
    control.send(CollectorReady())
    try:
        collector.run()
    except (EOFError, ConnectionError):  # the supervisor is gone
        raise SystemExit(child.EXIT_ORPHANED) from None
    except OSError as error:
        message = f"results cannot be written to {spec.parts_dir}: {in_words(error, Path(str(spec.parts_dir)))}"
        control.send(CollectorFailed(type(error).__name__, message))
        raise SystemExit(1) from None
    except Exception as error:
        raise _failed(control, error) from None
    finally:
        collector.close()


def _beat(heartbeats: Heartbeats, row: int) -> None:
    heartbeats.row(row)["beat_s"] = time.monotonic()


def _failed(control: Connection, error: Exception) -> SystemExit:
    """Say why this collector cannot go on. Returns what it then leaves with."""
    with contextlib.suppress(OSError):  # the supervisor is gone
        control.send(CollectorFailed(type(error).__name__, _reason(error), output=False))
    return SystemExit(1)


def _reason(error: Exception) -> str:
    """What was short; or what happened, and where in which file."""
    if (short := shortage.in_words(error)) is not None:
        return short
    text = " ".join(str(error).split())[:MESSAGE_CHARS]
    return f"{type(error).__name__}: {text} ({where(error)})"
