"""The end of a run, printed: what was done, where it is, what failed and why, how to go on."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from farm.report.text import duration, printable, rate
from farm.summary import Summary

MESSAGE_CHARS = 100


def print_summary(console: Console, summary: Summary, continue_with: str) -> None:
    """`continue_with`: the command that goes on with an interrupted run."""
    console.print(_table(summary))
    if summary.failures:
        console.print(_failures(summary))
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
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
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


def _failures(summary: Summary) -> Table:
    """Each kind of failure with one example; nothing here is interpreted as markup."""
    table = Table(title="failed", title_justify="left", title_style="red", box=None, padding=(0, 2, 0, 0))
    table.add_column("images", justify="right")
    for name in ("stage", "why", "for example"):
        table.add_column(name, overflow="fold")
    for failure in summary.failures:
        why = Text(f"{failure.type}: {printable(failure.message)[:MESSAGE_CHARS]}")
        table.add_row(f"{failure.count:,}", failure.stage, why, Text(printable(failure.example)))
    return table


def _places(summary: Summary) -> Iterator[tuple[str, str]]:
    for name, path in summary.exports.items():
        yield ("labels" if name == "yolo" else name), path
    yield "results", f"{summary.run_dir}/parts/*.parquet"


def _say(console: Console, text: str, style: str = "") -> None:
    """One line, never wrapped or cut: a path must stay whole where it is copied from."""
    console.print(Text(printable(text), style=style), soft_wrap=True)
