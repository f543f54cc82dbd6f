"""`python -m farm.demo`: draw pictures, label them with two workers, score and show the result, offline.

Everything goes into one output folder: pictures/ (with their truth), run/ (the run directory) and
contact-sheet.png.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farm.core.marks import LABELS
from farm.demo.draw import write_dataset
from farm.demo.score import map50, predicted_boxes, read_rows, read_truth
from farm.demo.sheet import contact_sheet
from farm.demo.train import IMGSZ, OFFLINE, WEIGHTS
from farm.errors import EXIT_DONE, EXIT_FATAL, FarmError, OutputError

if TYPE_CHECKING:
    from farm.core.summary import Summary

SEED = 20  # neither of the training's
MAP50_MIN = 0.9
SHEET_PICTURES = 20
MARKER = ".farm-demo"  # the demo wipes only folders that it made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit code: 0, 1 where the labels are not good enough, else the run's."""
    arguments = _parse(argv)
    try:
        output = fresh_folder(arguments.output)
        images = write_dataset(output / "pictures", arguments.count, SEED).parent / "images"
        summary = label_pictures(images, output / "run", arguments.workers)
    except FarmError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if summary.exit_code != EXIT_DONE:
        print(f"error: the run labelled {summary.ok} of {summary.listed} pictures", file=sys.stderr)
        return summary.exit_code
    score = show(images, output)
    rate = f"{summary.images_per_s:.1f} images/s"
    print(f"speed   {rate}, {summary.wall_s:.1f} s in all, workers: {arguments.workers}")
    if score < MAP50_MIN:
        print(f"error: mAP50 {score:.3f} is below {MAP50_MIN}", file=sys.stderr)
        return EXIT_FATAL
    return EXIT_DONE


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m farm.demo", description="label drawn pictures and score them")
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="wiped each time (runs/demo)")
    parser.add_argument("--count", type=_positive, default=200, help="pictures to draw (200)")
    parser.add_argument("--workers", type=_positive, default=2, help="workers (2)")
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def fresh_folder(folder: Path) -> Path:
    """The folder, emptied. Raises OutputError where it holds files that the demo did not write."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; give another --output")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / MARKER).exists():
            raise OutputError(f"{folder} holds files that the demo did not write; give another --output")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()
    return folder


def label_pictures(images: Path, run_dir: Path, workers: int) -> Summary:
    """Label the pictures through farm's public interface."""
    import farm

    config: dict[str, Any] = {
        "source": str(images),
        "model": {"weights": str(WEIGHTS), "imgsz": IMGSZ},
        "workers": {"count": workers},
        "output": {"dir": str(run_dir), "exports": ["yolo"]},
    }
    summary: Summary = farm.run(config)
    return summary


def show(images: Path, output: Path) -> float:
    """Score the run, write its contact sheet, print where everything is, and return the mAP50."""
    rows = read_rows(output / "run")
    score = map50(read_truth(images, images.parent / "labels"), predicted_boxes(rows))
    step = max(1, len(rows) // SHEET_PICTURES)  # from all sub-folders
    sheet = contact_sheet(rows[::step], images, output / "contact-sheet.png", limit=SHEET_PICTURES)
    print(f"labels  {output / 'run' / LABELS}")
    print(f"sheet   {sheet}")
    print(f"mAP50   {score:.3f} of {len(rows)} pictures, against what was drawn")
    return score


if __name__ == "__main__":
    os.environ.update(OFFLINE)  # before ultralytics is imported: it reads them then
    sys.exit(main())
