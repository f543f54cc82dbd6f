"""Ctrl-C in a program that uses farm: at the worst moments, and twice."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from farm.machine import interrupts
from tests.support.harness import ROOT, pictures

pytestmark = pytest.mark.timeout(120)


def press():
    """A Ctrl-C; Python handles it before this returns."""
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)


@pytest.fixture(autouse=True)
def as_before():
    before = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) is before


def test_what_is_held_is_done_wholly_and_interrupted_then():
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts.held() as came:
        assert not came()
        press()
        done.append(came())
        with pytest.raises(KeyboardInterrupt), interrupts.held():
            press()
    assert done == [True], "and what is within it has its own end"
    with interrupts.held() as came:
        pass
    assert not came()


def test_keyboard_interrupt_comes_once(monkeypatch):
    ended = []
    with pytest.raises(KeyboardInterrupt), interrupts.raised_once():
        try:
            press()
        finally:
            press()
            with interrupts.held() as came:
                press()
                ended.append(came())
    assert ended == [True]
    monkeypatch.setattr(interrupts, "ENDING_S", 0.0)
    with interrupts.raised_once():
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                press()


def test_handlers_of_the_program_stay_its_own():
    heard = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with interrupts.raised_once():
            press()
            assert heard == [signal.SIGINT]
            with interrupts.held():
                press()
                assert len(heard) == 1
            assert len(heard) == 2
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with interrupts.raised_once(), interrupts.held() as came:
            press()
        assert not came()
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_have_no_ctrl_c():
    found = []

    def work():
        with interrupts.raised_once(), interrupts.held() as came:
            found.append((came(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(False, signal.getsignal(signal.SIGINT))]


SCRIPT = """
import os, signal, sys, threading, time
from pathlib import Path
import numpy as np
import psutil
import farm
from farm.ipc import ring, shared_memory
from farm.ipc.shared_memory import leftovers
from farm.library import spool
from farm.storage.run_names import prefix_of
from farm.supervisor import launcher, supervisor, worker_process
from tests.machine.test_interrupts import press

FAKE = {"factory": "farm.models.fake:make", "args": {"pixels": True, "sleep_ms": 5}}
names = []

def pressing(owner, name, presses):
    '''Ctrl-C at the end of a call of this function.'''
    real = getattr(owner, name)
    def call(*args, **options):
        made = real(*args, **options)
        if presses and presses[0](made):
            presses.pop()
            press()
        return made
    setattr(owner, name, call)
    return lambda: setattr(owner, name, real)

def left():
    shared = [name for prefix in names for name in leftovers(prefix)]
    servers = psutil.Process().children()
    return shared + [worker.pid for server in servers for worker in server.children()]

def run(first):
    folder = f"{sys.argv[2]}/{len(names)}"
    os.makedirs(folder, exist_ok=True)
    names.append(prefix_of(Path(folder)))
    values = {"source": sys.argv[1], "model": FAKE, "output": {"dir": folder, "exports": []},
              "workers": {"count": 2, "devices": "cpu"}}
    farm.run(values, hooks=farm.api.Hooks(on_batch=lambda batch: first()))

def program(first):
    with farm.Farm(model=FAKE, workers=2) as labelling:
        names.extend([labelling.name, f"spool-{labelling.name}"])
        for _ in labelling.map([np.zeros((9, 9, 3), np.uint8)] * 500):
            first()

def nothing():
    pass

def always(made):
    return True

for work, owner, name, first, when in [
    # the first where a loop is, the second while what was made is put away
    (run, worker_process.WorkerProcess, "kill", press, always),
    (run, worker_process.WorkerProcess, "reap", press, always),
    (run, ring.Ring, "close", press, always),
    (program, spool.Spool, "close", press, always), (program, supervisor.Supervisor, "interrupt", press, always),
    # the only one, between what was made and the name it gets
    (run, shared_memory, "create", nothing, always), (run, launcher.Launcher, "start_worker", nothing, always),
    (program, spool.tempfile, "mkdtemp", nothing, lambda made: "spool-" in made),
    (program, threading.Thread, "start", nothing, always),
]:
    presses = [when]
    undo = pressing(owner, name, presses)
    try:
        work(first)
        ended = "not interrupted"
    except KeyboardInterrupt:
        ended = "interrupted"
    finally:
        undo()
    deadline = time.monotonic() + 3
    while left() and time.monotonic() < deadline:
        time.sleep(0.02)
    print(work.__name__, name, ended, len(presses), left(), flush=True)
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


def test_no_ctrl_c_leaves_anything_behind(tmp_path):
    """In a program that goes on, as a notebook does: nothing in shared memory, no child, at whatever moment."""
    source = pictures(tmp_path / "source", 200)
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), str(source), str(tmp_path)], capture_output=True, text=True,
        timeout=100, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.endswith(" interrupted 0 []")] == ["True"], done.stderr
    assert len(lines) == 10
