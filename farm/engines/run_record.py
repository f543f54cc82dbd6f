"""run.json: what a run directory says of its run. Written by the engine's process as things become known."""

from __future__ import annotations

import platform
import socket
import time
from typing import Any

from farm.config.sections import PATH_KEYS
from farm.core import continuation
from farm.core.continuation import HISTORY
from farm.core.schema import task_of
from farm.engines.base import Runnable
from farm.engines.fingerprint import fingerprint_of
from farm.machine.filenames import kept, with_names
from farm.storage.run_store import RUN_FILE, RunStore
from farm.version import VERSION


class RunRecord:
    """Keeps run.json true as things become known."""

    def __init__(self, store: RunStore, runnable: Runnable) -> None:
        self._store = store
        prepared, fingerprint = runnable.prepared, fingerprint_of(runnable.prepared, runnable.executable)
        work = _of_work(store)
        date = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        self._data: dict[str, Any] = {
            "created": date,
            "names": {},
            "task": None,
            **work,
            "farm": VERSION,
            "config": with_names(prepared.config.model_dump(mode="json", exclude={"accept"}), PATH_KEYS, kept),
            "fingerprint": fingerprint,
            "source_root": kept(prepared.source.root),
            "host": {"name": socket.gethostname(), "system": platform.platform(), "python": platform.python_version()},
        }
        before = work.get("fingerprint")
        changed = continuation.differences(before, fingerprint) if before else []
        self._data["task"] = self._data["task"] or task_of(store.history.schema())  # rows of earlier sessions have one
        history = work.get(HISTORY, [])
        self._data[HISTORY] = continuation.history_with(history, changed, frozenset(prepared.config.accept), date)

    @property
    def task(self) -> str | None:
        """The task that an earlier session found."""
        return self._data["task"]  # type: ignore[no-any-return]

    @property
    def names(self) -> dict[int, str]:
        return {int(i): name for i, name in self._data["names"].items()}

    def begin(self) -> None:
        self._store.write_json(RUN_FILE, self._data)

    def names_known(self, task: str, names: dict[int, str], kpt_shape: tuple[int, int] | None) -> None:
        """The first worker is ready: what the class ids mean."""
        self._data |= {"task": task, "names": {str(i): name for i, name in names.items()}, "kpt_shape": kpt_shape}
        self.begin()


def _of_work(store: RunStore) -> dict[str, Any]:
    """run.json, if the directory holds any work. A run that ended before it labelled anything binds nobody: the next
    one's model may have another task and other names. Raises DamagedRunError all the same."""
    described = store.describe()
    return described if store.parts() else {}
