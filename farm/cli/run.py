"""`farm run`: label images, showing how it goes."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

from farm.cli.arguments import add_config, load_config, this_command, this_program

if TYPE_CHECKING:
    from farm.core.summary import Summary
    from farm.engines.base import Hooks, Running

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def configure(parser: argparse.ArgumentParser) -> None:
    add_config(parser)


def execute(args: argparse.Namespace) -> int:
    """Run to the end or to the first signal, then print the summary."""
    config = load_config(args)
    from farm.api import run
    from farm.sources import named

    title = f"labelling {named(config.source.path)} into {config.output.dir}"
    return label(title, lambda hooks: run(config, hooks=hooks, stdin=getattr(sys.stdin, "buffer", None)))


def label(title: str, work: Callable[[Hooks], Summary]) -> int:
    """Do the work under a live view, minding signals; print its summary. Returns the exit code."""
    from rich.console import Console

    from farm.engines.base import Hooks
    from farm.report.closing import print_summary
    from farm.report.live import open_view

    view = open_view(Console(stderr=True), title)
    with contextlib.ExitStack() as stack:
        stack.enter_context(view)
        minding = stack.enter_context(contextlib.ExitStack())
        hooks = Hooks(
            on_start=lambda running: minding.enter_context(_signals(running)),
            on_end=minding.close,
            on_snapshot=view.update,
            on_note=view.note,
        )
        summary = work(hooks)
    print_summary(Console(), summary, this_command(), this_program())
    return summary.exit_code


@contextlib.contextmanager
def _signals(running: Running) -> Iterator[None]:
    """First signal: finish what is in hand and commit. Second: stop now. A closed terminal counts as SIGTERM.

    It counts once: the system says it, and so does the shell.
    """
    closed = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal closed
        if number != signal.SIGHUP:
            running.interrupt(number)
        elif not closed:
            closed = True
            running.interrupt(signal.SIGTERM)

    wanted = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # nohup means it
    before = {number: signal.signal(number, handle) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
