"""A task for an orchestrator (Airflow, Dagster, Prefect): safe to retry, since labelling into a directory continues.

In Airflow: `PythonOperator(task_id="label", python_callable=label, op_args=[...], retries=3)`.
"""

from __future__ import annotations

from typing import Any

import farm
from farm.errors import RunLockedError


def label(source: str, model: Any, output: str, max_failed: float = 0.01, **sections: Any) -> dict[str, Any]:
    """Label what is not labelled yet. Returns counts as JSON-able values; raises where a retry or a person is needed.

    A retry while an earlier attempt still runs is refused by the run directory's lock.
    """
    limits = {"max_failed": max_failed, **sections.pop("limits", {})}
    try:
        summary = farm.run({"source": source, "model": model, "output": output, "limits": limits, **sections})
    except RunLockedError as error:
        raise RuntimeError(f"another attempt is still at work: {error}") from error
    if summary.interrupted:
        raise RuntimeError(f"interrupted by {summary.interrupted}; a retry continues")
    return {"images": summary.listed, "ok": summary.ok, "failed": summary.failed, "labels": summary.exports.get("yolo")}
