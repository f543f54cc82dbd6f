"""`farm tune`: measure plans on a sample of the user's images, and write the fastest as a config."""

from __future__ import annotations

import argparse
import itertools
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from farm.cli.arguments import add_config, load_config, positive

if TYPE_CHECKING:
    from rich.table import Table

    from farm.config.sections import FarmConfig
    from farm.tune.search import Tuning
    from farm.tune.trials import Trial

HEAD = "# Tuned by farm"
TOO_SHORT = "were too short to try"


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

    _check_writable(args.write)
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
    for text in [*offers(tuning), *_write(args.write, tuning, args.seconds)]:
        for line in prose_lines(text, console.width):
            console.print(line, markup=False, highlight=False)
    return 0


def _check_writable(path: Path) -> None:
    """Before the trials, not after them. Raises ConfigError."""
    from farm.errors import ConfigError
    from farm.machine.working_directory import in_working_directory

    folder = Path(in_working_directory(str(path))).parent
    if not folder.is_dir():
        raise ConfigError(f"--write {path}: the folder {folder} does not exist; make it, or give another FILE")
    if path.is_dir():
        raise ConfigError(f"--write {path} is a folder; name a file in it")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ConfigError(f"--write {path} cannot be written; give another FILE")
    if path.exists() and not path.read_text(encoding="utf-8", errors="replace").startswith(HEAD):
        raise ConfigError(f"{path} was not written by farm tune and would be lost; give another --write FILE")


def _write(path: Path, tuning: Tuning, seconds: float) -> list[str]:
    """Write the winner; what to tell the user. It replaces none that had more time, if its own was too short."""
    import yaml

    from farm.errors import OutputError
    from farm.tune.trials import MORE

    said = []
    if tuning.untried:
        said = [
            f"{seconds:g} s {TOO_SHORT} {', '.join(tuning.untried)}; "
            f"give more, for example --seconds {MORE * seconds:g}"
        ]
        if path.exists() and _seconds_of(path) > seconds:
            return [*said, f"{path} is kept as it was; give another --write FILE to have this winner"]
    config, output = _with_free_output(tuning.config, tuning.best)
    text = yaml.safe_dump(config.model_dump(mode="json", exclude_defaults=True), sort_keys=False)
    head = [f"{HEAD}: {tuning.best.images_per_s:.1f} images/s on this machine", *said, *offers(tuning)]
    try:
        path.write_text("\n# ".join(head) + f"\n{text}", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}; give another --write FILE") from None
    return [*said, *output, f"written to {path}; to label everything with it:", f"farm run {path}"]


def _seconds_of(path: Path) -> float:
    """The time that an earlier winner had; without end where it was enough."""
    text = path.read_text(encoding="utf-8", errors="replace")
    found = re.search(rf"^# (\d[\d.]*(?:e\+\d+)?) s {TOO_SHORT}", text, re.MULTILINE)
    return float(found[1]) if found else math.inf


def _with_free_output(config: FarmConfig, best: Trial) -> tuple[FarmConfig, list[str]]:
    """The config with a run directory that can be labelled into, and what is said of it.

    A run goes on with the backend and the threads that it was begun with.
    """
    from farm.tune.search import begun_with

    folder = config.output.dir
    before = begun_with(folder)
    if not before or before == (best.backend, best.threads):
        return config, []
    free = next(name for name in _names(folder) if begun_with(name) in (None, (best.backend, best.threads)))
    backend, threads = before
    said = f"{folder} was begun with {backend}, threads={threads}, and goes on with nothing else: this goes to {free}"
    return config.model_copy(update={"output": config.output.model_copy(update={"dir": free})}), [said]


def _names(folder: str) -> Iterator[str]:
    yield f"{folder}-tuned"
    for number in itertools.count(2):
        yield f"{folder}-tuned-{number}"


def offers(tuning: Tuning) -> list[str]:
    """What lower precisions would give: the user's to choose, since they move labels."""
    best = tuning.best
    return [
        f"{trial.settings}: {trial.images_per_s:.1f} images/s"
        f"{f' ({trial.images_per_s / best.images_per_s:.1f} x)' if best.images_per_s else ''}, "
        f"{_agreement(trial)}; yours to choose, for a new output"
        for trial in tuning.trials
        if trial.is_offered and trial.images_per_s
    ]


def _agreement(trial: Trial) -> str:
    return "agreement unknown" if trial.agreement is None else f"agrees with torch to {trial.agreement:.1%}"


def _line(trial: Trial) -> str:
    what = f"{trial.backend} {trial.precision}, {trial.workers} workers"
    return f"{what}: {trial.images_per_s:.1f} images/s {trial.note}".rstrip()


def _table(trials: tuple[Trial, ...], best: Trial) -> Table:
    """At most 80 columns wide."""
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
