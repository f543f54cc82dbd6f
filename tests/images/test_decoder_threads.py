"""Decoding threads: results and errors come back, and one that hangs keeps nothing from ending."""

import subprocess
import sys
import threading
import weakref

import pytest

from farm.images.decoder_threads import DecoderThreads
from tests.support.harness import ROOT, pictures

HANGS = """
import sys, threading, farm

class Hangs:
    task, names, channels, needs_pixels = "detect", {0: "thing"}, 3, True

    def prepare(self, image, shape):
        if image[0, 0, 0] == 200:
            threading.Event().wait()
        return image

    def predict(self, prepared, shapes):
        return shapes

    def encode(self, predictions):
        from farm.models.fake import FakeModel

        return FakeModel(boxes=1, pixels=True).encode(predictions)

    def restore_threads(self):
        pass

farm.supervisor.thread_children.load_model = lambda *arguments: Hangs()
summary = farm.run({
    "source": sys.argv[1],
    "output": {"dir": sys.argv[2], "exports": []},
    "model": {"factory": "farm.models.fake:make"},
    "workers": {"kind": "thread", "count": 1, "devices": "cpu"},
    "limits": {"attempts": 1, "item_timeout_s": 1},
})
print(summary.ok, summary.failed)
"""


def test_results_and_errors_come_back():
    def divide(a, b):
        return a / b

    with DecoderThreads(2).start() as decoders:
        tasks = [decoders.submit(divide, 6, number) for number in (1, 2, 0)]
        assert all(decoders.wait(task, 10) for task in tasks)
        assert [task.result() for task in tasks[:2]] == [6, 3]
        with pytest.raises(ZeroDivisionError):
            tasks[2].result()


@pytest.mark.timeout(60)
def test_whoever_waits_is_woken_by_its_own_task_alone():
    go_on = threading.Event()
    with DecoderThreads(2).start() as decoders:
        slow = decoders.submit(go_on.wait)
        assert not decoders.wait(slow, 0.01) and not slow.is_done
        for _ in range(50):
            assert decoders.wait(decoders.submit(int))
        assert not decoders.wait(slow, 0.0)
        go_on.set()
        assert decoders.wait(slow) and slow.result() is True


def test_what_a_task_was_given_is_let_go_when_it_is_done():
    class Pixels:
        pass

    given = Pixels()
    gone = weakref.ref(given)
    with DecoderThreads(1).start() as decoders:
        task = decoders.submit(id, given)
        del given
        assert decoders.wait(task, 10)
        assert decoders.wait(decoders.submit(int), 10)  # by now the thread has turned to another
        assert gone() is None


def test_threads_end_with_the_block():
    with DecoderThreads(3).start() as decoders:
        assert all(thread.is_alive() for thread in decoders._threads)
    for thread in decoders._threads:
        thread.join(5)
    assert not any(thread.is_alive() for thread in decoders._threads)


@pytest.mark.timeout(90)
def test_a_program_ends_although_a_decoder_hangs_in_one_of_its_threads(tmp_path):
    source = pictures(tmp_path / "source", 8, poisoned=(3,))
    command = [
        sys.executable,
        "-c",
        "import farm.supervisor.thread_children" + HANGS,
        str(source),
        str(tmp_path / "run"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["7", "1"]
