"""What a person sees: bars, lines, summaries; and file names that try to do more than be shown."""

import io
from dataclasses import asdict

import pytest
from rich.console import Console

from farm.core.summary import Failure, Snapshot, Summary, WorkerSnapshot, stopping
from farm.models.conversion.agreement import Agreement
from farm.report.closing import chosen, print_summary
from farm.report.live import LiveView, PlainView, open_view
from farm.report.text import counted, in_seconds, printable, rate


def snapshot(done=500, total=2000, skipped=1000, workers=2, elapsed=50.0, **more):
    states = ["predicting", "restarting"]
    crew = tuple(WorkerSnapshot(n, f"cpu {n}", states[n % 2], 250, 5.0, n) for n in range(workers))
    return Snapshot(elapsed, total, skipped, done - 3, 3, 4321, 10.0, done - 10, crew, **more)


def summary(**more):
    values = dict(run_dir="/runs/a", listed=10, ok=8, failed=2, skipped=3, detections=99, images_per_s=12.3, wall_s=61.0,
                  restarts=1, exit_code=3, exports={"yolo": "/runs/a/labels"}) | more  # fmt: skip
    return Summary(**values)


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


@pytest.mark.parametrize(
    ("task", "line"),
    [("detect", "detections  1,234"), ("pose", "detections  1,234"), ("classify", "top-1 classes  9"),
     (None, "detections  1,234")],
)  # fmt: skip
def test_a_classification_finds_classes_and_all_else_detections(task, line):
    console = Console(file=io.StringIO(), width=80)
    print_summary(console, summary(task=task, detections=1234, classes=9), "")
    assert line.split() in [words.split() for words in console.file.getvalue().splitlines()]
    assert ("detections" in console.file.getvalue()) == (task != "classify")


def test_the_time_says_what_the_rate_is_of():
    console = Console(file=io.StringIO(), width=80)
    print_summary(console, summary(wall_s=16.4, labelling_s=12.3), "")
    assert "16.4 s (labelling 12.3 s, start and end 4.1 s)" in console.file.getvalue()
    console = Console(file=io.StringIO(), width=80)
    print_summary(console, summary(images_per_s=-0.0, labelling_s=0.0), "")
    assert "images/s" not in console.file.getvalue(), "nothing was labelled"


def test_failures_fill_a_screen_at_most_and_the_others_are_named():
    failures = tuple(Failure("decode", f"Kind{n}", 100 - n, f"{n}.jpg", "m") for n in range(30))
    console = Console(file=io.StringIO(), width=80)
    print_summary(console, summary(failures=failures, failed=2565, run_dir="/runs/of me"), "", "python -m farm")
    lines = console.file.getvalue().splitlines()
    assert len(lines) <= 24
    assert "2,075 more failed in 25 other ways" in lines
    assert "  python -m farm retry --list '/runs/of me'" in lines


def test_a_second_message_of_a_type_gives_way_to_another_type():
    kinds = [("decode", "A", 9), ("decode", "A", 8), ("read", "B", 1), ("decode", "A", 7)]
    failures = [Failure(stage, kind, count, "x.jpg", str(count)) for stage, kind, count in kinds]
    assert [failure.count for failure in chosen(failures, 3)] == [9, 8, 1]


def test_a_command_is_not_broken_within_a_word_on_a_terminal():
    console = Console(file=io.StringIO(), width=40, force_terminal=True, color_system=None)
    command = "farm run source=/data/images model=yolo26n.pt output=runs/a"
    print_summary(
        console,
        summary(interrupted="SIGINT", bottleneck="use model.backend=onnxruntime for a new output, or a GPU"),
        command,
    )
    lines = console.file.getvalue().splitlines()
    assert all(any(word in line.split() for line in lines) for word in command.split())
    assert any("model.backend=onnxruntime" in line.split() for line in lines)
    assert max(map(len, lines)) <= 40


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


def test_the_summary_says_what_failed_and_how_to_go_on():
    failure = Failure("decode", "Truncated", 2, "a/[bold]b\x1b[31m\n.jpg", "ends early")
    console = Console(file=io.StringIO(), width=100)
    print_summary(console, summary(failures=(failure,), interrupted="SIGINT", remaining=None), "farm run c.yaml")
    text = console.file.getvalue()
    assert "Truncated: ends early" in text
    assert r"a/[bold]b\x1b[31m\n.jpg" in text
    assert "\x1b" not in text
    assert "To continue:\n  farm run c.yaml\n" in text
    assert "not all listed yet" in text
    assert "/runs/a/labels" in text


@pytest.mark.parametrize(
    ("boxes", "line"),
    [(250, "97.2% of 250 boxes with polygons of torch fp32 and exact decoding"), (0, "not known: torch fp32 and exact decoding finds nothing in 32 images")],
)  # fmt: skip
def test_the_summary_says_how_far_labels_agree(boxes, line):
    console = Console(file=io.StringIO(), width=100)
    reference = "torch fp32 and exact decoding"
    agreement = asdict(Agreement(0.972, 0.0, boxes, 0, 32, reference, "boxes with polygons"))
    print_summary(console, summary(agreement=agreement), "")
    assert line in console.file.getvalue()


def test_a_long_path_is_not_cut():
    path, example = "/very/long" * 30, "a/b" * 100
    failure = Failure("read", "OSError", 1, example, f"cannot read {example}")
    console = Console(file=io.StringIO(), width=60)
    print_summary(console, summary(exports={"yolo": path}, failures=(failure,)), "")
    lines = console.file.getvalue().splitlines()
    assert f"labels    {path}" in lines
    assert f"1 failed in read: OSError: cannot read {example}" in lines
    assert f"    for example {example}" in lines


def test_a_terminal_gets_no_page_of_an_error_message():
    failure = Failure("predict", "RuntimeError", 1, "a.jpg", "x" * 5000)
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    print_summary(console, summary(failures=(failure,)), "")
    assert "x" * 99 + "…" in console.file.getvalue().replace("\n", "")
    assert "x" * 100 not in console.file.getvalue().replace("\n", "")


def test_printable_escapes_what_a_terminal_would_obey():
    assert printable("a\x1b]0;x\x07\r\udcff") == r"a\x1b]0;x\x07\r\udcff"
    assert printable("ünïcödé 图") == "ünïcödé 图"


def test_numbers_as_people_read_them():
    assert [counted(1, "image"), counted(1234, "image"), counted(0, "box", "boxes")] == [
        "1 image",
        "1,234 images",
        "0 boxes",
    ]
    assert [rate(-0.0), rate(-1e-9), rate(99.94), rate(1234.5)] == ["0.0", "0.0", "99.9", "1,234"]
    assert [in_seconds(0.04), in_seconds(12.34), in_seconds(61.2)] == ["0.0 s", "12.3 s", "0:01:01"]
