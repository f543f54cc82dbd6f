"""Children of a daemonic process, such as a DataLoader's worker or one of Celery's prefork pool. Used by the launcher.

multiprocessing refuses them, because it ends a daemonic process without a word to the children of that. Farm's need no
word: they watch their parent themselves (`farm.machine.child`), and none outlives it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from multiprocessing import process as processes
from typing import Any

from farm.machine.forks import undone

DAEMON, AUTHKEY = "daemon", "authkey"  # in what a process knows of itself


@contextlib.contextmanager
def children_allowed() -> Iterator[None]:
    """This process may start children meanwhile, whatever it is, and whoever started it.

    Where it was started by billiard, Celery's own multiprocessing, its key is of a type that no other pickles.
    """
    config: dict[str, Any] = processes.current_process()._config  # type: ignore[attr-defined]
    before = {name: config[name] for name in (DAEMON, AUTHKEY) if name in config}

    def restore() -> None:
        config.pop(DAEMON, None)
        config.update(before)

    with undone(restore):
        config[DAEMON] = False
        if AUTHKEY in before:
            config[AUTHKEY] = processes.AuthenticationString(before[AUTHKEY])  # type: ignore[attr-defined]
        yield
