"""The collector and the supervisor killed, the whole group killed, segments and processes left by nobody."""

import multiprocessing
import os
import random
import signal
import time

import pytest

import farm
from farm.errors import CollectorError
from farm.machine.exit_reasons import OomKills
from farm.supervisor.child_process import ChildProcess
from farm.supervisor.collector_process import CollectorProcess
from tests.support.harness import Saboteur, config, group_members, pictures, rows, segments, start, wait_for

IMAGES = 250


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("source"), IMAGES)


def test_the_collector_killed_again_and_again(source, undisturbed, tmp_path):
    def strike(saboteur, snapshot):
        if snapshot.done and saboteur.kills < 12 and saboteur.random.random() < 0.3:
            saboteur.strike("collector")

    seen, counts = [], []

    def look(batch):
        seen.extend(batch["path"].to_pylist())
        counts.append(saboteur.supervisor.snapshot(0.0).ok)

    saboteur = Saboteur(strike)
    summary = saboteur.run(config(source, tmp_path / "run", {"sleep_ms": 8}), on_batch=look)
    assert saboteur.kills >= 3
    assert rows(tmp_path / "run") == undisturbed
    assert (summary.ok, summary.failed) == (IMAGES, 0)
    assert sorted(seen) == [path for path, _, _ in undisturbed], "what is labelled again is handed on once"
    assert max(counts) < IMAGES


CRASHING = """
import os, signal, sys
import farm.storage.part_writer, farm.collector.collector
point, countdown = {point!r}, [2]
def strike(name, original):
    def wrapper(*args, **kwargs):
        mine = sys._getframe(1).f_globals.get("__name__") in ("farm.storage.part_writer", "farm.storage.filesystem")
        if name == point and mine:
            countdown[0] -= 1
            if countdown[0] == 0 and not os.path.exists({mark!r}):
                open({mark!r}, "w").close()
                if {after!r}:
                    original(*args, **kwargs)
                os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)
    return wrapper
for module, name in ((os, "fsync"), (os, "replace"), (farm.storage.part_writer.pq, "write_table")):
    setattr(module, name, strike(name, getattr(module, name)))
from farm.models.fake import make
"""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("point", ["write_table", "fsync", "replace"])
def test_the_collector_killed_at_every_point_of_a_commit(source, undisturbed, tmp_path, monkeypatch, point, after):
    """A module that children import replaces the call by one that kills the process, once, at the second commit."""
    mark = str(tmp_path / "struck")
    (tmp_path / "crashing.py").write_text(CRASHING.format(point=point, mark=mark, after=after))
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif any('multiprocessing' in word for word in sys.orig_argv):\n    import crashing\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.getcwd()}")
    values = config(source, tmp_path / "run", {"sleep_ms": 1}, workers={"start": "spawn"})
    summary = farm.run(values)
    assert os.path.exists(mark), "the collector was never struck"
    assert summary.restarts >= 1
    assert rows(tmp_path / "run") == undisturbed


def killed_supervisor(source, tmp_path, delay_s):
    process = start(config(source, tmp_path / "run", {"sleep_ms": 10}), tmp_path)
    time.sleep(delay_s)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    return process


def test_the_supervisor_killed_at_random_instants(source, undisturbed, tmp_path):
    """No orphan after two seconds, no segment left, and reruns end with the exact rows."""
    chance = random.Random(3)
    for _ in range(6):
        process = killed_supervisor(source, tmp_path, chance.uniform(0.2, 2.0))
        assert wait_for(lambda p=process: not group_members(p.pid), 4.0), "orphans"
    farm.run(config(source, tmp_path / "run", {"sleep_ms": 10}))
    assert rows(tmp_path / "run") == undisturbed
    assert not segments(tmp_path / "run")


def test_the_whole_group_killed(source, undisturbed, tmp_path):
    chance = random.Random(5)
    for _ in range(4):
        process = start(config(source, tmp_path / "run", {"sleep_ms": 10}), tmp_path)
        time.sleep(chance.uniform(0.5, 2.0))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
    farm.run(config(source, tmp_path / "run", {"sleep_ms": 10}))
    assert rows(tmp_path / "run") == undisturbed
    assert not segments(tmp_path / "run")


def test_chaos_over_all_roles(source, undisturbed, tmp_path):
    """Workers, collector and supervisor killed at random until the work is done."""
    chance = random.Random(11)
    deadline = time.monotonic() + 25
    while time.monotonic() < deadline:
        process = start(config(source, tmp_path / "run", {"sleep_ms": 8}), tmp_path)
        while process.poll() is None and chance.random() > 0.03:
            time.sleep(0.1)
            victims = [pid for pid in group_members(process.pid) if pid != process.pid]
            if victims and chance.random() < 0.4:
                os.kill(chance.choice(victims), signal.SIGKILL)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    farm.run(config(source, tmp_path / "run", {"sleep_ms": 8}))
    assert rows(tmp_path / "run") == undisturbed


RAISING = """
import farm.collector.collector, os
def commit(self, original=farm.collector.collector.Collector.commit):
    if self._rows and ({always!r} or not os.path.exists({mark!r})):
        open({mark!r}, "w").close()
        raise ValueError("odd")
    original(self)
farm.collector.collector.Collector.commit = commit
"""


@pytest.mark.parametrize("always", [False, True])
def test_an_error_in_the_collectors_own_code(source, undisturbed, tmp_path, monkeypatch, always):
    """Once it costs time. Again and again, with images labelled between, it ends the run, and says what it was."""
    mark = str(tmp_path / "raised")
    (tmp_path / "raising.py").write_text(RAISING.format(mark=mark, always=always))
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif any('multiprocessing' in word for word in sys.orig_argv):\n    import raising\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.getcwd()}")
    values = config(source, tmp_path / "run", {"sleep_ms": 1}, workers={"start": "spawn"})
    if always:
        with pytest.raises(CollectorError, match=r"twice without a commit between: ValueError: odd \(raising.py:6\)"):
            farm.run(values)
        return
    assert farm.run(values).restarts >= 1
    assert rows(tmp_path / "run") == undisturbed


def test_a_run_whose_numbers_are_as_large_as_can_be(source, undisturbed, tmp_path):
    huge = {"limits": {"item_timeout_s": 1e9}, "commit": {"seconds": 1e9}}
    farm.run(config(source, tmp_path / "run", **huge))
    assert rows(tmp_path / "run") == undisturbed


@pytest.mark.parametrize("ending", ["stop", "reap"])
def test_a_collector_is_reaped_whatever_it_says_last(ending):
    """An embedding program would keep its thread, its descriptors and the process otherwise."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=time.sleep, args=(60,))
    process.start()
    collector, pid = CollectorProcess(ChildProcess(process, OomKills()), ours), process.pid
    theirs.send("unheard of")

    def hear(message):
        raise CollectorError(message)

    arguments = (hear, 10.0, lambda: False) if ending == "stop" else (hear,)
    with pytest.raises(CollectorError, match="unheard of"):
        getattr(collector, ending)(*arguments)
    assert ours.closed and not collector._sender.is_alive()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
