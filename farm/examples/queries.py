"""The parts of a run, asked with DuckDB and polars: no export needed.

An image that was labelled again, or deleted since, has an older row too. The row in the last part by name counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def boxes_per_class(run_dir: str | Path) -> list[tuple[int, int, float]]:
    """(class id, boxes, mean confidence), most frequent first. With DuckDB, straight from the files."""
    import duckdb

    return duckdb.execute(f"""
        WITH newest AS (
            SELECT status, boxes FROM read_parquet('{Path(run_dir) / "parts" / "*.parquet"}', filename = true)
            QUALIFY row_number() OVER (PARTITION BY path ORDER BY filename DESC) = 1
        )
        SELECT box.class_id, count(*) AS boxes, avg(box.confidence)
        FROM (SELECT unnest(boxes) AS box FROM newest WHERE status = 'ok')
        GROUP BY 1 ORDER BY boxes DESC, 1
    """).fetchall()


def emptiest(run_dir: str | Path, count: int = 10) -> Any:
    """Images with the fewest boxes, as a polars frame: what to look at first."""
    import polars

    rows = polars.scan_parquet(Path(run_dir) / "parts" / "*.parquet", include_file_paths="part")
    newest = rows.sort("part").unique("path", keep="last").filter(polars.col("status") == "ok")
    boxes = polars.col("boxes").list.len().alias("boxes")
    return newest.select("path", boxes).sort("boxes", "path").head(count).collect()
