"""A program that forks while its farm is at work: the child, which may outlive it, must keep nothing of the farm."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.harness import ROOT, group_members, wait_for

pytestmark = pytest.mark.timeout(120)

HEAD = """
import os, signal, sys, time
import farm
FAKE = {"factory": "farm.models.fake:make", "args": {"sleep_ms": 20}}
def forked():
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGUSR1, lambda *_: os._exit(0))
        time.sleep(60)
        os._exit(0)
    return pid
"""


def script(tmp_path, text, **environ):
    path = tmp_path / "script.py"
    path.write_text(HEAD + text)
    return subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ}, start_new_session=True,
    )  # fmt: skip


def farms(group):
    """Processes of a group that are farm's: all but a child that was forked, and the resource tracker it keeps alive."""
    names = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in group_members(group)}
    return [pid for pid, name in names.items() if b"script.py" not in name and b"resource_tracker" not in name]


@pytest.mark.parametrize("start", ["forkserver", "spawn"])
def test_nobody_outlives_a_killed_program_whose_fork_lives(tmp_path, start):
    text = f"""
if __name__ == "__main__":
    farm_ = farm.Farm(model=FAKE, workers={{"count": 2, "start": "{start}", "devices": "cpu"}})
    for n, _ in enumerate(farm_.map(f"{{n}}.jpg" for n in range(10**9))):
        if n == 5:
            print(forked(), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
"""
    process = script(tmp_path, text)
    child = int(process.stdout.readline())
    try:
        process.wait(30)
        assert wait_for(lambda: not farms(process.pid), 5)
        assert child in group_members(process.pid)
    finally:
        os.kill(child, signal.SIGUSR1)
    process.communicate(timeout=30)
