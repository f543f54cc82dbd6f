"""What is said where processes, threads, descriptors or memory run out: which limit it is, and what to set."""

import errno
import os
import resource

import cv2
import numpy as np
import pytest

from farm.errors import DecodeError, WorkerError
from farm.images import decoding
from farm.machine import shortage


@pytest.fixture
def root(tmp_path):
    """A file system whose only group allows 30 processes, of which some are there."""

    def make(current):
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text("0::/job\n")
        (tmp_path / "proc/self/mountinfo").write_text("29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
        group = tmp_path / "sys/fs/cgroup/job"
        group.mkdir(parents=True)
        (group / "pids.max").write_text("30\n")
        (group / "pids.current").write_text(f"{current}\n")
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("current", "workers", "kind", "advice"),
    [
        (3, 10, "process", "10 workers need at least 44 .* 27 more .*; raise it, or set workers.count=5"),
        (24, 1, "process", "1 worker needs at least 8 .* 6 more .*; raise it, or set workers.kind=thread"),
        (26, 4, "thread", "4 workers need at least 14 .* 4 more .*; raise it$"),
        (40, 1, "thread", "0 more may be started"),
    ],
)
def test_what_workers_need_is_compared_with_what_is_left(root, current, workers, kind, advice):
    with pytest.raises(WorkerError, match=advice) as caught:
        shortage.check_processes(workers, 1, kind, root(current))
    assert "the limit is 30 for all of this container or job (pids.max of " in str(caught.value)


def test_enough_processes_are_not_remarked(root):
    shortage.check_processes(4, 1, "process", root(10))


def test_what_a_run_has_before_its_workers_is_counted_where_it_has_not_begun(root, monkeypatch):
    """Four workers are 20 processes and threads, and the lister comes before them."""
    monkeypatch.setattr(shortage, "ensure_descriptors", lambda workers, first: None)
    allowed = root(10)
    shortage.check_workers(4, 1, "process", root=allowed)
    with pytest.raises(WorkerError, match=r"4 workers need at least 20 .* 19 more .* workers.count=3"):
        shortage.check_workers(4, 1, "process", begun=False, root=allowed)


def test_threads_of_one_user_are_counted(tmp_path, monkeypatch):
    """RLIMIT_NPROC is about the real user id, and about all of its threads."""
    for pid, uid, threads in ((1, 0, 5), (20, 1000, 3), (21, 1000, 4), (22, 10, 7)):
        (tmp_path / f"proc/{pid}").mkdir(parents=True)
        (tmp_path / f"proc/{pid}/status").write_text(f"Name:\tx\nUid:\t{uid}\t0\t0\t0\nThreads:\t{threads}\n")
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (10, 10))
    assert shortage.processes_left(tmp_path) == 3
    assert shortage.process_limit(tmp_path) == "the limit is 10 for all of this user's (ulimit -u)"
    (tmp_path / "proc/self").mkdir()
    (tmp_path / "proc/self/status").write_text("CapEff:\t0000000001000000\n")
    assert shortage.processes_left(tmp_path) is None, "whoever has CAP_SYS_RESOURCE is exempt"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("can't start new thread"), "no more processes and threads .* workers.kind=thread"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "no more processes and threads"),
        (OSError(errno.EMFILE, "Too many open files"), r"no more files .* \(ulimit -n\)"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "not enough memory: .*set workers.count lower"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory"), "not enough"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"), "not enough memory"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "not enough memory"),
    ],
)
def test_what_is_short_is_named(error, words):
    with pytest.raises(WorkerError, match=words), shortage.named():
        raise error


@pytest.mark.parametrize("error", [OSError(errno.ENOENT, "no"), RuntimeError("shape mismatch"), ImportError("torch")])
def test_other_errors_are_left_alone(error):
    with pytest.raises(type(error)) as caught, shortage.named():
        raise error
    assert caught.value is error


def test_a_limit_on_addresses_is_named(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (2 << 30, 2 << 30))
    assert "a process may have 2048 MiB of addresses (ulimit -v)" in shortage.in_words(MemoryError())


def test_the_soft_limit_on_descriptors_is_raised_as_far_as_workers_need(monkeypatch):
    told = []
    monkeypatch.setattr(shortage, "_open_descriptors", lambda: 16)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: told.append(limits))
    shortage.ensure_descriptors(4)
    assert told == []
    shortage.ensure_descriptors(100)
    assert told == [(1656, 4096)]
    with pytest.raises(WorkerError, match=r"at least 3032 open files, .* may have 256: .* or set workers.count=37"):
        monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 256))
        shortage.ensure_descriptors(500)


REFUSED = "OpenCV(4.10.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 1200000000 bytes in function"


def test_memory_that_a_decoder_is_refused_is_no_fault_of_the_file(monkeypatch):
    error = cv2.error(REFUSED)
    error.code = cv2.Error.StsNoMem
    monkeypatch.setattr(cv2, "imdecode", lambda *_: (_ for _ in ()).throw(error))
    png = cv2.imencode(".png", np.zeros((20, 30, 3), np.uint8))[1].tobytes()
    with pytest.raises(DecodeError, match="not enough memory to decode an image of 600 pixels") as caught:
        decoding.decode_bytes(png, "x.png", 1000)
    assert caught.value.kind == "MemoryError"


def test_the_cause_of_what_is_named_is_kept():
    """A program's own code says EAGAIN of other things."""
    own = BlockingIOError(errno.EAGAIN, "my queue is full")
    with pytest.raises(WorkerError) as caught, shortage.named():
        raise own
    assert caught.value.__cause__ is own
