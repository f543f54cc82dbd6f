"""Rows of the heartbeats: read whole or not at all, whoever writes them, and however fast."""

import multiprocessing
import os
import secrets
import signal
import threading
import time

import pytest

from farm.core.deadlines import BEAT_S, DECODE, PREDICT, CurrentWork, Watchdog
from farm.ipc.heartbeat import IDLE, NOTHING, PREDICTING, WORK_STAGES, Heartbeats
from farm.machine import child
from farm.worker.heartbeat_writer import HeartbeatWriter
from tests.support.harness import wait_for

LOOK_S = 2.0  # ten thousand looks and more: a farm of sixty-four workers makes so many in two minutes


@pytest.fixture
def beats():
    made = Heartbeats.create(f"farm-test-{secrets.token_hex(4)}", 3)
    for worker in range(3):
        made.reset(worker)
    yield made
    made.close()


def rush(name, worker):
    """Work begins and ends as fast as it can. The fields of one work say each other: see `whole`."""
    writer = HeartbeatWriter(Heartbeats.attach(name, 3), worker)
    writer.state(PREDICTING)
    seq = 0
    while True:
        seq += 1
        together = 1 + seq % 7
        writer.begin(range(seq * 10, seq * 10 + together), WORK_STAGES[seq % 2])
        writer.pause(range(seq * 10, seq * 10 + together))
        if seq % 100 == 0:
            writer.beat()


def whole(work):
    seq = work.seq // 10
    return (work.together, work.stage) == (1 + seq % 7, WORK_STAGES[seq % 2])


def test_a_writer_that_never_rests_is_never_read_half(beats):
    """A real process writes; each look must be at one work of its own, and none may look late."""
    process = multiprocessing.get_context("spawn").Process(target=rush, args=(beats.name, 1), daemon=True)
    process.start()
    try:
        assert wait_for(lambda: beats.read(1).work is not None, 30)
        watchdog, seen, looks, last, began = Watchdog(), 0, 0, 0.0, time.monotonic()
        while time.monotonic() < began + LOOK_S:
            signs, now = beats.read(1), time.monotonic()
            looks += 1
            if signs.work is not None:
                seen += 1
                assert whole(signs.work)
                assert last <= signs.work.since_s <= now, "since belongs to another work"
                last = signs.work.since_s
            assert watchdog.look(signs, now, now, 30.0) is None
        assert seen > looks / 20, "it is hardly ever seen at work"
    finally:
        process.kill()
        process.join()


def test_a_torn_row_is_not_read_and_keeps_nobody_waiting(beats):
    """As a writer leaves it that is killed between two words."""
    beats.show_work(1, CurrentWork(7, 100.0, 1, PREDICT))
    assert beats.read(1).work == CurrentWork(7, 100.0, 1, PREDICT)
    for field, value in {"work_seq": 8, "work_since_s": 1.0, "work_together": 2, "work_stage": 0}.items():
        before = beats.row(1)[field].item()
        beats.row(1)[field] = value
        assert beats.read(1).work is None
        beats.row(1)[field] = before
    assert beats.read(1).work is not None
    beats.show_work(1, None)
    assert beats.read(1).work is None
    assert beats.row(1)["work_seq"] == NOTHING
    assert beats.read(0).work is None and beats.read(2).work is None, "neighbours are not touched"


def test_a_reset_row_says_nothing_of_the_incarnation_before(beats):
    beats.show_work(1, CurrentWork(7, 100.0, 1, PREDICT))
    beats.row(1)["started"] = 9
    beats.reset(1)
    signs = beats.read(1)
    assert signs.work is None and abs(time.monotonic() - signs.beat_s) < 5
    assert beats.row(1)["started"] == 0


def test_the_oldest_work_is_shown_and_its_time_stands_while_it_waits(beats):
    writer = HeartbeatWriter(beats, 1)
    writer.begin((3,), DECODE, first=True)
    writer.begin((4, 5), PREDICT)
    assert beats.read(1).work.seq == 3
    with writer.standing((3,), DECODE):
        assert (beats.read(1).work.seq, beats.read(1).work.together) == (4, 2)
    writer.pause((4, 5))
    work = beats.read(1).work
    assert (work.seq, work.stage) == (3, DECODE)
    assert time.monotonic() - work.since_s < 5
    writer.pause((3,))
    assert beats.read(1).work is None
    assert beats.row(1)["started"] == 1


def test_a_beat_that_comes_late_forgives_what_the_process_did_not_run(beats, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("farm.worker.heartbeat_writer.time.monotonic", lambda: now[0])
    writer = HeartbeatWriter(beats, 1)
    now[0] = 1000.4
    writer.begin((3,), DECODE)
    now[0] = 1000.5
    writer.beat()
    assert beats.read(1).work.forgiven_s == 0.0
    now[0] = 1090.5
    writer.begin((4,), DECODE)
    writer.beat()
    work = beats.read(1).work
    assert (work.seq, work.forgiven_s) == (3, pytest.approx(89.5))
    writer.pause((3,))
    assert beats.read(1).work.forgiven_s == 0.0, "it began after the pause"
    assert beats.read(1).beat_s == 1090.5


def test_a_thread_that_was_given_up_writes_nothing_more(beats):
    """The row is its successor's."""
    writer = HeartbeatWriter(Heartbeats.attach(beats.name, 3), 1)
    writer.begin((3,), DECODE, first=True)
    beats.reset(1)
    successor = HeartbeatWriter(beats, 1)
    writer.silence()
    before = beats.row(1).tobytes()
    writer.pause((3,))
    writer.begin((4,), PREDICT, first=True)
    writer.state(PREDICTING)
    writer.beat()
    writer.sent(5)
    writer.spent({"forward": 1.0})
    assert beats.row(1).tobytes() == before
    successor.begin((9,), DECODE)
    assert beats.read(1).work.seq == 9
    assert beats.row(1)["state"] != IDLE


def stop_and_go(name, worker):
    writer = HeartbeatWriter(Heartbeats.attach(name, 3), worker)
    writer.begin((1,), DECODE)
    while True:
        writer.beat()
        threading.Event().wait(0.5)


def test_a_stopped_process_is_not_charged_for_the_time(beats):
    """SIGSTOP for some seconds, then SIGCONT: at no look is its item older than the time in which it ran."""
    process = multiprocessing.get_context("spawn").Process(target=stop_and_go, args=(beats.name, 1), daemon=True)
    process.start()
    try:
        assert wait_for(lambda: beats.read(1).work is not None, 30)
        began = time.monotonic()
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(2.5)
        os.kill(process.pid, signal.SIGCONT)
        stopped = time.monotonic() - began
        lasted = []
        while time.monotonic() < began + stopped + 1.5:
            signs = beats.read(1)
            lasted.append(signs.work.lasted_s(signs.beat_s, time.monotonic()))
        assert 0.0 <= max(lasted) < time.monotonic() - began - stopped + 1.0
        assert signs.work.forgiven_s > 1.5
    finally:
        process.kill()
        process.join()


def test_children_beat_as_often_as_is_expected():
    assert child.WATCH_S <= BEAT_S
