"""Where results go: printed, and with --save kept beside the code with the machine and the date."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

import psutil

RESULTS = Path(__file__).parent / "results"
DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


def parser(doc: str) -> argparse.ArgumentParser:
    """An argument parser with what every benchmark takes."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--save", action="store_true", help="append the result to benchmarks/results/<machine>.md")
    made.add_argument("--data", type=Path, default=DATA, help="folder with coco/ and models/")
    return made


def machine() -> str:
    """The processor and what it offers, for people."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        model = found[1] if found else platform.processor()
    except OSError:
        model = platform.processor()
    memory = psutil.virtual_memory().total / 2**30
    return f"{model}, {os.cpu_count()} CPUs, {memory:.0f} GiB"


def report(title: str, header: list[str], rows: list[list[str]], notes: list[str], save: bool) -> None:
    """Print a Markdown table; with `save` keep it."""
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    line = lambda row: "| " + " | ".join(str(cell).ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"  # noqa: E731
    table = [line(header), "| " + " | ".join("-" * w for w in widths) + " |", *map(line, rows)]
    versions = ", ".join(f"{name} {version(name)}" for name in ("ultralytics", "torch", "pyarrow"))
    stamp = f"{datetime.date.today()}, {machine()}, Python {platform.python_version()}, {versions}"
    text = "\n".join([f"## {title}", "", stamp, "", *table, "", *notes, ""])
    print(text)
    if save:
        RESULTS.mkdir(exist_ok=True)
        name = re.sub(r"[^a-z0-9]+", "-", f"{platform.machine()}-{os.cpu_count()}cpu".lower())
        with open(RESULTS / f"{name}.md", "a", encoding="utf-8") as file:
            file.write(text + "\n")
