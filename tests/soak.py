"""`make soak MINUTES=n`: many workers on few cores, for as long as asked; no healthy one may be replaced.

    python -m tests.soak --workers 64 --minutes 20 [--timeout 2]

Runs over small pictures with the fake model follow each other: every worker shows its work to the supervisor as often
as it can, and gets a core now and then. Nothing dies or hangs, so each restart is a healthy worker that was killed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import farm
from tests.support.harness import config, pictures, segments

PICTURES = 200
LINKS = 100  # to each: twenty thousand images take some hundred workers' seconds


def links(folder: Path) -> Path:
    """As many images as a run of a minute needs, without writing as many files."""
    source = folder / "source"
    for picture in sorted(pictures(folder / "pictures", PICTURES).iterdir()):
        for number in range(LINKS):
            (source / str(number)).mkdir(parents=True, exist_ok=True)
            os.link(picture, source / str(number) / picture.name)
    return source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--timeout", type=float, default=2.0, help="limits.item_timeout_s")
    args = parser.parse_args()
    deadline = time.monotonic() + args.minutes * 60
    runs = images = wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = links(folder)
        limits = {"item_timeout_s": args.timeout, "attempts": 1}
        workers = {"count": args.workers, "batch": 4}
        while time.monotonic() < deadline:
            run_dir = folder / f"run-{runs}"
            summary = farm.run(config(source, run_dir, limits=limits, workers=workers))
            runs, images = runs + 1, images + summary.ok
            wrong += summary.restarts + summary.failed + len(segments(run_dir))
            print(
                f"run {runs}: {summary.ok} ok, {summary.failed} failed, {summary.restarts} restarts, "
                f"{summary.images_per_s:.0f} images/s",
                flush=True,
            )
    print(f"{images} images by {args.workers} workers in {runs} runs: {wrong} restarts, failures and segments left")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
