"""Farm labels very large image collections with Ultralytics YOLO models, on all the cores and GPUs of a machine.

                     leases (multiprocessing.Queue, one per worker)
          ┌────────────┐ ───────────────▶ ┌──────────┐  results: Arrow IPC bytes
 source ─▶│ supervisor │                  │ worker i │ ─────────────┐ (one channel per worker)
          └────────────┘ ◀─ heartbeats ── └──────────┘              ▼
             ▲   │          (shared memory)                   ┌───────────┐
   batches,  │   └── release slot ──────────────────────────▶ │ collector │──▶ parts/*.parquet
   commits   └──────────────────────────────────────────────  └───────────┘──▶ ring (shared memory)

Where to look:

    errors schema messages summary    what is raised, stored, sent and reported
    config                            what can be set; config_file, config_types, config_schema, misspelt beside it
    factories version                 where the module of a factory lies; the version of farm
    sources/ decoding models/ rows    images in, predictions out, as rows
    placement leases restarts keys    decisions, without I/O
    allotment cgroups shortage        what this process may use, and what is said where that is too little
    segments channel ring heartbeat   what crosses processes; run_memory makes what a run needs of it
    store storage                     what reaches a disk or a bucket, and how
    broadcast                         copies of batches in shared memory for other programs: `attach`
    worker collector supervisor       one process each; lister, roster, care, watch and tally serve the supervisor
    threads                           workers and the collector in threads of one process
    endings fork_server               what ended a child, in words; a fork server that survives a refused fork
    decoders allowance outbox         a worker's decoding threads, the memory for their images, its results
    library streams results           `Farm`: a farm inside another program, the order and form of what it gives
    spool refusals                    items that are no files, and what is no image
    forks daemonic interrupts         programs that fork, that are daemonic, that are interrupted
    tune                              short runs that find the fastest plan
    driver labeller keeper            a run on a cluster: who hands out blocks, and who labels one; blocks, suspects
    engines/ api exports/ report/ cli from a config to labels on disk and words on a terminal
"""

from typing import TYPE_CHECKING, Any

from farm.version import VERSION

if TYPE_CHECKING:
    from farm.api import run as run
    from farm.config.sections import FarmConfig as FarmConfig
    from farm.core.summary import Summary as Summary
    from farm.errors import FarmError as FarmError
    from farm.library.attach import attach as attach
    from farm.library.farm import Farm as Farm
    from farm.library.results import ImageError as ImageError
    from farm.library.results import ImageResult as ImageResult

__version__ = VERSION
__all__ = ["Farm", "FarmConfig", "FarmError", "ImageError", "ImageResult", "Summary", "__version__", "attach", "run"]

_HOMES = {
    "Farm": "farm.library.farm",
    "FarmConfig": "farm.config.sections",
    "FarmError": "farm.errors",
    "ImageError": "farm.library.results",
    "ImageResult": "farm.library.results",
    "Summary": "farm.core.summary",
    "attach": "farm.library.attach",
    "run": "farm.api",
}


def __getattr__(name: str) -> Any:
    """Public names are imported when they are used: `farm --help` must not wait for pyarrow."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'farm' has no attribute {name!r}; it has {', '.join(__all__)}")
