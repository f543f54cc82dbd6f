"""The converter (converter.py) as whoever waits for it sees it: a task goes in, an answer comes out.

Runs in the process that starts a run. The converter ends with the call, whatever ends that, and with this process,
which it watches by itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from farm.errors import ModelError
from farm.machine.child import STOP_SIGNALS
from farm.machine.processes import myself
from farm.machine.working_directory import in_existing_directory

WHY_CHARS = 400  # of a converter's last words


def ask_converter(task: Mapping[str, Any], deadline_s: float) -> dict[str, Any]:
    """The answer to a task; both are as converter.py has them. `deadline_s`: by time.monotonic.

    Raises TimeoutError, and ModelError with the converter's last words.
    """
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # none strikes between its start and the `try`
    try:
        with in_existing_directory():
            converter = subprocess.Popen(
                [sys.executable, "-m", "farm.models.conversion.converter"], text=True, env=environ, process_group=0,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
        return _answer(converter, task, deadline_s, before)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _answer(
    converter: subprocess.Popen[str], task: Mapping[str, Any], deadline_s: float, mask: set[signal.Signals | int]
) -> dict[str, Any]:
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        told = json.dumps({**task, "parent": asdict(myself())})
        output, errors = converter.communicate(told, max(0.0, deadline_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    finally:
        _end(converter)
    lines = output.strip().splitlines()
    if converter.returncode or not lines:
        last = (errors.strip().splitlines() or [f"exit code {converter.returncode}"])[-1]
        raise ModelError(last[:WHY_CHARS])
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def _end(converter: subprocess.Popen[str]) -> None:
    """Kill it, and what it has started."""
    if converter.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(converter.pid, signal.SIGKILL)
        converter.wait()
    for pipe in (converter.stdin, converter.stdout, converter.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
