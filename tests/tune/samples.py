"""A machine and a config that the tests of tuning share."""

from farm.config.loading import validate
from farm.machine.hardware import Machine
from tests.support.harness import fake

FOUR = Machine(cores=((0,), (1,), (2,), (3,)), memory_bytes=64 << 30, cuda_devices=())


def config(source="x", run="y", args=None, **sections):
    """Of a run with the fake model."""
    model = fake(**{"boxes": 1, **(args or {})})
    return validate({"source": str(source), "model": model, "output": str(run), **sections})
