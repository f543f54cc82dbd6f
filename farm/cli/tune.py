"""`farm tune`: measure plans on a sample of the user's images, and write the fastest as a config."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from farm.cli.arguments import add_config, load_config, positive

if TYPE_CHECKING:
    from rich.table import Table

    from farm.tune import Trial

HEAD = "# Tuned by farm"


def configure(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--write", type=Path, default=Path("tuned.yaml"), metavar="FILE", help="where the winner goes")
    parser.add_argument("--seconds", type=positive, default=120.0, help="time for all trials together (default 120)")


def execute(args: argparse.Namespace) -> int:
    """Print a line per trial as it ends, then the table; write the winner."""
    config = load_config(args)
    import yaml
    from rich.console import Console

    from farm.errors import ConfigError
    from farm.tune import tune

    if args.write.exists() and not args.write.read_text(encoding="utf-8", errors="replace").startswith(HEAD):
        raise ConfigError(f"{args.write} was not written by farm tune and would be lost; give another --write FILE")
    console, progress = Console(soft_wrap=True), Console(stderr=True, soft_wrap=True)
    tuning = tune(
        config,
        args.seconds,
        heard=lambda trial: progress.print(_line(trial), style="dim", highlight=False),
        note=lambda text: progress.print(text, style="dim", markup=False, highlight=False),
    )
    console.print(_table(tuning.trials, tuning.best))
    text = yaml.safe_dump(tuning.config.model_dump(mode="json", exclude_defaults=True), sort_keys=False)
    args.write.write_text(f"{HEAD}: {tuning.best.images_per_s:.1f} images/s on this machine\n{text}", encoding="utf-8")
    console.print(f"written to {args.write}; to label everything with it: farm run {args.write}", markup=False)
    return 0


def _line(trial: Trial) -> str:
    return f"{trial.backend}, {trial.workers} workers: {trial.images_per_s:.1f} images/s {trial.note}".rstrip()


def _table(trials: tuple[Trial, ...], best: Trial) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in ("backend", "workers", "threads", "batch", "decoders", "images/s", "agrees", "MiB", ""):
        table.add_column(title, justify="left" if title in ("backend", "") else "right", no_wrap=True)
    for trial in trials:
        agreement = "" if trial.agreement is None else f"{trial.agreement:.1%}"
        shape = map(str, (trial.workers, trial.threads, trial.batch, trial.decoders))
        table.add_row(
            f"{trial.backend} {trial.precision}{' graphs' if trial.cuda_graphs else ''}",
            *shape,
            f"{trial.images_per_s:.1f}",
            agreement,
            f"{trial.own_bytes / 2**20:,.0f}",
            "best" if trial is best else trial.note,
            style="bold" if trial is best else "",
        )
    return table
