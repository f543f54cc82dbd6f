"""`farm tune`: measure plans on a sample of the user's images, and write the fastest as a config."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from farm.cli.arguments import add_config, load_config, positive

if TYPE_CHECKING:
    from rich.table import Table

    from farm.tune.trials import Trial


def configure(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--write", type=Path, default=Path("tuned.yaml"), metavar="FILE", help="where the winner goes")
    parser.add_argument("--seconds", type=positive, default=180.0, help="time for all trials together (default 180)")


def execute(args: argparse.Namespace) -> int:
    """Print a line per trial as it ends, then the table, then what lower precisions would give; write the winner."""
    config = load_config(args)
    from rich.console import Console

    from farm.report.lines import prose_lines
    from farm.tune.search import tune
    from farm.tune.winner import check_writable, offers, write_winner

    check_writable(args.write)
    console = Console(soft_wrap=True, emoji=False)
    progress = Console(stderr=True, soft_wrap=True, emoji=False)
    said: set[str] = set()

    def note(text: str) -> None:
        """Every trial is a run, and has the same to say of this machine."""
        if text not in said:
            said.add(text)
            for line in prose_lines(text, progress.width):
                progress.print(line, style="dim", markup=False, highlight=False)

    heard = lambda trial: progress.print(_line(trial), style="dim", highlight=False)  # noqa: E731
    tuning = tune(config, args.seconds, heard, note)
    console.print(_table(tuning.trials, tuning.best))
    for text in [*offers(tuning), *write_winner(args.write, tuning, args.seconds)]:
        for line in prose_lines(text, console.width):
            console.print(line, markup=False, highlight=False)
    return 0


def _line(trial: Trial) -> str:
    what = f"{trial.backend} {trial.precision}, {trial.workers} workers"
    return f"{what}: {trial.images_per_s:.1f} images/s {trial.note}".rstrip()


def _table(trials: tuple[Trial, ...], best: Trial) -> Table:
    """The trials as a table, at most 80 columns wide."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for title in ("backend", "workers\n× threads", "batch", "decoders", "images/s", "agrees", "MiB", ""):
        table.add_column(title, justify="left" if title in ("backend", "") else "right", no_wrap=True)
    for trial in trials:
        table.add_row(
            f"{trial.backend} {trial.precision}{' graphs' if trial.cuda_graphs else ''}",
            f"{trial.workers} × {trial.threads}",
            str(trial.batch),
            str(trial.decoders),
            f"{trial.images_per_s:.1f}",
            "" if trial.agreement is None else f"{trial.agreement:.1%}",
            f"{trial.own_bytes / 2**20:,.0f}",
            "best" if trial is best else trial.note or ("offered" if trial.is_offered else ""),
            style="bold" if trial is best else "",
        )
    return table
