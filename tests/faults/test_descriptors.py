"""What a farm had open is closed when it ends, at once and not when Python collects it: a program may make thousands."""

import contextlib
import gc
import os
import threading

import pytest

import farm
from farm import Farm
from tests.support.harness import config, pictures, wait_for

pytestmark = pytest.mark.timeout(120)

FAKE = {"factory": "farm.models.fake:make", "args": {}}
TURNS = 10


@pytest.fixture
def uncollected():
    """No garbage is collected meanwhile, as in a program whose allocations are few and large."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def names():
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found.append(os.readlink(f"/proc/self/fd/{number}").split(":")[0])
    return sorted(found)


def turns(work):
    """Descriptors after the first turn, when what belongs to the process as a whole is there, and after all."""
    others = threads()  # that hang for ever, in another test's model
    work(0)
    assert wait_for(lambda: threads() <= others, 30)
    before = names()
    for turn in range(1, TURNS):
        work(turn)
    assert wait_for(lambda: threads() <= others, 30)
    return before, names()


def threads():
    return {thread for thread in threading.enumerate() if thread.name.startswith(("farm-", "Queue"))}


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_closed_farms_leave_nothing_open(uncollected, kind):
    def work(turn):
        with Farm(model=FAKE, workers={"count": 2, "kind": kind, "devices": "cpu"}) as farm_:
            assert len(list(farm_.map(["a.jpg", "b.jpg", "c.jpg"]))) == 3

    before, after = turns(work)
    assert after == before


def test_farms_that_are_closed_before_they_have_begun_leave_nothing_open(uncollected):
    def work(turn):
        with Farm(model=FAKE, workers=2) as farm_:
            farm_.submit("a.jpg")

    before, after = turns(work)
    assert after == before


def test_runs_leave_nothing_open(uncollected, tmp_path):
    source = pictures(tmp_path / "source", 4)
    before, after = turns(lambda turn: farm.run(config(source, tmp_path / f"run-{turn}")))
    assert after == before
