"""The end of a run, printed: what was done, where it is, what failed and why, how to go on."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from farm.core.marks import PARTS
from farm.core.summary import DeviceUse, Failure, Summary
from farm.report.lines import GAP, command_lines, prose_lines
from farm.report.tasks import CLASSIFY
from farm.report.text import counted, in_seconds, printable, rate
from farm.sources.path_filter import in_words

MESSAGE_CHARS = 100
KINDS_SHOWN = 5  # of failures, two lines each: with the table they fill a screen
GIB = 1 << 30
EXAMPLE = "    for example "
FAILED, RESTARTS = "failed", "restarts"
STYLES = {FAILED: "red", RESTARTS: "yellow"}  # of numbers above 0


def print_summary(console: Console, summary: Summary, continue_with: str, program: str = "farm") -> None:
    """`continue_with`: the command that goes on with an interrupted run; `program`: how farm is called."""
    for line in _table(summary, console.width):
        console.print(line, soft_wrap=True)
    if summary.gone:
        _say(console, f"{summary.gone:,} gone: deleted since they were listed")
    _say_failures(console, summary, program)
    if summary.bottleneck:
        _say(console, summary.bottleneck, "dim")
    if left_out := in_words(summary.left_out):
        _say(console, f"{'left out':<10}{left_out}", "dim")
    for label, place in _places(summary):
        _say_whole(console, f"{label:<10}{place}")
    for warning in summary.warnings:
        _say(console, f"warning: {warning}", "yellow")
    if summary.interrupted:
        _say(console, f"stopped by {summary.interrupted}; what is committed is kept. To continue:", "bold yellow")
        _say_command(console, continue_with, "bold")


def _table(summary: Summary, width: int) -> Iterator[Text]:
    """Names and values below each other, numbers with their last digits."""
    rows = list(_rows(summary))
    names = max(len(name) for name, _ in rows) + len(GAP)
    digits = max(len(value) for _, value in rows if _is_number(value))
    for name, value in rows:
        first, *rest = prose_lines(f"{value:>{digits}}" if _is_number(value) else value, width - names, "")
        style = STYLES.get(name, "") if value != "0" else ""
        yield Text.assemble((f"{name:<{names}}", "dim"), (first, style))
        yield from (Text(f"{'':<{names}}{line}") for line in rest)


def _is_number(value: str) -> bool:
    return not value.strip("0123456789,.")


def _rows(summary: Summary) -> Iterator[tuple[str, str]]:
    """A line each. Counts of 0 that say nothing are left out."""
    yield "images", f"{summary.listed:,}"
    if summary.interrupted:
        yield "still to do", "not all listed yet" if summary.remaining is None else f"{summary.remaining:,}"
    yield "labelled", f"{summary.ok:,}"
    yield FAILED, f"{summary.failed:,}"
    if summary.gone:
        yield "gone", f"{summary.gone:,}"
    if summary.skipped:
        yield "done earlier", f"{summary.skipped:,}"
    if summary.task == CLASSIFY:
        yield "top-1 classes", f"{summary.classes:,}"
    else:
        yield "detections", f"{summary.detections:,}"
    if summary.labelling_s:
        yield "images/s", rate(summary.images_per_s)
    yield "time", _time(summary)
    if summary.agreement:
        yield "backend", f"{summary.backend} {summary.precision}"
        yield "agreement", _agreement(summary.agreement)
    for use in summary.devices:
        if known := _use(use):
            yield use.device, known
    if summary.restarts:
        yield RESTARTS, f"{summary.restarts:,}"


def _time(summary: Summary) -> str:
    """The time of the whole command, and which part of it the rate covers."""
    rest_s = max(0.0, summary.wall_s - summary.labelling_s)
    parts = f" (labelling {in_seconds(summary.labelling_s)}, start and end {in_seconds(rest_s)})"
    return in_seconds(summary.wall_s) + (parts if summary.labelling_s else "")


def _use(use: DeviceUse) -> str:
    """How busy a device was, and how full its memory."""
    busy = [] if use.busy is None else [f"{use.busy:.0%} busy"]
    if use.peak_bytes is None or use.total_bytes is None:
        return "".join(busy)
    memory = f"at most {use.peak_bytes / GIB:.1f} of {use.total_bytes / GIB:.1f} GiB in use"
    return ", ".join([*busy, memory])


def _agreement(agreement: Mapping[str, Any]) -> str:
    if not agreement["boxes"]:
        return f"not known: {agreement['reference']} finds nothing in {counted(agreement['images'], 'image')}"
    return f"{agreement['matched']:.1%} of {agreement['boxes']:,} {agreement['compared']} of {agreement['reference']}"


def _say_failures(console: Console, summary: Summary, program: str) -> None:
    """The kinds that are the most telling, and where to read the others."""
    shown = chosen(summary.failures, KINDS_SHOWN)
    for failure in shown:
        _say_failure(console, failure)
    if not summary.failures:
        return
    rest = len(summary.failures) - len(shown)
    if rest:
        count = sum(failure.count for failure in summary.failures) - sum(failure.count for failure in shown)
        _say(console, f"{count:,} more failed in {counted(rest, 'other way')}", "red")
    if summary.failed > len(shown):
        _say(console, "all of them, with their messages:")
        _say_command(console, f"{program} retry --list {shlex.quote(summary.run_dir)}")


def chosen(failures: Sequence[Failure], most: int) -> list[Failure]:
    """So many kinds, the most frequent first: one of each stage and type, before a second message of any. Pure."""
    seen: set[tuple[str, str]] = set()
    first: list[Failure] = []
    second: list[Failure] = []
    for failure in sorted(failures, key=lambda failure: -failure.count):
        kind = (failure.stage, failure.type)
        (second if kind in seen else first).append(failure)
        seen.add(kind)
    return sorted((first + second)[:most], key=lambda failure: -failure.count)


def _say_failure(console: Console, failure: Failure) -> None:
    """One kind of failure: how often, where and why, and one image to look at."""
    message = printable(failure.message)
    if console.is_terminal and len(message) > MESSAGE_CHARS:  # a log keeps all of it: it may name a path
        message = message[: MESSAGE_CHARS - 1] + "…"
    _say(console, f"{failure.count:,} failed in {failure.stage}: {failure.type}: {message}", "red")
    _say_whole(console, f"{EXAMPLE}{failure.example}")


def _places(summary: Summary) -> Iterator[tuple[str, str]]:
    for name, path in summary.exports.items():
        yield ("labels" if name == "yolo" else name), path
    yield "results", f"{summary.run_dir}/{PARTS}/*.parquet"


def _say(console: Console, text: str, style: str = "") -> None:
    """A sentence: broken between words on a terminal, one line in a log."""
    for line in prose_lines(printable(text), console.width) if console.is_terminal else [text]:
        _say_whole(console, line, style)


def _say_command(console: Console, command: str, style: str = "") -> None:
    """A command to be copied, on lines of its own: on a terminal broken between its words, as a shell takes it."""
    for line in command_lines(command, console.width if console.is_terminal else None):
        _say_whole(console, line, style)


def _say_whole(console: Console, text: str, style: str = "") -> None:
    """One line, never wrapped or cut: a path must stay whole where it is copied from."""
    console.print(Text(printable(text), style=style), soft_wrap=True)
