"""`attach`: follow a farm that is at work. Runs in the following program, on the same machine; never writes."""

from __future__ import annotations

import os
import time
from pathlib import Path

from farm.errors import NotRunningError
from farm.ipc import shared_memory
from farm.ipc.broadcast_layout import NAME, SUFFIX
from farm.ipc.follower import POLL_S, Follower
from farm.machine.locations import is_url
from farm.storage import folders
from farm.storage.run_names import prefix_of


def attach(run: str | Path, wait_s: float = 0.0) -> Follower:
    """Follow a farm that is at work on this machine, from another process. The farm does not wait for it.

        for batch in farm.attach("runs/mine"):
            print(batch.num_rows)

    `run` is a run directory, or the `name` of a `Farm`. The follower gives pyarrow.RecordBatches in the part schema,
    until the farm ends. It begins with the oldest of the last 8 MiB. `Follower.missed` says what it was too slow for.
    `wait_s`: seconds to wait for a farm to begin. Raises NotRunningError if none is at work under that name.
    """
    deadline_s = time.monotonic() + wait_s
    while True:
        try:
            return _attach(run)
        except NotRunningError:
            if time.monotonic() >= deadline_s:
                raise
        time.sleep(POLL_S)


def _attach(run: str | Path) -> Follower:
    if is_url(str(run)) or Path(run).is_dir():
        folder = folders.folder_of(run)
        prefix, trusted = prefix_of(folder), _trusted(folder)
    elif NAME.fullmatch(str(run)):
        prefix, trusted = f"{run}-", {os.geteuid()}
    else:
        raise NotRunningError(f"{run} is neither a run directory nor the name of a running Farm (see Farm.name)")
    trouble = "no farm is at work there (one on a Ray cluster cannot be followed); what is committed is in its parts"
    for name in shared_memory.leftovers(prefix):
        if not name.endswith(SUFFIX):
            continue
        try:
            follower = Follower.open(shared_memory.SHARED_MEMORY / name, trusted)
        except FileNotFoundError:
            continue  # it ended just now
        except (OSError, ValueError) as error:
            trouble = f"its shared memory cannot be read: {getattr(error, 'strerror', None) or error}"
            continue
        if follower.running:
            return follower
        follower.close()
    raise NotRunningError(f"{run} cannot be followed: {trouble}")


def _trusted(folder: Path) -> set[int]:
    """Whose results are believed to be those of a run directory: this user's, and those of the directory's owner."""
    return {os.geteuid()} if folders.is_remote(folder) else {os.geteuid(), folder.stat().st_uid}
