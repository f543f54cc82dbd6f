"""`farm run`: label images, showing how it goes."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from farm.cli.arguments import add_config, load_config, this_command, this_program
from farm.cli.signals import passed_to

if TYPE_CHECKING:
    from farm.core.summary import Summary
    from farm.engines.base import Hooks


def configure(parser: argparse.ArgumentParser) -> None:
    add_config(parser)


def execute(args: argparse.Namespace) -> int:
    """Run to the end or to the first signal, then print the summary."""
    config = load_config(args)
    from farm.api import run
    from farm.sources import named

    title = f"labelling {named(config.source.path)} into {config.output.dir}"
    return run_under_view(title, lambda hooks: run(config, hooks=hooks, stdin=getattr(sys.stdin, "buffer", None)))


def run_under_view(title: str, work: Callable[[Hooks], Summary]) -> int:
    """Do the work under a live view, with signals passed to it; print its summary. Returns the exit code."""
    from rich.console import Console

    from farm.engines.base import Hooks
    from farm.report.closing import print_summary
    from farm.report.live import open_view

    view = open_view(Console(stderr=True), title)
    with contextlib.ExitStack() as stack:
        stack.enter_context(view)
        signals = stack.enter_context(contextlib.ExitStack())
        hooks = Hooks(
            on_start=lambda running: signals.enter_context(passed_to(running)),
            on_end=signals.close,
            on_snapshot=view.update,
            on_note=view.note,
        )
        summary = work(hooks)
    print_summary(Console(), summary, this_command(), this_program())
    return summary.exit_code
