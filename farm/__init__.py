"""Farm labels very large image collections with Ultralytics YOLO models, on all the cores and GPUs of a machine.

                     leases (multiprocessing.Queue, one per worker)
          ┌────────────┐ ───────────────▶ ┌──────────┐  results: Arrow IPC bytes
 source ─▶│ supervisor │                  │ worker i │ ─────────────┐ (one channel per worker)
          └────────────┘ ◀─ heartbeats ── └──────────┘              ▼
             ▲   │          (shared memory)                   ┌───────────┐
   batches,  │   └── release slot ──────────────────────────▶ │ collector │──▶ parts/*.parquet
   commits   └──────────────────────────────────────────────  └───────────┘──▶ ring (shared memory)

Where to look. Each line imports only what stands below it; each package's `__init__` lists its modules.

    cli/  demo/  examples/     the command line; the offline demo; programs to copy from
    tune/  verify/  library/   the fastest plan; a run's promises recounted; `Farm`, a farm inside another program
    api/                       `run`, `retry`, `export`: from a config to labels on disk
    exports/  report/          parts as other formats; what a person sees of a run
    engines/                   where workers run: on this machine, or on a Ray cluster; which backend, whether to go on
    cluster/                   what only Ray needs: blocks of items, and the host of each worker
    supervisor/                the process that leases items, and starts, feeds and replaces workers
    worker/  collector/        the processes that label, and the one that receives and commits results
    models/                    what labels an image: YOLO, its backends, converted and shared weights
    images/                    from a path to pixels: decoding, its threads and its memory
    sources/                   lists of images: folders, globs, list files, datasets, standard input
    storage/                   what reaches a disk or a bucket: run directories, parts
    ipc/                       what crosses processes: messages, channels, the ring, shared memory
    core/                      decisions without I/O: leases, restarts, deadlines, placement, schema, counters
    config/                    what can be set
    machine/                   what this machine and this process are like: cores, memory, signals, file names
    version  errors            the version; every error of farm's own, with its exit code
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
