"""The end of a run, printed: what was done, where it is, what failed and why, how to go on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from farm.report.text import duration, printable, rate
from farm.summary import Failure, Summary

MESSAGE_CHARS = 100


def print_summary(console: Console, summary: Summary, continue_with: str) -> None:
    """`continue_with`: the command that goes on with an interrupted run."""
    console.print(_table(summary))
    if summary.gone:
        _say(console, f"{summary.gone:,} gone: deleted since they were listed")
    for failure in summary.failures:
        _say_failure(console, failure)
    if summary.bottleneck:
        _say(console, summary.bottleneck, "dim")
    for label, place in _places(summary):
        _say(console, f"{label:<10}{place}")
    for warning in summary.warnings:
        _say(console, f"warning: {warning}", "yellow")
    if summary.interrupted:
        _say(
            console,
            f"stopped by {summary.interrupted}; what is done is committed. To continue: {continue_with}",
            "bold yellow",
        )


def _table(summary: Summary) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    rows: list[tuple[str, str | Text]] = [
        ("images", f"{summary.listed:,}"),
        ("labelled", f"{summary.ok:,}"),
        ("failed", Text(f"{summary.failed:,}", style="red" if summary.failed else "")),
        ("detections", f"{summary.detections:,}"),
        ("images/s", rate(summary.images_per_s)),
        ("time", duration(summary.wall_s)),
    ]
    if summary.gone:
        rows.insert(3, ("gone", f"{summary.gone:,}"))
    if summary.agreement:
        rows.append(("backend", f"{summary.backend} {summary.precision}"))
        rows.append(("agreement", _agreement(summary.agreement)))
    if summary.skipped:
        rows.insert(3, ("done earlier", f"{summary.skipped:,}"))
    if summary.restarts:
        rows.append(("restarts", Text(str(summary.restarts), style="yellow")))
    if summary.interrupted:
        left = "not all listed yet" if summary.remaining is None else f"{summary.remaining:,}"
        rows.insert(1, ("still to do", left))
    for row in rows:
        table.add_row(*row)
    return table


def _agreement(agreement: Mapping[str, Any]) -> str:
    if not agreement["boxes"]:
        return f"not known: {agreement['reference']} finds nothing in {agreement['images']} images"
    return f"{agreement['matched']:.1%} of {agreement['boxes']:,} {agreement['compared']} of {agreement['reference']}"


def _say_failure(console: Console, failure: Failure) -> None:
    """One kind of failure: how often, where and why, and one image to look at."""
    message = printable(failure.message)
    if console.is_terminal and len(message) > MESSAGE_CHARS:  # a log keeps all of it: it may name a path
        message = message[: MESSAGE_CHARS - 1] + "…"
    _say(console, f"{failure.count:,} failed in {failure.stage}: {failure.type}: {message}", "red")
    _say(console, f"    for example {failure.example}")


def _places(summary: Summary) -> Iterator[tuple[str, str]]:
    for name, path in summary.exports.items():
        yield ("labels" if name == "yolo" else name), path
    yield "results", f"{summary.run_dir}/parts/*.parquet"


def _say(console: Console, text: str, style: str = "") -> None:
    """One line, never wrapped or cut: a path must stay whole where it is copied from."""
    console.print(Text(printable(text), style=style), soft_wrap=True)
