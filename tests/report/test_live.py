"""What a person sees while a run goes on: bars and lines, and nothing that a file name could do to a terminal."""

import io

import pytest
from rich.console import Console

from farm.core.summary import Snapshot, WorkerSnapshot, stopping
from farm.report.live import LiveView, PlainView, open_view


def snapshot(done=500, total=2000, skipped=1000, workers=2, elapsed=50.0, **more):
    states = ["predicting", "restarting"]
    crew = tuple(WorkerSnapshot(n, f"cpu {n}", states[n % 2], 250, 5.0, n) for n in range(workers))
    return Snapshot(elapsed, total, skipped, done - 3, 3, 4321, 10.0, done - 10, crew, **more)


def shown(view_or_summary, width=80):
    console = Console(file=io.StringIO(), width=width)
    console.print(view_or_summary)
    return console.file.getvalue()


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_the_bar_counts_earlier_work_and_the_rate_does_not():
    clock = Clock()
    view = LiveView(Console(file=io.StringIO(), force_terminal=True), "labelling", clock)
    with view:
        view.update(snapshot(done=400))
        clock.now += 10
        view.update(snapshot(done=500))
    text = shown(view.render(snapshot(done=500)))
    assert "1,500/2,000" in text
    assert "10.0 images/s" in text
    assert "0:00:50 left" in text
    assert "1,000 done earlier" in text
    assert max(map(len, text.splitlines())) <= 80


def test_no_more_is_done_than_there_is():
    view = LiveView(Console(file=io.StringIO()), "labelling")
    assert "2,000/2,000" in shown(view.render(snapshot(done=1500, skipped=1000))), "rows of what has vanished"


def test_an_unknown_total_shows_a_count_and_the_time_so_far():
    view = LiveView(Console(file=io.StringIO()), "labelling")
    text = shown(view.render(snapshot(total=None)))
    assert "1,500 " in text
    assert "left" not in text


def test_many_workers_are_summed_up():
    text = shown(LiveView(Console(file=io.StringIO()), "x").render(snapshot(workers=40)))
    assert "+24" in text
    assert len(text.splitlines()) < 24


@pytest.mark.parametrize("width", [80, 120])
def test_nothing_wraps(width):
    view = LiveView(Console(file=io.StringIO(), width=width), "labelling " + "x" * 200)
    crew = tuple(WorkerSnapshot(n, "cpu " + "0,1,2,3," * 20, "predicting", 123_456, 12.3, 2) for n in range(3))
    big = Snapshot(9e5, 9_999_999, 1_234_567, 904_050, 1_234, 12_345_678, 1500.0, 883_780, crew, "n" * 200)
    lines = shown(view.render(big), width).splitlines()
    assert len(lines) == 1 + 1 + 1 + 1 + len(crew) + 1
    assert max(map(len, lines)) <= width
    assert all(f"  {123_456:,}      12.3         2" in line for line in lines[4:7])
    assert "1,234,567 done earlier  12,345,678 detections" in lines[2]
    assert ("883,780 committed" in lines[2]) == (width == 120)


@pytest.mark.parametrize("width", [28, 40, 47, 60])
def test_a_narrow_terminal_cuts_no_head(width):
    view = LiveView(Console(file=io.StringIO(), width=width), "labelling")
    lines = shown(view.render(snapshot(workers=20)), width).splitlines()
    assert set(lines[3].split()) <= {"worker", "pin", "state", "images", "images/s", "restarts"}
    assert "1,500/2,000" in lines[1] and max(map(len, lines)) <= width
    assert all("…" not in line for line in lines[3:])


def test_what_is_shown_while_it_runs_is_escaped():
    view = LiveView(Console(file=io.StringIO(), width=80), "labelling [red]a\x1b[2J")
    crew = (WorkerSnapshot(0, "[red]cpu", "idle", 1, 1.0, 0),)
    text = shown(view.render(Snapshot(1.0, None, 0, 1, 0, 0, 1.0, 0, crew, "[bold]\x1b[2J\n")))
    assert "labelling [red]a\\x1b[2J" in text
    assert "[red]cpu" in text
    assert "[bold]\\x1b[2J\\n" in text


def test_only_workers_that_can_label_count_as_working():
    stream = io.StringIO()
    states = ("predicting", "idle", "starting", "restarting", "dead", "stopped")
    crew = tuple(WorkerSnapshot(n, "cpu", state, 1, 1.0, 0) for n, state in enumerate(states))
    PlainView(stream).update(Snapshot(50.0, None, 0, 6, 0, 0, 1.0, 0, crew))
    assert "2/6 workers" in stream.getvalue()


def test_redraws_are_rare():
    clock, drawn = Clock(), []
    view = LiveView(Console(file=io.StringIO()), "x", clock)
    view.draw = drawn.append
    for _ in range(100):
        view.update(snapshot())
        clock.now += 0.01
    assert len(drawn) == 4


def failing(done=40, failed_before=0, **more):
    return Snapshot(50.0, 130, 90, done, 2, 0, 9.0, done, (), failed_before=failed_before, **more)


def test_failures_of_earlier_runs_are_told_beside_those_of_now():
    view = LiveView(Console(file=io.StringIO(), width=80), "labelling")
    assert "2 failed  90 done earlier" in shown(view.render(failing()))
    assert "2 failed + 7 earlier  90 done earlier" in shown(view.render(failing(failed_before=7)))
    stream = io.StringIO()
    PlainView(stream).update(failing(failed_before=7))
    assert stream.getvalue().rstrip() == "0:00:50  130/130 (100.0%)  2 failed + 7 earlier  0/0 workers"


def test_no_time_is_left_before_it_is_known():
    clock = Clock()
    view = LiveView(Console(file=io.StringIO(), width=80), "labelling", clock)
    for done in (32, 64):
        view.update(snapshot(done=done, skipped=0, elapsed=5.0))
        clock.now += 1
    text = shown(view.render(snapshot(done=64, skipped=0, elapsed=5.0)))
    assert "left" not in text and "0:00:05" in text
    assert "images/s" not in text.splitlines()[1]


def test_that_it_is_stopping_is_said_at_once_and_how_to_stop_now():
    clock, stream = Clock(), io.StringIO()
    view = PlainView(stream, clock)
    view.update(snapshot())
    clock.now += 0.1
    for _ in range(5):
        view.update(snapshot(note=stopping(1)))
    assert len(stream.getvalue().splitlines()) == 2
    assert "Ctrl-C again: at once" in stream.getvalue() and "again" not in stopping(0)


def test_a_terminal_that_cannot_move_its_cursor_is_a_log(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(open_view(Console(file=io.StringIO(), force_terminal=True), "x"), PlainView)


def test_plain_lines_come_every_ten_seconds():
    clock, stream = Clock(), io.StringIO()
    view = PlainView(stream, clock)
    view.update(snapshot(done=0, elapsed=1.0, skipped=0))
    assert stream.getvalue() == "", "nothing to say before the first image"
    for _ in range(25):
        view.update(snapshot())
        clock.now += 1
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("0:00:50  1,500/2,000 (75.0%)")
    assert "3 failed  1/2 workers" in lines[0]


def test_the_view_fits_the_stream():
    assert isinstance(open_view(Console(file=io.StringIO()), "x"), PlainView)
    assert isinstance(open_view(Console(file=io.StringIO(), force_terminal=True), "x"), LiveView)
