"""`farm check`: validate a config and print what it resolves to on this machine."""

from __future__ import annotations

import argparse
import sys

from farm.cli.arguments import add_config, load_config


def configure(parser: argparse.ArgumentParser) -> None:
    add_config(parser)


def execute(args: argparse.Namespace) -> int:
    """Everything that a run would check before it starts a process, and the plan."""
    config = load_config(args)
    import yaml
    from rich.console import Console
    from rich.table import Table

    from farm import engines

    prepared = engines.load(config.engine).prepare(config, sys.stdin.buffer)
    console = Console(soft_wrap=True)
    resolved = yaml.safe_dump(prepared.config.model_dump(mode="json"), sort_keys=False, default_flow_style=None)
    console.print(resolved, markup=False, highlight=False)
    table = Table("worker", "pin", "device", "threads", "batch", "decoders", title="plan", title_justify="left")
    for place in prepared.placements:
        row = (place.worker, place.pin, place.device, place.threads, place.batch, place.decoders)
        table.add_row(*map(str, row))
    console.print(table)
    console.print(f"source root      {prepared.source.root}", markup=False, highlight=False)
    console.print(f"weights digest   {prepared.digest}", markup=False, highlight=False)
    return 0
