"""Pictures, runs of the fake model that are disturbed as they go, and the rows that must come out of them."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import farm
from farm.api import Hooks
from farm.core.summary import Snapshot, Summary
from farm.ipc.shared_memory import leftovers
from farm.storage.run_names import prefix_of
from farm.storage.run_store import RunStore
from farm.supervisor.supervisor import Supervisor
from tests.support.checkout import ROOT as ROOT

FAKE = "farm.models.fake:make"
WITHOUT_ROOTS_PRIVILEGE = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]  # root may read everything
POISON = 200  # the first pixel's blue value that a faulty model takes offence at


def pictures(folder: Path, count: int, poisoned: tuple[int, ...] = ()) -> Path:
    """`count` small images of different widths; the poisoned ones are marked by their first pixel."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image = np.full((8, 10 + number % 50, 3), POISON if number in poisoned else 7, np.uint8)
        (folder / f"{number:05d}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return folder


def paths(count: int) -> Iterator[str]:
    """Of no files: for a model that reads no pixels."""
    return (f"/nowhere/{number}.jpg" for number in range(count))


def fake(**args: Any) -> dict[str, Any]:
    """The section `model` with the fake model: two boxes an image, and whatever else it is told."""
    return {"factory": FAKE, "args": {"boxes": 2, **args}}


def config(source: Path, run_dir: Path, model: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    """A run with the fake model; enough attempts and restarts that random kills quarantine nothing."""
    values: dict[str, Any] = {
        "source": str(source),
        "model": model if model and "weights" in model else fake(**{"pixels": True, **(model or {})}),
        "output": {"dir": str(run_dir), "exports": []},
        "workers": {"count": 2, "devices": "cpu"},
        "limits": {"attempts": 1000, "max_restarts": 1000, "item_timeout_s": 30},
        "commit": {"images": 16, "seconds": 0.2},
    }
    for name, section in sections.items():
        values[name] = {**values[name], **section}
    return values


def rows(run_dir: Path) -> list[tuple[Any, ...]]:
    """What must be the same in a disturbed and in an undisturbed run. Every row counts: none may be there twice."""
    store = RunStore.view(run_dir)
    found = [row for part in store.parts() for row in _read(part)]
    return sorted(found, key=str)


def _read(part: Path) -> list[tuple[Any, ...]]:
    import pyarrow.parquet as pq

    table = pq.read_table(part, columns=["path", "status", "boxes"]).to_pylist()
    return [(row["path"], row["status"], str(row["boxes"])) for row in table]


class Saboteur:
    """Does something to a child of a running farm, again and again, from the supervisor's own loop."""

    def __init__(self, act: Callable[[Saboteur, Snapshot], None]) -> None:
        self._act = act
        self.supervisor: Supervisor | None = None
        self.kills = 0
        self.random = random.Random(7)

    def run(self, values: dict[str, Any], **hooks: Any) -> Summary:
        return farm.run(values, hooks=Hooks(self._meet, self._look, **hooks))

    def strike(self, role: str, number: int = signal.SIGKILL) -> None:
        assert self.supervisor is not None
        pid = self.supervisor.processes().get(role)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
                self.kills += 1

    def _meet(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor

    def _look(self, snapshot: Snapshot) -> None:
        self._act(self, snapshot)


def start(values: dict[str, Any], folder: Path) -> subprocess.Popen[str]:
    """The same run as a command, in a process group of its own."""
    import yaml

    path = folder / f"config-{time.monotonic_ns()}.yaml"
    path.write_text(yaml.safe_dump(values))
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "farm", "run", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environ, start_new_session=True,
    )  # fmt: skip


def segments(run_dir: Path) -> list[str]:
    """Shared-memory segments of this run that are still there."""
    return leftovers(prefix_of(run_dir))


def group_members(group: int) -> list[int]:
    """Living processes of a process group."""
    members = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == group and fields[0] != "Z":
                    members.append(int(name))
    return members


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll until it holds; False where it never did."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()
