"""What children inherit of this process, changed for the moment in which one is started."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from multiprocessing import spawn
from typing import Any

from farm.machine.forks import undone


@contextlib.contextmanager
def environment_set(values: Mapping[str, str]) -> Iterator[None]:
    """Children, and the fork server that is started with the first of them, inherit these variables."""
    before = {name: os.environ.get(name) for name in values}

    def restore() -> None:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    with undone(restore):
        os.environ.update(values)
        yield


@contextlib.contextmanager
def no_main() -> Iterator[None]:
    """Children do not run the caller's script again: it may have no `if __name__ == "__main__"`, and they need none.

    Those that other threads start meanwhile, without farm, do.
    """
    prepare, mine = spawn.get_preparation_data, threading.get_ident()

    def without_main(name: str) -> dict[str, Any]:
        data: dict[str, Any] = prepare(name)
        ours = threading.get_ident() == mine
        return {key: value for key, value in data.items() if not (ours and key.startswith("init_main_from"))}

    with undone(lambda: setattr(spawn, "get_preparation_data", prepare)):
        spawn.get_preparation_data = without_main  # type: ignore[assignment]
        yield
