"""Where results go: printed, and with --save kept beside the code with the machine and the date."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil

RESULTS = Path(__file__).parent / "results"
FEATURES = {"avx512f": "AVX-512", "avx512_vnni": "VNNI", "amx_int8": "AMX int8", "amx_bf16": "AMX bf16"}
DATA = Path(os.environ.get("FARM_SHARED_DATA") or Path(__file__).resolve().parents[1].parent / "shared" / "data")


def parser(doc: str) -> argparse.ArgumentParser:
    """An argument parser with what every benchmark takes."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--save", action="store_true", help="keep the result in benchmarks/results/<machine>.md")
    made.add_argument("--data", type=Path, default=DATA, help="folder with coco/ and models/")
    return made


def machine() -> str:
    """The processor and what it offers, for people."""
    memory = psutil.virtual_memory().total / 2**30
    features = f" with {', '.join(_features())}" if _features() else ""
    return f"{_processor()}{features}, {os.cpu_count()} CPUs, {memory:.0f} GiB"


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor()


def _features() -> list[str]:
    """Those that decide how fast int8 and bf16 are."""
    have = _cpuinfo("flags").split()
    return [name for flag, name in FEATURES.items() if flag in have]


def _cpuinfo(field: str) -> str:
    try:
        found = re.search(rf"{field}\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        return ""
    return found[1] if found else ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was measured: by whose name it is kept, a processor's or a GPU's, and a line about it."""

    name: str
    stamp: str


def here() -> Place:
    """This machine, today."""
    return Place(f"{_processor()}-{os.cpu_count()}cpu", stamp())


def stamp() -> str:
    """The date, this machine, and versions."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("ultralytics", "torch", "pyarrow"))
    return f"{datetime.date.today()}, {machine()}, Python {platform.python_version()}, {versions}"


def report(
    title: str, header: list[str], rows: list[list[str]], notes: list[str], save: bool, place: Place | None = None
) -> None:  # fmt: skip
    """Print a Markdown table; with `save` keep it. It was measured here, or at another place."""
    place = place or here()
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    line = lambda row: "| " + " | ".join(str(cell).ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"  # noqa: E731
    table = [line(header), "| " + " | ".join("-" * w for w in widths) + " |", *map(line, rows)]
    text = "\n".join([f"## {title}", "", place.stamp, "", *table, "", *notes, ""])
    print(text)
    if save:
        RESULTS.mkdir(exist_ok=True)
        kept = [section for section in _sections(place) if not section.startswith(f"## {title}\n")]
        _file("md", place).write_text("\n".join([*kept, text]), encoding="utf-8")


def plot(title: str, column: str) -> Path:
    """A bar for each row of a kept section. Returns the picture's path."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    section = next(section for section in _sections(here()) if section.startswith(f"## {title}\n"))
    lines = section.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    at = cells[0].index(column)
    names, values = [row[0] for row in cells[2:]], [float(row[at].replace(",", "")) for row in cells[2:]]
    colours = ["#1f77b4" if name.startswith("farm") else "#b0b0b0" for name in names]
    figure, axes = pyplot.subplots(figsize=(8, 0.45 * len(names) + 1.4), layout="constrained")
    bars = axes.barh(names, values, color=colours)
    axes.bar_label(bars, fmt="%.1f", padding=4)
    axes.invert_yaxis()
    axes.set(xlabel=column, title=title, xlim=(0, max(values) * 1.12))
    axes.spines[["top", "right"]].set_visible(False)
    figure.text(0.01, -0.02, lines[2], fontsize=7, color="#606060", va="top")
    path = _file("png", here())
    figure.savefig(path, dpi=150, bbox_inches="tight")
    return path


def _file(suffix: str, place: Place) -> Path:
    name = re.sub(r"\(r\)|\(tm\)|[^a-z0-9]+", "-", place.name.lower())
    return RESULTS / f"{re.sub(r'-+', '-', name)}.{suffix}"


def _sections(place: Place) -> list[str]:
    """What is kept, a text a section."""
    path = _file("md", place)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [f"## {section.rstrip()}\n" for section in text.split("## ")[1:]]
