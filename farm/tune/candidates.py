"""Which settings are tried, in which order: those that the config leaves open and this machine can do. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from farm.config.sections import FarmConfig
from farm.core.placement import plan, usable_cores
from farm.machine.hardware import Machine
from farm.models import backends


def grid(machine: Machine, config: FarmConfig) -> Iterator[list[dict[str, Any]]]:
    """Settings to try, in order, as `section.key: value`; none: the config as it is. What the config sets stays."""
    cpu = plan(machine, config.workers)[0].device == "cpu"
    yield [{}, *({"model.backend": name} for name in _backends(config, cpu))]
    model = config.model
    if not cpu and model.weights is not None and model.backend in ("auto", "torch") and model.cuda_graphs == "auto":
        yield [{"model.cuda_graphs": False}]
    cores = usable_cores(machine)
    free = config.workers.count == "auto" and config.workers.threads == "auto"
    if cpu and free:
        shapes = dict.fromkeys([(cores, 1), (max(1, cores // 2), 2), (1, cores)])
        yield [{"workers.count": workers, "workers.threads": threads} for workers, threads in shapes]
    if not cpu and config.workers.count == "auto":
        devices = len({placement.device for placement in plan(machine, config.workers)})
        yield [{"workers.count": devices * each} for each in (1, 2, 3)]
    if config.workers.batch == "auto":
        yield [{"workers.batch": batch} for batch in ((1, 4) if cpu else (16, 32, 64))]
    if config.workers.decoders == "auto":
        yield [{"workers.decoders": decoders} for decoders in ((1, 2) if cpu else (2, 4, 8))]


def _backends(config: FarmConfig, cpu: bool) -> list[str]:
    """Other backends than torch that could run the model."""
    model = config.model
    if model.backend != "auto" or not model.is_convertible:
        return []
    names = ("openvino", "onnxruntime") if cpu else ("tensorrt",)
    return [
        name for name in names if backends.installed(name) and model.precision in backends.BACKENDS[name].precisions
    ]


def lowered(machine: Machine, config: FarmConfig) -> list[dict[str, Any]]:
    """Lower precisions that could run the model here, as changes of the config; none where it names one itself."""
    model, cpu = config.model, plan(machine, config.workers)[0].device == "cpu"
    if not model.is_convertible or model.precision != "fp32":
        return []
    ways = [("openvino", "bf16"), ("openvino", "int8")] if cpu else [("torch", "fp16"), ("tensorrt", "fp16")]
    return [
        {"model.backend": backend, "model.precision": precision}
        for backend, precision in ways
        if backends.installed(backend) and (precision != "bf16" or backends.has_bf16())
    ]
