"""A step that fails ends, and takes nothing with it."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from benchmarks.gpu.alone import alone

LIMIT_S = 60.0  # far more than any of these needs


def counting(last):
    yield from ({"number": number} for number in range(last))


def failing():
    yield {"number": 0}
    raise RuntimeError("no kernel image is available")


def dying():
    yield {"number": 0}
    os._exit(3)


def hanging():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield {"pid": child.pid}
    time.sleep(600)


def test_lines_come_as_they_are_yielded():
    assert list(alone(counting, (3,), LIMIT_S)) == [{"number": 0}, {"number": 1}, {"number": 2}]


@pytest.mark.parametrize(
    ("function", "said"),
    [(failing, "RuntimeError: no kernel image is available"), (dying, "its process died with exit code 3")],
)
def test_what_was_measured_before_a_failure_is_kept(function, said):
    first, last = alone(function, (), LIMIT_S)
    assert first == {"number": 0}
    assert last["error"].strip().endswith(said)


def test_a_step_that_takes_too_long_is_ended():
    assert list(alone(hanging, (), 0.0)) == [{"error": "it was ended after 0 s"}]


def test_what_a_step_started_ends_with_it():
    lines = alone(hanging, (), LIMIT_S)
    child = psutil.Process(next(lines)["pid"])
    lines.close()
    assert child.wait(LIMIT_S) is None or not child.is_running()
