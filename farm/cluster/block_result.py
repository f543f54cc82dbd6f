"""What became of a block: made by the actor that labelled it, counted by the driver. It holds no row that is ok."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from farm.core.schema import STATUS_OK, to_ipc
from farm.core.summary import WorkerStart
from farm.errors import FarmError

COUNTED = ["status", "boxes", "error", "path"]  # columns that are read to count rows


@dataclass(frozen=True, slots=True)
class BlockResult:
    """What became of a block.

    `failed`: rows that are not ok as an Arrow stream (columns COUNTED), empty for none. `index`, `host`: the worker
    that labelled it, and where that is. `items` is 0 where the block was left alone: because the run is being
    stopped, or for what `error` says.
    """

    number: int
    items: int = 0
    ok: int = 0
    detections: int = 0
    failed: bytes = b""
    task: str = ""
    names: dict[int, str] | None = None
    kpt_shape: tuple[int, int] | None = None
    took_s: float = 0.0
    index: int = 0
    host: str = ""
    restarts: int = 0
    stage_s: dict[str, float] | None = None
    starts: tuple[WorkerStart, ...] = ()
    error: FarmError | None = None


def counted(result: BlockResult, rows: Sequence[pa.RecordBatch]) -> BlockResult:
    """The result with counts of these rows."""
    table = pa.Table.from_batches(rows).select(COUNTED)
    failed = table.filter(pc.not_equal(table["status"], STATUS_OK)).combine_chunks()
    return replace(
        result,
        ok=pc.sum(pc.equal(table["status"], STATUS_OK)).as_py() or 0,
        detections=pc.sum(pc.list_value_length(table["boxes"])).as_py() or 0,
        failed=to_ipc(failed.to_batches()[0]).to_pybytes() if failed.num_rows else b"",
    )
