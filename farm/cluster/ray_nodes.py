"""The nodes of a Ray cluster: what there is to plan with, and what Ray sets aside for each worker."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from farm.cluster.ray_connection import LOCAL, connected, import_ray
from farm.config.sections import FarmConfig
from farm.core.placement import Machine, Placement, usable_cores
from farm.machine.hardware import CudaDevice
from farm.machine.inspection import inspect_machine

SHARE_DIGITS = 4  # of a share of a GPU, as far as Ray counts
MEMORY = "memory"  # a resource of Ray's nodes, in bytes


def nodes_of(config: FarmConfig) -> list[Machine]:
    """What there is to plan with: this machine, or the nodes of the cluster."""
    cuda = config.workers.devices != "cpu"
    ray = import_ray()
    if config.ray.address == LOCAL and not ray.is_initialized():
        return [inspect_machine(cuda)]
    with connected(config, ()):
        resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = [_node(each, cuda) for each in resources if each.get("CPU")]  # a head may have none, and labels nothing
    return nodes or [Machine(((0,),), 0, ())]


def _node(resources: Mapping[str, float], cuda: bool) -> Machine:
    cpus, gpus, memory = (int(resources.get(name, 0)) for name in ("CPU", "GPU", MEMORY))
    return Machine(
        tuple((cpu,) for cpu in range(cpus)), memory, (CudaDevice("of the cluster"),) * (gpus if cuda else 0)
    )


def together(nodes: Sequence[Machine]) -> Machine:
    """All nodes as one machine."""
    if len(nodes) == 1:
        return nodes[0]
    cores = tuple((cpu,) for cpu in range(sum(len(node.cores) for node in nodes)))
    devices = tuple(device for node in nodes for device in node.cuda_devices)
    return Machine(cores, sum(node.memory_bytes for node in nodes), devices)


def shares(placement: Placement, count: int, nodes: Sequence[Machine]) -> tuple[float, float]:
    """CPUs and GPUs that Ray sets aside for each of `count` workers, so that all of them fit on the nodes. Pure."""
    cores, largest = sum(map(usable_cores, nodes)), max(map(usable_cores, nodes))
    cpus = min(max(placement.threads, placement.decoders if placement.device != "cpu" else 1), cores / count, largest)
    devices = sum(len(node.cuda_devices) for node in nodes)
    gpus = 0.0 if placement.device == "cpu" or not devices else 1 / math.ceil(count / devices)
    scale = 10**SHARE_DIGITS
    return (cpus if cpus < 1 else math.floor(cpus)), math.floor(gpus * scale) / scale  # Ray takes no 1.5 CPUs
