"""`farm retry`: another chance for the images of a run that failed."""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR", help="a run directory with failed images")
    parser.epilog = "The config is that of the run's run.json: retry only runs that you trust."


def execute(args: argparse.Namespace) -> int:
    from farm.api import retry
    from farm.cli.run import label

    return label(f"retrying the failed images of {args.run_dir}", lambda hooks: retry(args.run_dir, hooks))
