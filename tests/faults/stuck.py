"""Models for tests, whose processes do not end as they should."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from farm.models.fake import FakeModel

HELD_S = 600.0


def forking(pids: str, **args: Any) -> FakeModel:
    """Forks a process at its start that holds all its descriptors open, and leaves its id in the folder `pids`."""
    child = os.fork()
    if child == 0:
        time.sleep(HELD_S)
        os._exit(0)
    (Path(pids) / str(child)).touch()
    return FakeModel(**args)
