"""`farm verify`: recount the promises of a run from its parts."""

from __future__ import annotations

import argparse
import sys


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
    print(f"whole: {found.listed:,} images = {found.ok:,} labelled + {found.failed:,} failed, each once")
    return EXIT_DONE
