"""Which plans are tried, on which machine, and that what the user has set stays."""

import pytest

from farm.config.loading import validate
from farm.machine.hardware import CudaDevice, Machine
from farm.models import backends
from farm.tune.candidates import grid, lowered
from tests.tune.samples import FOUR, config

GPUS = Machine(
    cores=tuple((cpu,) for cpu in range(16)), memory_bytes=64 << 30, cuda_devices=(CudaDevice("A"), CudaDevice("B"))
)


def test_what_is_tried_on_cpu():
    backends, shapes, batches, decoders = grid(FOUR, config(workers={"devices": "cpu"}))
    assert backends == [{}], "a model of the user's own has one backend"
    assert [(s["workers.count"], s["workers.threads"]) for s in shapes] == [(4, 1), (2, 2), (1, 4)]
    assert [b["workers.batch"] for b in batches] == [1, 4]
    assert [d["workers.decoders"] for d in decoders] == [1, 2]


def test_what_is_tried_on_two_devices():
    _, counts, batches, decoders = grid(GPUS, config())
    assert [c["workers.count"] for c in counts] == [2, 4, 6]
    assert [b["workers.batch"] for b in batches] == [16, 32, 64]
    assert [d["workers.decoders"] for d in decoders] == [2, 4, 8]


@pytest.mark.parametrize(
    ("model", "graphs"), [({}, [False]), ({"cuda_graphs": True}, []), ({"cuda_graphs": False}, [])]
)
def test_graphs_are_left_out_once_where_the_config_leaves_it_open(monkeypatch, model, graphs):
    monkeypatch.setattr(backends, "installed", lambda name: False)
    values = validate({"source": "x", "model": {"weights": "m.pt", **model}, "output": "y"})
    tried = [settings for each in grid(GPUS, values) for settings in each]
    assert [each["model.cuda_graphs"] for each in tried if "model.cuda_graphs" in each] == graphs


def test_what_the_user_has_set_stays():
    workers = {"devices": "cpu", "count": 3, "batch": 2, "decoders": 5}
    assert list(grid(FOUR, config(workers=workers))) == [[{}]]


def test_devices_that_are_chosen_are_the_only_ones_counted():
    _, counts, *_ = grid(GPUS, config(workers={"devices": [1]}))
    assert [c["workers.count"] for c in counts] == [1, 2, 3]


@pytest.mark.parametrize(("bf16", "names"), [(True, ["bf16", "int8"]), (False, ["int8"])])
def test_lower_precisions_are_those_of_this_machine(monkeypatch, bf16, names):
    monkeypatch.setattr(backends, "has_bf16", lambda: bf16)
    monkeypatch.setattr(backends, "installed", lambda name: name != "tensorrt")
    values = validate({"source": "x", "model": "m.pt", "output": "y"})
    assert [each["model.precision"] for each in lowered(FOUR, values)] == names
    assert lowered(GPUS, values) == [{"model.backend": "torch", "model.precision": "fp16"}]
    assert lowered(FOUR, config()) == [], "a model of the user's own has one precision"
