"""The parts of a run, asked with DuckDB and polars: no export needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def boxes_per_class(run_dir: str | Path) -> list[tuple[int, int, float]]:
    """(class id, boxes, mean confidence), most frequent first. With DuckDB, straight from the files."""
    import duckdb

    return duckdb.execute(f"""
        SELECT box.class_id, count(*) AS boxes, avg(box.confidence)
        FROM (SELECT unnest(boxes) AS box FROM '{Path(run_dir) / "parts" / "*.parquet"}' WHERE status = 'ok')
        GROUP BY 1 ORDER BY boxes DESC, 1
    """).fetchall()


def emptiest(run_dir: str | Path, count: int = 10) -> Any:
    """Images with the fewest boxes, as a polars frame: what to look at first."""
    import polars

    rows = polars.scan_parquet(Path(run_dir) / "parts" / "*.parquet").filter(polars.col("status") == "ok")
    return (
        rows.select("path", polars.col("boxes").list.len().alias("boxes")).sort("boxes", "path").head(count).collect()
    )
