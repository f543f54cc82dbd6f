"""A FastAPI service that labels folders in the background: POST /jobs, GET /jobs/{id}.

    uvicorn farm.examples.service:app

A job survives the service: posting it again continues in the same run directory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

from fastapi import BackgroundTasks, FastAPI, HTTPException

import farm

app = FastAPI(title="Farm")
jobs: dict[str, dict[str, Any]] = {}


def work(job: str, config: dict[str, Any]) -> None:
    """In a thread of the service; the farm has processes of its own."""
    try:
        summary = farm.run(config)
        jobs[job] = {"state": "done", "ok": summary.ok, "failed": summary.failed, "labels": summary.exports.get("yolo")}
    except Exception as error:  # of any kind: who asks for the job must not be told "running" for ever
        jobs[job] = {"state": "failed", "error": str(error)}


@app.post("/jobs", status_code=202)
def post(source: str, model: str, output: str, tasks: BackgroundTasks) -> dict[str, str]:
    """Begin to label `source` into `output`."""
    if not Path(source).exists():
        raise HTTPException(422, f"{source} does not exist")
    job = uuid4().hex
    jobs[job] = {"state": "running"}
    tasks.add_task(work, job, {"source": source, "model": model, "output": output})
    return {"job": job}


@app.get("/jobs/{job}")
def get(job: str) -> dict[str, Any]:
    """How it goes."""
    if job not in jobs:
        raise HTTPException(404, f"no job {job}")
    return jobs[job]
