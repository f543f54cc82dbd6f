"""`farm check`: validate a config and print what it resolves to on this machine."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from typing import TYPE_CHECKING

from farm.cli.arguments import add_config, load_config

if TYPE_CHECKING:
    from farm.config import FarmConfig


def configure(parser: argparse.ArgumentParser) -> None:
    add_config(parser)


def execute(args: argparse.Namespace) -> int:
    """Everything that a run would check before it starts a process, and the plan."""
    config = load_config(args)
    import yaml
    from rich.console import Console
    from rich.table import Table

    from farm import engines
    from farm.engines import settling

    prepared = engines.load(config.engine).prepare(config, sys.stdin.buffer)
    console = Console(soft_wrap=True)
    resolved = yaml.safe_dump(prepared.config.model_dump(mode="json"), sort_keys=False, default_flow_style=None)
    console.print(resolved, markup=False, highlight=False)
    table = Table("worker", "pin", "device", "threads", "batch", "decoders", title="plan", title_justify="left")
    for place in prepared.placements:
        row = (place.worker, place.pin, place.device, place.threads, place.batch, place.decoders)
        table.add_row(*map(str, row))
    console.print(table)
    console.print(f"backend          {settling.in_words(prepared, _begun_with(config))}", markup=False, highlight=False)
    for name, origin in prepared.origins.items():
        value = getattr(prepared.config.model, name)
        console.print(f"{name:17}{json.dumps(value)}, {origin}", markup=False, highlight=False)
    console.print(f"source root      {prepared.source.root}", markup=False, highlight=False)
    console.print(f"weights digest   {prepared.digest}", markup=False, highlight=False)
    for text in prepared.notes:
        console.print(f"note             {text}", markup=False, highlight=False)
    return 0


def _begun_with(config: FarmConfig) -> str | None:
    """The backend of the work that the run directory holds; None where it holds none, or is not on this machine."""
    from farm.engines.local import BACKEND
    from farm.errors import OutputError
    from farm.storage import is_url
    from farm.store import RunStore

    with contextlib.suppress(OutputError):
        if not is_url(config.output.dir):
            return RunStore.view(config.output.dir).fingerprint().get(BACKEND)
    return None
