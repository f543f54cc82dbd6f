"""`farm verify`: recount the promises of a run from its parts."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from farm.verify import Verification


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR", help="a run directory, finished or not")


def execute(args: argparse.Namespace) -> int:
    from farm.errors import EXIT_DONE, EXIT_FATAL
    from farm.report.text import printable
    from farm.verify import verify

    found = verify(args.run_dir)
    for note in found.notes:
        print(f"note: {printable(note)}")
    for problem in found.problems:
        print(f"broken: {printable(problem)}", file=sys.stderr)
    if found.problems:
        return EXIT_FATAL
    print(in_words(found))
    return EXIT_DONE


def in_words(found: Verification) -> str:
    """What a run without problems holds: the whole of its source, or so much of it."""
    gone = f" + {found.gone:,} gone" if found.gone else ""
    counts = f"{found.listed:,} images = {found.ok:,} labelled + {found.failed:,} failed{gone}, each once"
    if found.finished:
        return f"whole: {counts}"
    left = "an unknown number" if found.remaining is None else f"{found.remaining:,}"
    return f"unfinished: so far {counts}; {left} still to do"
