"""A whole run of farm with one setting, committing to disk: its rate, where its time goes, and how its rows agree."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import farm
from benchmarks.gpu.inputs import Inputs
from benchmarks.gpu.rows import compared, found_in
from benchmarks.gpu.settings import Setting
from benchmarks.gpu.watch import Watch
from farm.api import Hooks

NOTE_CHARACTERS = 300


def config_of(inputs: Inputs, setting: Setting, listed: list[str], folder: str) -> dict[str, Any]:
    """The config of a run in `folder` over these images."""
    source = Path(folder) / "list.txt"
    source.write_text("\n".join(listed))
    workers = {"devices": inputs.farm_devices, "count": setting.processes * len(inputs.devices), "batch": setting.batch}
    return {
        "source": str(source),
        "model": {"weights": inputs.weights, **setting.model},
        "workers": workers,
        "output": {"dir": f"{folder}/run", "exports": []},
    }


def farm_run(inputs: Inputs, setting: Setting) -> Iterator[dict[str, Any]]:
    """One line. Seconds by stage are microseconds an image of all workers together."""
    notes: list[str] = []
    watch = Watch(inputs.sizes.farm_s, inputs.on_cuda)
    hooks = Hooks(on_start=watch.on_start, on_snapshot=watch.look, on_note=notes.append)
    with tempfile.TemporaryDirectory(dir=inputs.folder) as folder:
        summary = farm.run(config_of(inputs, setting, inputs.some(inputs.sizes.farm), folder), hooks=hooks)
        rows = agreement(inputs, folder)
    spent = {stage: round(seconds / max(1, summary.ok) * 1e6) for stage, seconds in summary.stage_s.items()}
    yield {
        **asdict(setting),
        **watch.result(),
        "ok": summary.ok,
        "failed": summary.failed,
        "restarts": summary.restarts,
        "start_s": round(summary.wall_s - summary.labelling_s, 1),
        "stage_us": spent,
        "bottleneck": summary.bottleneck,
        "agreement": round(summary.agreement["matched"], 4) if summary.agreement else None,
        "rows": rows,
        "notes": [note[:NOTE_CHARACTERS] for note in (*notes, *summary.warnings)],
        "devices": [asdict(use) for use in summary.devices],
    }


def agreement(inputs: Inputs, folder: str) -> dict[str, Any] | None:
    """The rows of the first photographs beside what the CPU found in them; None where that was not asked."""
    if not inputs.reference.exists():
        return None
    want = pickle.loads(inputs.reference.read_bytes())
    first = {path: number for number, path in enumerate(inputs.some(len(want)))}
    rows = _rows(Path(folder) / "run", {Path(path).name for path in first})
    both = [(number, Path(path).name) for path, number in first.items() if Path(path).name in rows]
    return compared([name for _, name in both], [want[number] for number, _ in both], [rows[name] for _, name in both])


def _rows(run_dir: Path, wanted: set[str]) -> dict[str, Any]:
    """What the parts of a run found in images, by file name."""
    found = {}
    for part in sorted(run_dir.glob("parts/*.parquet")):
        table = pq.ParquetFile(part).read(columns=["path", "status", "boxes"])
        names = [Path(path).name for path in table.column("path").to_pylist()]
        labelled = [status == "ok" for status in table.column("status").to_pylist()]
        kept = [at for at, (name, ok) in enumerate(zip(names, labelled, strict=True)) if ok and name in wanted]
        some = table.take(pa.array(kept, pa.int64())).combine_chunks()
        objects = found_in("detect", {"boxes": some.column("boxes").combine_chunks()})
        found.update(zip((names[at] for at in kept), objects, strict=True))
    return found
