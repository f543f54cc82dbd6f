"""A worker killed in the middle, the run stopped by Ctrl-C, and continued: through the command, as people use it."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from benchmarks.gpu.farm_run import config_of
from benchmarks.gpu.inputs import Inputs
from benchmarks.gpu.settings import Setting

LOOK_S = 0.1
AFTER_KILL_S = 1.0  # until the run is stopped: the worker is being replaced
LAST_CHARACTERS = 400


def kill(inputs: Inputs, setting: Setting, limit_s: float) -> Iterator[dict[str, Any]]:
    """One line: exit codes, whether a worker was killed before the end, and what `farm verify` says."""
    with tempfile.TemporaryDirectory(dir=inputs.folder) as folder:
        config = config_of(inputs, setting, inputs.some(inputs.sizes.kill), folder)
        Path(f"{folder}/farm.yaml").write_text(json.dumps(config))  # JSON is YAML
        command = [sys.executable, "-m", "farm"]
        run = [*command, "run", f"{folder}/farm.yaml"]
        over_s = time.monotonic() + limit_s
        killed, first = _disturbed(run, Path(folder), over_s)
        second = subprocess.run(run, capture_output=True, text=True, timeout=max(1.0, over_s - time.monotonic()))
        verified = subprocess.run([*command, "verify", f"{folder}/run"], capture_output=True, text=True)
    yield {
        "images": inputs.sizes.kill,
        "killed": killed,
        "stopped_with": first,
        "continued_with": second.returncode,
        "whole": verified.returncode == 0 and verified.stdout.startswith("whole"),
        "verify": (verified.stdout + verified.stderr)[-LAST_CHARACTERS:].strip(),
        "said": "" if second.returncode == 0 else (second.stdout + second.stderr)[-LAST_CHARACTERS:],
    }


def _disturbed(run: list[str], folder: Path, over_s: float) -> tuple[bool, int]:
    """Whether a worker was killed, and the exit code of the run, which was stopped a little later."""
    with (folder / "said.txt").open("w") as said:
        process = subprocess.Popen(run, stdout=said, stderr=subprocess.STDOUT)
        killed = False
        while process.poll() is None and time.monotonic() < over_s and not killed:
            if any((folder / "run" / "parts").glob("*.parquet")):
                killed = _kill_worker(process.pid)
            time.sleep(LOOK_S)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(AFTER_KILL_S)
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            return killed, process.wait(max(1.0, over_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def _kill_worker(pid: int) -> bool:
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if child.name().startswith("farm-worker"):
                child.kill()
                return True
    return False
