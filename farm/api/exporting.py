"""A run's parts, projected into other formats: what a run does at its end, and `farm export` at any time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from farm import exports
from farm.core.run_file import keypoint_shape_of, output_of
from farm.core.schema import names_of, task_of
from farm.errors import OutputError
from farm.exports.base import ExportReport, ExportRequest
from farm.machine.filenames import here
from farm.storage import folders
from farm.storage.run_store import RunStore


def export_all(store: RunStore, formats: Sequence[str]) -> dict[str, ExportReport]:
    """Project the committed parts into each of the formats."""
    return {name: export(store, name, anew=False) for name in formats} if store.parts() else {}


def export(
    store: RunStore, name: str, save_conf: bool | None = None, to: str | Path | None = None, anew: bool = True
) -> ExportReport:
    """Project the committed parts into one format, in the run directory, or in the folder `to`.

    Without `anew` what an earlier export has written and is still there as it was is not written again. `save_conf`
    defaults to what the run was configured with. Raises OutputError where the folder cannot be written.
    """
    write = exports.load(name)
    if to is None and folders.is_remote(store.path):
        raise OutputError(f"{store.path} is no folder of this machine; say where the export goes: --to FOLDER")
    folder = folders.folder_of(to) if to is not None else store.path
    if folders.is_remote(folder):
        raise OutputError(f"{to}: exports are written to a folder of this machine; copy it afterwards")
    try:
        folders.make_folder(folder)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror}; choose another folder") from None
    described = store.describe()
    output, schema = output_of(described), store.history.schema()
    request = ExportRequest(
        folder=folder,
        source_root=here(described.get("source_root") or "/"),
        task=described.get("task") or task_of(schema) or "detect",
        names=names_of(schema),
        save_conf=bool(output.get("save_conf")) if save_conf is None else save_conf,
        clip=bool(output.get("clip")),
        kpt_shape=keypoint_shape_of(described),
        parts=None if folders.is_remote(store.path) else store.stamps(),
        anew=anew,
    )
    return write(request, store.history.batches)
