"""What a person sees at the end of a run."""

import io
from dataclasses import asdict

import pytest
from rich.console import Console

from farm.core.summary import DeviceUse, Failure, Summary
from farm.models.conversion.agreement import Agreement
from farm.report.closing import chosen, print_summary


def summary(**more):
    values = dict(run_dir="/runs/a", listed=10, ok=8, failed=2, skipped=3, detections=99, images_per_s=12.3, wall_s=61.0,
                  restarts=1, exit_code=3, exports={"yolo": "/runs/a/labels"}) | more  # fmt: skip
    return Summary(**values)


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


def test_devices_are_shown_as_far_as_their_driver_tells():
    gib = 1 << 30
    uses = (DeviceUse("cuda:0", 0.934, 3 * gib + 1, 80 * gib), DeviceUse("cuda:1", None, gib, 10 * gib),
            DeviceUse("cuda:2", 0.5, None, None), DeviceUse("cuda:3", None, None, None))  # fmt: skip
    console = Console(file=io.StringIO(), width=80)
    print_summary(console, summary(devices=uses), "")
    lines = [line.split(maxsplit=1) for line in console.file.getvalue().splitlines() if line.startswith("cuda:")]
    assert lines == [
        ["cuda:0", "93% busy, at most 3.0 of 80.0 GiB in use"],
        ["cuda:1", "at most 1.0 of 10.0 GiB in use"],
        ["cuda:2", "50% busy"],
    ]


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
