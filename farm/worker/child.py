"""The worker as a process: its entry point. What it does there before it labels, and where a thread has no need of it.

It ignores signals, names itself, leaves when its parent does, and shows signs of life from its first moment. What it
does then is `loop.serve`, as in a thread.
"""

from __future__ import annotations

import gc
import os
import socket
from typing import Any

from farm.ipc.channel import Writer
from farm.ipc.heartbeat import Heartbeats
from farm.machine import allocator, child, standard_streams
from farm.models import load_model
from farm.worker.heartbeat_writer import HeartbeatWriter
from farm.worker.initializer import init_failed
from farm.worker.loop import serve
from farm.worker.spec import WorkerSpec


def main(spec: WorkerSpec, leases: Any, control: socket.socket, results: socket.socket) -> None:
    """Entry point of the process."""
    gc.freeze()  # a collection would write to every object of the fork server's, and end the sharing of its pages
    child.ignore_signals()
    standard_streams.make_unfailing()
    child.offer_to_oom_killer()
    child.name_process(f"farm-worker-{spec.index}")
    os.environ.update(spec.environment)
    allocator.keep_freed_memory()
    try:
        heartbeat = _begin(spec)
    except (OSError, RuntimeError, MemoryError) as error:
        raise init_failed(spec, Writer(control), error) from None
    serve(spec, heartbeat, leases, control, results, load_model)


def _begin(spec: WorkerSpec) -> HeartbeatWriter:
    """Show signs of life, and look for those of the parent."""
    beats = Heartbeats.attach(spec.heartbeats, spec.rows)
    heartbeat = HeartbeatWriter(beats, spec.index)
    child.watch_parent(heartbeat.beat)
    if spec.host_silence_s is not None:
        host = beats.row(spec.rows - 1)
        child.watch_parent(child.kill_frozen_parent(lambda: float(host["beat_s"]), spec.host_silence_s))
    return heartbeat
