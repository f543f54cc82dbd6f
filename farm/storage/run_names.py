"""The name of a run in shared memory: from its directory, by whatever path it is reached."""

from __future__ import annotations

from pathlib import Path

from farm.ipc.shared_memory import PREFIX
from farm.storage import folders


def prefix_of(folder: Path) -> str:
    """How the names of a run directory begin. The directory itself, not its name, is what counts."""
    return f"{PREFIX}{folders.identity(folder)}-"
