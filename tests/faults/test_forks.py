"""A program that forks while its farm is at work: the child, which may outlive it, must keep nothing of the farm."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import farm
from tests.support.harness import ROOT, config, group_members, pictures, wait_for

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
        assert wait_for(lambda: not farms(process.pid), 30)
        assert child in group_members(process.pid)
    finally:
        os.kill(child, signal.SIGUSR1)
    process.communicate(timeout=30)


RUNS = """
values = {"source": sys.argv[1], "model": FAKE, "output": {"dir": sys.argv[2], "exports": []},
          "workers": {"count": 2, "devices": "cpu"}, "commit": {"images": 8}}
class Forks:
    def __init__(self, then): self.then, self.child = then, None
    def __call__(self, batch):
        if self.child is None:
            self.child = forked()
            print(self.child, flush=True)
            self.then()
"""


def run_script(tmp_path, text):
    source = pictures(tmp_path / "source", 30)
    path = tmp_path / "script.py"
    path.write_text(HEAD + RUNS + text)
    return subprocess.Popen(
        [sys.executable, str(path), str(source), str(tmp_path / "run")], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
    )  # fmt: skip


def test_a_second_run_is_not_refused_for_a_child_of_the_first(tmp_path):
    text = """
hooks = Forks(lambda: None)
farm.run(values, hooks=farm.api.Hooks(on_batch=hooks))
print(farm.run(values).skipped, flush=True)
os.kill(hooks.child, signal.SIGKILL)
"""
    out, err = run_script(tmp_path, text).communicate(timeout=60)
    assert out.splitlines()[1:] == ["30"], err


def test_a_run_after_a_killed_one_is_not_refused_for_its_child(tmp_path):
    die = "hooks = Forks(lambda: os.kill(os.getpid(), signal.SIGKILL))"
    process = run_script(tmp_path, f"{die}\nfarm.run(values, hooks=farm.api.Hooks(on_batch=hooks))")
    child = int(process.stdout.readline())
    try:
        process.wait(30)
        model = {"factory": "farm.models.fake:make", "args": {"sleep_ms": 20}}
        assert farm.run({**config(tmp_path / "source", tmp_path / "run"), "model": model}).ok == 30
    finally:
        os.kill(child, signal.SIGKILL)
    process.communicate(timeout=30)


def test_a_child_that_leaves_through_farms_code_ends_nothing(tmp_path):
    """A function of the caller's forks, and its child raises: what is on the way out is the parent's to end."""
    text = """
done = []
def fork_once(batch):
    if not done:
        done.append(1)
        if not os.fork():
            sys.exit(3)
        print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
summary = farm.run(values, hooks=farm.api.Hooks(on_batch=fork_once))
print(summary.ok, summary.restarts)
"""
    out, err = run_script(tmp_path, text).communicate(timeout=60)
    assert out.splitlines() == ["3", "30 0"], err


def test_a_child_has_nothing_open_that_is_farms(tmp_path):
    text = """
def opened():
    for number in os.listdir("/proc/self/fd"):
        try:
            yield os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            pass
def look(batch):
    if not os.fork():
        print([name for name in opened() if name.startswith("socket") or "eventpoll" in name or ".lock" in name])
        os._exit(sys.stdout.flush() or 0)
    os.wait()
farm.run(values, hooks=farm.api.Hooks(on_batch=look))
"""
    out, err = run_script(tmp_path, text).communicate(timeout=60)
    assert set(out.splitlines()) == {"[]"}, err


def test_threads_that_end_are_noticed_while_a_fork_lives(tmp_path):
    text = """
values["workers"] = {"count": 2, "kind": "thread", "devices": "cpu"}
hooks = Forks(lambda: None)
print(farm.run(values, hooks=farm.api.Hooks(on_batch=hooks)).ok, flush=True)
os.kill(hooks.child, signal.SIGKILL)
"""
    process = run_script(tmp_path, text)
    out, err = process.communicate(timeout=25)
    assert out.splitlines()[1:] == ["30"], err


OWN = """
import multiprocessing, threading
from multiprocessing import spawn
from farm.supervisor import launcher
prepare, before = spawn.get_preparation_data, dict(os.environ)
def own():
    with farm.Farm(model=FAKE, workers=1) as second:
        unchanged = spawn.get_preparation_data is prepare and dict(os.environ) == before
        print(second.submit("b.jpg").result().status, unchanged, flush=True)
def fork_and_end():
    child = os.fork()
    if not child:
        own()
        sys.exit(0)  # through all that Python does at an end
    return child
def is_importing():
    module = sys.modules.get("pandas")
    return module is not None and getattr(module.__spec__, "_initializing", False)
def fork_when(condition):
    while not condition():
        pass
    return fork_and_end()
"""


def own_farm(tmp_path, text):
    process = script(tmp_path, OWN + text)
    try:
        return process.communicate(timeout=40)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_a_forked_child_makes_a_farm_of_its_own(tmp_path):
    """Whatever its parent's is doing: importing, starting a process, or nothing any more."""
    text = """
with farm.Farm(model=FAKE, workers=1) as first:
    answer = first.submit("a.jpg")
    children = [fork_when(launcher._starting.locked), fork_when(is_importing)]
    print(answer.result().status, flush=True)
children.append(fork_and_end())
print(*[os.waitpid(child, 0)[1] for child in children])
"""
    out, err = own_farm(tmp_path, text)
    assert sorted(out.splitlines()) == ["0 0 0", "ok", *["ok True"] * 3], err
    assert err == ""


def test_a_child_of_multiprocessing_makes_a_farm_of_its_own(tmp_path):
    text = """
if __name__ == "__main__":
    with farm.Farm(model=FAKE, workers=1) as first:
        first.submit("a.jpg").result()
        child = multiprocessing.get_context("fork").Process(target=own)
        child.start()
        child.join()
        print(child.exitcode, first.submit("c.jpg").result().status)
"""
    out, err = own_farm(tmp_path, text)
    assert out.splitlines() == ["ok True", "0 ok"], err


def test_what_a_start_changes_for_a_moment_is_changed_back_in_a_fork_of_another_thread(tmp_path):
    """The program's chmod, the flush of its streams, and where it stands."""
    (tmp_path / "gone").mkdir()
    text = f"""
import multiprocessing.util as util
from farm.storage.scratch import own_sockets
from farm.machine.standard_streams import forgiven
from farm.machine.working_directory import in_existing_directory
chmod, flush = os.chmod, util._flush_std_streams
os.chdir({str(tmp_path / "gone")!r})
os.rmdir(os.getcwd())
def child():
    number = os.fork()
    if not number:
        try:
            where = os.getcwd()
        except FileNotFoundError:
            where = "gone"
        print(os.chmod is chmod, util._flush_std_streams is flush, where, flush=True)
        os._exit(0)
    os.waitpid(number, 0)
with own_sockets(), forgiven(), in_existing_directory():
    thread = threading.Thread(target=child)
    thread.start()
    thread.join()
print(os.chmod is chmod, util._flush_std_streams is flush)
"""
    out, err = own_farm(tmp_path, text)
    assert out.splitlines() == ["True True gone", "True True"], err
