"""`farm check`: validate a config and print what it resolves to on this machine."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from farm.cli.arguments import add_config, load_config

if TYPE_CHECKING:
    from rich.console import Console

    from farm.config.sections import FarmConfig
    from farm.engines.base import Prepared
    from farm.storage.run_store import RunStore


def configure(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.set_defaults(prints=True)


def execute(args: argparse.Namespace) -> int:
    """Everything that a run would check before it starts a process, and the plan."""
    config = load_config(args)
    from rich.console import Console

    from farm import engines, exports
    from farm.errors import EXIT_DONE, EXIT_USAGE

    exports.refuse_foreign(config.output.dir, config.output.exports)
    prepared = engines.load(config.engine).prepare(config, getattr(sys.stdin, "buffer", None))
    console = Console(soft_wrap=True, markup=False, highlight=False, emoji=False)
    _print_config(console, prepared)
    _print_workers(console, prepared)
    for name, text in _facts(prepared, config):
        console.print(f"{name:17}{text}")
    obstacles = [*_refusals(prepared), *_shortages(prepared)]
    for name, text in obstacles:
        console.print(f"{name:17}{text}")
    return EXIT_USAGE if obstacles else EXIT_DONE


def _print_config(console: Console, prepared: Prepared) -> None:
    """The config as it is resolved, in YAML."""
    import yaml

    resolved = prepared.config.model_dump(mode="json")
    console.print(yaml.safe_dump(resolved, sort_keys=False, default_flow_style=None, width=sys.maxsize))


def _print_workers(console: Console, prepared: Prepared) -> None:
    """A line a worker: where it runs, and with what."""
    from farm.report.lines import table_lines

    titles = ("worker", "pin", "device", "threads", "batch", "decoders")
    rows = [[str(p.index), *(str(getattr(p, title)) for title in titles[1:])] for p in prepared.placements]
    numbers = ("worker", "threads", "batch", "decoders")
    print(*table_lines(titles, rows, console.width, numbers, gives_way=["pin"]), "", sep="\n")


def _facts(prepared: Prepared, config: FarmConfig) -> Iterator[tuple[str, str]]:
    """What else is known before a run, by name."""
    from farm.config.sections import STDIN
    from farm.engines import backend_choice, known_backend
    from farm.sources.base import in_sight

    yield "backend", known_backend.in_words(prepared, _begun_with(config))
    for name, origin in prepared.origins.items():
        yield name, f"{json.dumps(getattr(prepared.config.model, name))}, {origin}"
    yield "source root", prepared.source.root
    if config.source.path != STDIN:
        yield "images", in_sight(prepared.source)
    yield "weights digest", prepared.digest
    for text in backend_choice.notes(prepared):
        yield "note", text


def _refusals(prepared: Prepared) -> Iterator[tuple[str, str]]:
    """Why a run would not begin in its directory, as far as that shows without writing anything."""
    from farm.engines import continuing
    from farm.storage.run_store import RunStore

    begun = _begun(prepared.config)
    found = (continuing.refusal(prepared, begun) if begun else "", RunStore.refusal(prepared.config.output.dir))
    yield from (("a run refuses", refusal) for refusal in found if refusal)


def _shortages(prepared: Prepared) -> Iterator[tuple[str, str]]:
    """Why workers would not start on this machine, if there is something for them to do."""
    from farm.engines.base import LOCAL
    from farm.errors import WorkerError
    from farm.machine import shortage

    if prepared.config.engine != LOCAL:
        return
    try:
        workers, decoders = len(prepared.placements), prepared.placements[0].decoders
        shortage.check_workers(workers, decoders, prepared.config.workers.kind, begun=False)
    except WorkerError as error:
        yield "not started", str(error)


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
