"""What a process does with memory that was freed: counted in the pages that it holds, in processes of their own."""

import ctypes
import os
import platform
import subprocess
import sys

import pytest

from farm.machine import allocator

BLOCK_BYTES = 20 << 20
HELD_AFTERWARDS = f"""
import sys
import numpy as np
from farm.machine.allocator import keep_freed_memory

def held():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * {os.sysconf("SC_PAGE_SIZE")}

assert keep_freed_memory() == (sys.argv[1] == "kept")
before = held()
block = np.ones({BLOCK_BYTES}, np.uint8)
assert held() - before > {BLOCK_BYTES} * 0.9
del block
print((held() - before) / {BLOCK_BYTES})
"""
ON_GLIBC = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not os.path.exists("/proc/self/statm"), reason="of glibc, on Linux"
)


def share_held(word, **variables):
    command = [sys.executable, "-c", HELD_AFTERWARDS, word]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@ON_GLIBC
def test_a_block_that_was_freed_is_still_held():
    assert share_held("kept") > 0.9


@ON_GLIBC
@pytest.mark.parametrize(
    "variables", [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}]
)
def test_what_the_environment_says_holds(variables):
    assert share_held("as it was", **variables) < 0.1


@pytest.mark.parametrize("refused", [OSError, AttributeError, TypeError])
def test_another_allocator_is_left_alone(monkeypatch, refused):
    def library(name):
        raise refused

    monkeypatch.setattr(ctypes, "CDLL", library)
    assert not allocator.keep_freed_memory()


def test_a_worker_begins_with_it():
    program = """
import sys
from types import SimpleNamespace
from farm.machine import allocator
from farm.worker import child
allocator.keep_freed_memory = lambda: sys.exit(3)
child.main(SimpleNamespace(index=0, environment={}), None, None, None)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 3
