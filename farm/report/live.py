"""The run while it goes on: a bar and a row per worker on a terminal, a plain line every ten seconds elsewhere.

The supervisor calls `update` about ten times a second, and once as a run ends; a view draws at its own interval.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import IO, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from farm.core.summary import Snapshot, WorkerSnapshot
from farm.report.lines import GAP, prose_lines
from farm.report.pace import OVER_S, Pace
from farm.report.tasks import found
from farm.report.text import counted, duration, printable, rate

REDRAW_S = 0.25
PLAIN_S = 10.0
WORKERS_SHOWN = 16
PIN_CHARS = 32
HEADS = ("worker", "pin", "state", "images", "images/s", "restarts")  # of the workers' table
LEFT_OUT = ("pin", "restarts", "images/s")  # where the terminal is narrow, the first first
NOT_WORKING = frozenset({"starting", "restarting", "dead", "stopped"})
STATE_STYLES = {"dead": "red", "restarting": "red", "starting": "yellow", "idle": "dim", "stopped": "dim"}


class View:
    """What both views do: keep the rate of the run; draw when it is time, or when there is a new note."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._drawn_s = float("-inf")
        self._noted = ""
        self.pace = Pace(max(OVER_S, 2 * self.every_s))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        return None

    def update(self, snapshot: Snapshot) -> None:
        """Take note of the run at this moment; show it when it is time."""
        now = self._clock()
        self.pace.note(now, snapshot.done, _working(snapshot))
        news = bool(snapshot.note) and not self._noted
        self._noted = snapshot.note
        if not news and (now - self._drawn_s < self.every_s or not self.wanted(snapshot)):
            return
        self._drawn_s = now
        self.draw(snapshot)

    def left(self, snapshot: Snapshot) -> str:
        """`0:12:30 left`; nothing while that is not known."""
        left_s = self.pace.left_s(snapshot.total, snapshot.progress)
        return "" if left_s is None else f"{duration(left_s)} left"

    def rate(self) -> str:
        """`24.3 images/s`; nothing while that is not known."""
        images_per_s = self.pace.images_per_s
        return "" if images_per_s is None else f"{rate(images_per_s)} images/s"

    def note(self, text: str) -> None:
        """Something that takes long, or was decided, said as a line that stays."""
        raise NotImplementedError(f"{type(self).__name__} says nothing")

    every_s = REDRAW_S

    def wanted(self, snapshot: Snapshot) -> bool:
        return True

    def draw(self, snapshot: Snapshot) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not draw")


class LiveView(View):
    """A view on a terminal, redrawn in place."""

    def __init__(self, console: Console, title: str, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._title = title
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        for line in prose_lines(printable(text), self._live.console.width):
            self._live.console.print(Text(line, style="dim"), soft_wrap=True)

    def draw(self, snapshot: Snapshot) -> None:
        self._live.update(self.render(snapshot), refresh=True)

    def render(self, snapshot: Snapshot) -> RenderableType:
        parts = [Text(printable(self._title), style="bold", no_wrap=True, overflow="ellipsis"), self._bar(snapshot)]
        parts += [self._counts(snapshot), _workers(snapshot.workers, self._live.console.width)]
        if snapshot.note:
            parts.append(Text(printable(snapshot.note), style="yellow", no_wrap=True, overflow="ellipsis"))
        return Group(*parts)

    def _bar(self, snapshot: Snapshot) -> RenderableType:
        """Work that earlier runs did counts as done; the time left knows only this session's rate."""
        done = snapshot.progress
        total = f"/{snapshot.total:,}" if snapshot.total is not None else ""
        cells = [f"{done:,}{total}", self.rate(), self.left(snapshot) or duration(snapshot.elapsed_s)]
        if len("  ".join(cells)) > self._live.console.width:
            del cells[1]
        line = Table.grid(padding=(0, 2), expand=True)
        line.add_column(ratio=1)
        bar = ProgressBar(total=snapshot.total or None, completed=done, pulse=snapshot.total is None)
        shown = [cell for cell in cells if cell]
        for _ in shown:
            line.add_column(justify="right", no_wrap=True)
        line.add_row(bar, *shown)
        return line

    def _counts(self, snapshot: Snapshot) -> Text:
        """One line: what matters least comes last, and is left out where the terminal is narrow."""
        parts = [
            (f"{snapshot.ok:,} labelled", "green"),
            (_failed(snapshot), "red" if snapshot.failed + snapshot.failed_before else "dim"),
            (f"{snapshot.gone:,} gone" if snapshot.gone else "", "dim"),
            (f"{snapshot.skipped:,} done earlier" if snapshot.skipped else "", "dim"),
            (found(snapshot.detections, snapshot.task), "dim"),
            (f"{snapshot.committed:,} committed", "dim"),
        ]
        text = Text(no_wrap=True, overflow="ellipsis")
        for words, style in parts:
            gap = "  " if text and words else ""
            if len(text) + len(gap) + len(words) > self._live.console.width:
                break
            text.append(gap + words, style=style)
        return text


def _workers(workers: tuple[WorkerSnapshot, ...], width: int) -> RenderableType:
    """A row a worker. Where the terminal is narrow, columns are left out before a head is cut."""
    rows = [_row(worker) for worker in workers[:WORKERS_SHOWN]]
    rest = workers[WORKERS_SHOWN:]
    if rest:
        busy = sum(worker.state not in NOT_WORKING for worker in rest)
        sums = (sum(worker.images for worker in rest), sum(worker.images_per_s for worker in rest))
        cells = (f"+{len(rest)}", "", f"{busy} working", f"{sums[0]:,}", rate(sums[1]))
        rows.append([*map(Text, cells), Text(str(sum(worker.restarts for worker in rest)))])
    widths = {name: max(len(name), *map(len, cells)) for name, *cells in zip(HEADS, *rows, strict=True)} if rows else {}
    widths["pin"] = len("pin")  # the only column that gives way
    shown = list(HEADS)
    for name in LEFT_OUT:
        if sum(widths.get(head, 0) + len(GAP) for head in shown) - len(GAP) > width:
            shown.remove(name)
    table = Table(box=None, padding=(0, len(GAP), 0, 0), header_style="dim", pad_edge=False)
    for name in shown:
        words = name in ("pin", "state")
        table.add_column(name, justify="left" if words else "right", max_width=PIN_CHARS, no_wrap=name != "pin")
    for row in rows:
        table.add_row(*(cell for name, cell in zip(HEADS, row, strict=True) if name in shown))
    return table


def _row(worker: WorkerSnapshot) -> list[Text]:
    restarts = Text(str(worker.restarts), style="red" if worker.restarts else "dim")
    state = Text(worker.state, style=STATE_STYLES.get(worker.state, ""))
    pin = Text(worker.pin, no_wrap=True, overflow="ellipsis")
    return [Text(str(worker.worker)), pin, state, Text(f"{worker.images:,}"), Text(rate(worker.images_per_s)), restarts]


class PlainView(View):
    """A view for a file or a log: a line every ten seconds, the first with the first image."""

    every_s = PLAIN_S

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._stream = stream

    def wanted(self, snapshot: Snapshot) -> bool:
        return snapshot.done > 0 or snapshot.elapsed_s >= PLAIN_S

    def note(self, text: str) -> None:
        print(printable(text), file=self._stream, flush=True)

    def draw(self, snapshot: Snapshot) -> None:
        done = snapshot.progress
        share = f"/{snapshot.total:,} ({done / snapshot.total:.1%})" if snapshot.total else ""
        parts = [
            duration(snapshot.elapsed_s),
            f"{done:,}{share}",
            self.rate(),
            _failed(snapshot),
            f"{_working(snapshot)}/{counted(len(snapshot.workers), 'worker')}",
            self.left(snapshot),
            snapshot.note,
        ]
        print("  ".join(part for part in parts if part), file=self._stream, flush=True)


def open_view(console: Console, title: str) -> LiveView | PlainView:
    """The view that fits where the console writes to. A terminal that cannot move its cursor is a log."""
    redrawn = console.is_terminal and not console.is_dumb_terminal
    return LiveView(console, title) if redrawn else PlainView(console.file)


def _working(snapshot: Snapshot) -> int:
    return sum(worker.state not in NOT_WORKING for worker in snapshot.workers)


def _failed(snapshot: Snapshot) -> str:
    """Those of this session and, of what was done earlier, those that had failed then."""
    before = f" + {snapshot.failed_before:,} earlier" if snapshot.failed_before else ""
    return f"{snapshot.failed:,} failed{before}"
