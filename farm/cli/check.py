"""`farm check`: validate a config and print what it resolves to on this machine."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from typing import TYPE_CHECKING

from farm.cli.arguments import add_config, load_config

if TYPE_CHECKING:
    from farm.config.sections import FarmConfig
    from farm.engines.local import Prepared
    from farm.storage.run_store import RunStore


def configure(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.set_defaults(prints=True)


def execute(args: argparse.Namespace) -> int:
    """Everything that a run would check before it starts a process, and the plan."""
    config = load_config(args)
    import yaml
    from rich.console import Console

    from farm import engines, exports
    from farm.config.sections import STDIN
    from farm.engines import backend_choice
    from farm.errors import EXIT_DONE, EXIT_USAGE
    from farm.report.lines import table_lines
    from farm.sources.base import in_sight

    exports.refuse_foreign(config.output.dir, config.output.exports)
    prepared = engines.load(config.engine).prepare(config, getattr(sys.stdin, "buffer", None))
    console = Console(soft_wrap=True, markup=False, highlight=False, emoji=False)
    resolved = prepared.config.model_dump(mode="json")
    console.print(yaml.safe_dump(resolved, sort_keys=False, default_flow_style=None, width=sys.maxsize))
    titles = ("worker", "pin", "device", "threads", "batch", "decoders")
    rows = [[str(p.index), *(str(getattr(p, title)) for title in titles[1:])] for p in prepared.placements]
    numbers = ("worker", "threads", "batch", "decoders")
    print(*table_lines(titles, rows, console.width, numbers, gives_way=["pin"]), "", sep="\n")
    console.print(f"backend          {backend_choice.in_words(prepared, _begun_with(config))}")
    for name, origin in prepared.origins.items():
        value = getattr(prepared.config.model, name)
        console.print(f"{name:17}{json.dumps(value)}, {origin}")
    console.print(f"source root      {prepared.source.root}")
    if config.source.path != STDIN:
        console.print(f"images           {in_sight(prepared.source)}")
    console.print(f"weights digest   {prepared.digest}")
    for text in backend_choice.notes(prepared):
        console.print(f"note             {text}")
    refusals, shortage = _refusals(prepared), _shortage(prepared)
    for refusal in refusals:
        console.print(f"a run refuses    {refusal}")
    if shortage:
        console.print(f"not started      {shortage}")
    return EXIT_USAGE if refusals or shortage else EXIT_DONE


def _refusals(prepared: Prepared) -> list[str]:
    """Why a run would not begin in its directory, as far as that shows without writing anything."""
    from farm.engines import backend_choice
    from farm.storage.run_store import RunStore

    begun = _begun(prepared.config)
    found = (backend_choice.refusal(prepared, begun) if begun else "", RunStore.refusal(prepared.config.output.dir))
    return [refusal for refusal in found if refusal]


def _shortage(prepared: Prepared) -> str:
    """Why workers would not start on this machine, if there is something for them to do."""
    from farm.errors import WorkerError
    from farm.machine import shortage

    if prepared.config.engine != "local":
        return ""
    try:
        workers, decoders = len(prepared.placements), prepared.placements[0].decoders
        shortage.check_workers(workers, decoders, prepared.config.workers.kind, begun=False)
    except WorkerError as error:
        return str(error)
    return ""


def _begun_with(config: FarmConfig) -> str | None:
    """The backend of the work that the run directory holds; None where it holds none, or is not on this machine."""
    from farm.core.continuation import BACKEND

    store = _begun(config)
    return store.fingerprint().get(BACKEND) if store else None


def _begun(config: FarmConfig) -> RunStore | None:
    """The run directory, where it is there and on this machine."""
    from farm.errors import OutputError
    from farm.machine.locations import is_url
    from farm.storage.run_store import RunStore

    with contextlib.suppress(OutputError):
        if not is_url(config.output.dir):
            return RunStore.view(config.output.dir)
    return None
