"""`farm export`: project the parts of a run into another format, whether or not the run is finished."""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR", help="a run directory, finished or not")
    parser.add_argument("--format", default="yolo", help="yolo: labels/, images.txt and data.yaml (default)")
    parser.add_argument(
        "--save-conf", action=argparse.BooleanOptionalAction, default=None, help="a sixth column with the confidence"
    )
    parser.add_argument("--to", metavar="FOLDER", help="where it goes (default: the run directory, if it is on a disk)")


def execute(args: argparse.Namespace) -> int:
    from farm.api import export
    from farm.storage.run_store import RunStore

    report = export(RunStore.view(args.run_dir), args.format, args.save_conf, args.to)
    from farm.report.text import counted

    print(f"{counted(report.files, 'label file')} for {counted(report.images, 'image')} in {report.path}")
    for warning in report.warnings:
        print(f"warning: {warning}")
    return 0
