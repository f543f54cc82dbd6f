"""farm on a GPU beside `YOLO.predict` at its best, and what limits both. For a person with a GPU; about eight minutes.

    python -m benchmarks.gpu --json gpu.jsonl --save

Steps, in the order of importance, or as --steps names them:

{steps}

No step begins after --limit-s, and what a step has measured until then is kept. Settings are not crossed: the first of
--precisions, --graphs and so on is the base, and each other one is tried with the rest of the base.

images/s are of the steady part of a run: from half of the images on, until workers run dry. The photographs are listed
under as many names as there are images: all of them come from the system's file cache, none from a disk.

`--device cpu` tries the same steps without a GPU, on a handful of images: its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.gpu.alone import alone
from benchmarks.gpu.inputs import FULL, TINY, Inputs, Sizes, cpus, links
from benchmarks.gpu.journal import Journal, read
from benchmarks.gpu.outcome import HEADER, Outcome
from benchmarks.gpu.steps import STEPS, installed, machine, units
from benchmarks.record import Place, parser, report, stamp
from farm.machine.inspection import inspect_machine

BEYOND_S = 20.0  # the limit, that a step which has begun may take
TINY_BATCHES = [2, 4]  # to try the steps
ENVIRONMENT = {"YOLO_VERBOSE": "false", "YOLO_AUTOINSTALL": "false"}


def arguments() -> argparse.ArgumentParser:
    steps = "\n".join(f"    {name:<14} {what}" for name, what in STEPS.items())
    made = parser((__doc__ or "").replace("{steps}", steps))
    made.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: only to try the steps")
    made.add_argument("--limit-s", type=float, default=440.0, help="no step begins later")
    made.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    made.add_argument("--json", type=Path, help="a file for a JSON line a measurement, written as they come")
    made.add_argument("--from-json", type=Path, help="measure nothing: the table of such a file, of a killed run too")
    made.add_argument("--photographs", type=Path, help="folder of JPEGs; default: coco/images in --data")
    made.add_argument("--weights", type=Path, help="a detection model; default: models/yolo11n-coco.pt in --data")
    made.add_argument("--backends", nargs="+", choices=("torch", "tensorrt"), default=["torch"])
    made.add_argument("--precisions", nargs="+", choices=("fp16", "fp32"), default=["fp16", "fp32"])
    made.add_argument("--graphs", nargs="+", choices=("auto", "on", "off"), default=["auto", "off"])
    made.add_argument("--decode", nargs="+", choices=("exact", "reduced", "device"), default=["exact", "device"])
    made.add_argument("--batches", type=int, nargs="+", default=[32, 64])
    made.add_argument("--processes", type=int, nargs="+", default=[2, 1, 3], help="workers a device")
    made.add_argument("--images", type=int, default=FULL.farm, help="of a run of farm")
    made.add_argument("--seconds", type=float, default=FULL.farm_s, help="after which a run of farm is stopped")
    made.add_argument("--predict-images", type=int, default=FULL.predict, help="of a run of YOLO.predict")
    made.add_argument("--smoke-images", type=int, default=FULL.smoke, help="that are compared with the CPU's")
    made.add_argument("--task-images", type=int, default=FULL.tasks, help="the same, for every other task")
    made.add_argument("--kill-images", type=int, default=FULL.kill, help="of the run that is disturbed")
    return made


def choices_of(args: argparse.Namespace) -> dict[str, Any]:
    """By field of a Setting. Precision first, decoding next: what is changed first is measured first."""
    return {
        "backend": installed(args.backends) or ["torch"],
        "precision": args.precisions if args.device == "cuda" else ["fp32"],
        "decode": args.decode if args.device == "cuda" else ["exact"],
        "processes": args.processes,
        "batch": args.batches if args.device == "cuda" else TINY_BATCHES[: len(args.batches)],
        "graphs": args.graphs,
    }


def sizes_of(args: argparse.Namespace) -> Sizes:
    asked = {"smoke": args.smoke_images, "predict": args.predict_images, "farm": args.images, "kill": args.kill_images}
    asked["tasks"] = args.task_images
    if args.device == "cuda":
        return replace(FULL, **asked, farm_s=args.seconds)
    return replace(TINY, **{name: min(count, getattr(TINY, name)) for name, count in asked.items()})


def inputs_of(args: argparse.Namespace, devices: list[str], folder: str) -> Inputs:
    """Raises SystemExit where there are no photographs, or no weights."""
    sizes = sizes_of(args)
    place = args.photographs or args.data / "coco" / "images"
    photographs = sorted(str(path) for path in place.glob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    weights = args.weights or args.data / "models" / "yolo11n-coco.pt"
    if not photographs or not weights.exists():
        missing = f"{weights} is not there" if photographs else f"no *.jpg in {place}"
        raise SystemExit(f"{missing}; see --data, --photographs and --weights")
    if args.device == "cpu":
        photographs = photographs[: sizes.smoke]
    listed = links(photographs, max(sizes.farm, sizes.predict, sizes.kill), Path(folder) / "images")
    return Inputs(photographs, listed, str(weights.resolve()), devices, folder, sizes)


def measure(args: argparse.Namespace, cards: list[str], journal: Journal) -> None:
    devices = [f"cuda:{number}" for number in range(len(cards))] or ["cpu"]
    folder = tempfile.mkdtemp(prefix="farm-gpu-")
    try:
        inputs = inputs_of(args, devices, folder)
        journal.write("machine", machine(inputs, cards))
        for unit in units(inputs, choices_of(args), args.steps):
            if journal.at_s > args.limit_s:
                journal.write(unit.step, {"error": f"left out: --limit-s {args.limit_s:g} is over"})
                continue
            left_s = min(unit.limit_s, args.limit_s + BEYOND_S - journal.at_s)
            for line in alone(unit.function, unit.args, left_s):
                journal.write(unit.step, line)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def tell(lines: list[dict[str, Any]], save: bool) -> None:
    """The verdict, the table and the goals."""
    outcome = Outcome(lines)
    about = outcome.machine or {"cards": [], "stamp": stamp(), "cpus": cpus(), "images": "none"}
    cards = about["cards"]
    where = f"{len(cards)} × {cards[0]}" if cards else "no GPU: a rehearsal, its numbers mean nothing"
    failed = [f"- failed: {line['step']}: {last_words(line['error'])}" for line in outcome.failed]
    said = [f"- {each}" for each in (*outcome.verdict(), *outcome.goals(), *outcome.details())]
    images = f"{about['images']}, all from the file cache"
    notes = [*said, *failed, "", f"{where}, {about['cpus']} CPUs; {images}; `python -m benchmarks.gpu`"]
    place = Place(cards[0], f"{cards[0]}, {about['stamp']}") if cards else None
    report("GPU", HEADER, outcome.table(), notes, save and bool(cards), place)


def last_words(error: str) -> str:
    """The last line of a traceback."""
    return (error.strip() or "no word of why").splitlines()[-1]


def main() -> None:
    args = arguments().parse_args()
    os.environ.update(ENVIRONMENT)
    if args.from_json:
        tell(read(args.from_json), args.save)
        return
    cards = list(map(str, inspect_machine().cuda_devices)) if args.device == "cuda" else []
    if args.device == "cuda" and not cards:
        raise SystemExit("no CUDA device here (nvidia-smi shows none): nothing to measure")
    journal = Journal(args.json)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # as at a time limit: the table is told
    try:
        measure(args, cards, journal)
    finally:
        if journal.lines:
            tell(journal.lines, args.save)


if __name__ == "__main__":
    main()
