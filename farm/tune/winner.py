"""The winner of a tuning as a config file, and what the user is told of it."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from farm.config.sections import FarmConfig
from farm.core.continuation import BACKEND, THREADS
from farm.errors import ConfigError, FarmError, OutputError
from farm.machine.working_directory import in_working_directory
from farm.storage.atomic_write import write_whole
from farm.storage.run_store import RunStore
from farm.tune.contest import Tuning
from farm.tune.trials import MORE, Trial

HEAD = "# Tuned by farm"
TOO_SHORT = "were too short to try"


def check_writable(path: Path) -> None:
    """Raise ConfigError where it cannot be written: before the trials, not after them."""
    folder = Path(in_working_directory(str(path))).parent
    if not folder.is_dir():
        raise ConfigError(f"--write {path}: the folder {folder} does not exist; make it, or give another FILE")
    if path.is_dir():
        raise ConfigError(f"--write {path} is a folder; name a file in it")
    target = _target(path)
    if not os.access(target.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise ConfigError(f"--write {path} cannot be written; give another FILE")
    if path.exists() and not path.read_text(encoding="utf-8", errors="replace").startswith(HEAD):
        raise ConfigError(f"{path} was not written by farm tune and would be lost; give another --write FILE")


def write_winner(path: Path, tuning: Tuning, seconds: float) -> list[str]:
    """Write the winner; what to tell the user. It replaces none that had more time, if its own was too short."""
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
        write_whole(_target(path), ("\n# ".join(head) + f"\n{text}").encode())
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}; give another --write FILE") from None
    return [*said, *output, f"written to {path}; to label everything with it:", f"farm run {path}"]


def _target(path: Path) -> Path:
    """The file to replace: a link stays a link."""
    return Path(os.path.realpath(in_working_directory(str(path))))


def _seconds_of(path: Path) -> float:
    """The time that an earlier winner had; without end where it was enough."""
    text = path.read_text(encoding="utf-8", errors="replace")
    found = re.search(rf"^# (\d[\d.]*(?:e\+\d+)?) s {TOO_SHORT}", text, re.MULTILINE)
    return float(found[1]) if found else math.inf


def _with_free_output(config: FarmConfig, best: Trial) -> tuple[FarmConfig, list[str]]:
    """The config with a run directory that can be labelled into, and what is said of it.

    A run goes on with the backend and the threads that it was begun with.
    """
    folder = config.output.dir
    before = _begun_with(folder)
    if not before or before == (best.backend, best.threads):
        return config, []
    free = next(name for name in _names(folder) if _begun_with(name) in (None, (best.backend, best.threads)))
    backend, threads = before
    said = f"{folder} was begun with {backend}, threads={threads}, and goes on with nothing else: this goes to {free}"
    return config.model_copy(update={"output": config.output.model_copy(update={"dir": free})}), [said]


def _begun_with(folder: str) -> tuple[str, int] | None:
    """Backend and threads of the work that a run directory holds; None where there is none, or none can be read."""
    with contextlib.suppress(FarmError, OSError):
        found = RunStore.view(folder).fingerprint()
        if found:
            return found.get(BACKEND, ""), found.get(THREADS, 0)
    return None


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
