"""`farm retry`: another chance for the images of a run that failed."""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR", help="a run directory with failed images")
    parser.add_argument(
        "--list", dest="prints", action="store_true", help="print them and why each failed, and label nothing"
    )
    parser.epilog = "The config is that of the run's run.json: retry only runs that you trust."


def execute(args: argparse.Namespace) -> int:
    if args.prints:
        return _list(args.run_dir)
    from farm.api import retry
    from farm.cli.run import run_under_view

    return run_under_view(f"retrying the failed images of {args.run_dir}", lambda hooks: retry(args.run_dir, hooks))


def _list(run_dir: str) -> int:
    """A line for each failed image: its path, stage, type and message, with tabs between, to be sorted and counted."""
    from farm.errors import EXIT_DONE
    from farm.report.text import printable
    from farm.storage.run_store import RunStore

    for path, error in RunStore.view(run_dir).history.failures():
        print("\t".join(map(printable, (path, error["stage"], error["type"], error["message"]))))
    return EXIT_DONE
