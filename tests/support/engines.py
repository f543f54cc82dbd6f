"""What the tests of engines share: a run with the fake model, and the rows that must not depend on the engine."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from farm.models.fake import FakeModel
from farm.storage import folders
from farm.storage.parts import PART_NAME
from farm.storage.run_store import RunStore
from farm.verify import verify
from tests.support.harness import fake, segments, wait_for

COLUMNS = ("path", "status", "error", "width", "height", "attempts", "boxes")


def config(
    source: Path, run_dir: Path | str, engine: str = "ray", model: dict[str, Any] | None = None, **sections: Any
) -> dict[str, Any]:
    values = {
        "source": str(source),
        "model": fake(**{"boxes": 3, "pixels": True, **(model or {})}),
        "output": {"dir": str(run_dir), "exports": []},
        "workers": {"count": 2, "devices": "cpu"},
        "engine": engine,
    }
    return values | sections


def rows(run_dir: Path | str) -> list[list[Any]]:
    """What must be equal in all engines; every row of every part."""
    read = [row for batch in RunStore.view(run_dir).history.batches() for row in batch.to_pylist()]
    assert len({row["key"] for row in read}) == len(read)
    return sorted(([row[name] for name in COLUMNS] for row in read), key=lambda row: row[0])


def sound(run_dir: Path | str) -> list[list[Any]]:
    """The rows of a run directory that is as it must be, with nothing left of its processes."""
    folder = folders.folder_of(run_dir)
    assert verify(run_dir).problems == ()
    assert all(PART_NAME.match(name) for name in folders.names_in(folder / "parts"))
    assert not folders.is_there(folder / "blocks")
    assert wait_for(lambda: not segments(folder), 15)  # in a borrowed Ray actors end by and by
    return rows(run_dir)


def one_broken(flag: str, **options: Any) -> FakeModel:
    """A factory whose model loads everywhere but on one actor: the first that comes, whose fork server `flag` names."""
    mine = str(os.getppid())
    with contextlib.suppress(FileExistsError), open(flag, "x") as file:
        file.write(mine)
    wait_for(lambda: Path(flag).read_text() != "", 30)
    return FakeModel(fail_init="the device is on fire" if Path(flag).read_text() == mine else "", **options)
