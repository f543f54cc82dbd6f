"""From a runnable run to one that is at work: the job that workers are started for, and the call that runs it.

Runs in the calling process.
"""

from __future__ import annotations

from dataclasses import replace

from farm.config.sections import FarmConfig
from farm.core.job import Job, NamesKnown, Outcome
from farm.core.placement import Placement
from farm.engines.base import Hooks, Prepared, Runnable, Running
from farm.engines.run_record import RunRecord
from farm.machine import cuda_devices
from farm.models.yolo.settings import environment

SHAPE_GROUP = 8  # images of one shape, one after the other


def run_to_end(running: Running, record: RunRecord, hooks: Hooks) -> Outcome:
    """Write run.json and run to the end, between the caller's `on_start` and `on_end`."""
    hooks.on_start(running)
    try:
        record.begin()
        return running.run()
    finally:
        hooks.on_end()


def job_of(
    runnable: Runnable,
    task: str | None,
    names: dict[int, str],
    names_known: NamesKnown,
    keep: bool = True,
) -> Job:
    """What the supervisor, or the driver of a cluster, is told of a run. `keep`: write parts."""
    prepared = runnable.prepared
    return Job(
        config=_as_loaded(runnable),
        placements=_grouped(runnable),
        root=prepared.source.root,
        weights_digest=prepared.digest,
        environment=_environment_of(prepared),
        task=task,
        names=names,
        names_known=names_known,
        keep=keep,
        loaded_digest=runnable.executable.digest or prepared.digest,
        elsewhere=prepared.source.elsewhere,
    )


def _grouped(runnable: Runnable) -> tuple[Placement, ...]:
    """OpenVINO gets images of one shape together: each change of shape costs 5 ms with yolo11n."""
    placements = runnable.prepared.placements
    if runnable.executable.backend != "openvino":
        return placements
    return tuple(replace(placement, group=SHAPE_GROUP) for placement in placements)


def _as_loaded(runnable: Runnable) -> FarmConfig:
    """The config as workers get it: with the weights that the backend loads."""
    config = runnable.prepared.config
    if config.model.weights is None:
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"weights": runnable.executable.weights})})


def _environment_of(prepared: Prepared) -> dict[str, str]:
    """Variables that must be set before a child imports torch, OpenMP or Ultralytics."""
    threads = str(prepared.placements[0].threads)
    budget = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
    order = cuda_devices.in_order_of_the_bus() if prepared.device != "cpu" else {}
    return {**budget, **order, "OPENCV_LOG_LEVEL": "SILENT", **environment(prepared.config.model)}
