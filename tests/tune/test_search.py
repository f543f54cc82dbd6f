"""Tuning: that the fastest wins, what a conversion costs, and that lower precisions are only shown."""

import pytest

from farm.config.loading import validate
from farm.core.summary import Summary
from farm.errors import ConfigError, ModelError, OutOfTimeError
from farm.machine.hardware import Machine
from farm.models import backends
from farm.tune import trials
from farm.tune.search import tune
from farm.tune.trials import Bench, Trial
from farm.tune.winner import offers
from tests.support.harness import pictures
from tests.tune.samples import FOUR, config


def test_a_cluster_is_not_tuned_for():
    with pytest.raises(ConfigError, match="give it engine=local"):
        tune(config(engine="ray"))


def weighed(tmp_path, monkeypatch, unfinished):
    """`tune` of a .pt whose runs are made up; `unfinished`: backends whose conversion does not end. Notes too."""
    (tmp_path / "m.pt").write_bytes(b"weights")
    source = pictures(tmp_path / "source", 2)
    times, notes = [], []

    def run(trial, hooks, source, convert_timeout_s):
        times.append(convert_timeout_s)
        if trial.model.backend in unfinished:
            raise OutOfTimeError("not converted")
        return Summary("", 0, 0, 0, 0, 0, 0.0, 0.0, 0, 0, backend=trial.model.backend)

    monkeypatch.setattr(trials, "run", run)
    monkeypatch.setattr(backends, "installed", lambda name: name == "openvino")
    workers = {"devices": "cpu", "count": 1, "batch": 1, "decoders": 1}
    values = {"source": str(source), "model": {"weights": str(tmp_path / "m.pt")}, "output": "y", "workers": workers}
    return lambda **model: (
        tune(validate({**values, "model": {**values["model"], **model}}), 50, note=notes.append, machine=FOUR),
        times,
        notes,
    )


def test_a_conversion_has_what_is_left_of_the_budget(tmp_path, monkeypatch):
    tuning, times, notes = weighed(tmp_path, monkeypatch, {"openvino"})()
    assert [trial.backend for trial in tuning.trials] == ["torch"]
    assert 0 < times[1] <= times[0] <= 50
    assert notes[0] == (
        "model.backend=openvino is left out: its conversion did not end in what was left of 50 s; "
        "give more time, for example --seconds 250"
    )
    assert tuning.untried == ("model.backend=openvino",)
    assert tuning.config.model.backend == "auto", "what was not tried is not ruled out"


def test_lower_precisions_are_shown_and_never_chosen(tmp_path, monkeypatch):
    """Made-up rates: int8 is the fastest, and openvino in fp32 wins."""
    rates = {
        ("torch", "fp32"): 10.0,
        ("openvino", "fp32"): 20.0,
        ("openvino", "bf16"): 30.0,
        ("openvino", "int8"): 40.0,
    }
    tried = weighed(tmp_path, monkeypatch, {})
    monkeypatch.setattr(backends, "has_bf16", lambda: True)
    monkeypatch.setattr(Bench, "trial", lambda bench, config, best: rated(config, rates))
    tuning, *_ = tried()
    assert [(trial.backend, trial.precision) for trial in tuning.trials] == list(rates)
    assert (tuning.best.backend, tuning.best.precision) == ("openvino", "fp32")
    assert (tuning.config.model.backend, tuning.config.model.precision) == ("openvino", "fp32")
    assert offers(tuning) == [
        f"model.backend=openvino model.precision={precision}: {rate} images/s ({ratio} x), agrees with torch to 93.0%; "
        f"yours to choose, for a new output"
        for precision, rate, ratio in (("bf16", 30.0, 1.5), ("int8", 40.0, 2.0))
    ]
    tried_again = tried(precision="bf16")[0].trials
    assert not any(trial.is_offered for trial in tried_again), "a precision that the config names is the user's"


def rated(config, rates):
    precision = config.model.precision
    backend = {"auto": "torch" if precision == "fp32" else "openvino"}.get(config.model.backend, config.model.backend)
    return Trial(backend, precision, 1, 2, 1, 1, rates[backend, precision], 0, 0.93 if precision != "fp32" else None)


def test_a_conversion_that_nothing_can_be_tried_without(tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="--seconds 250"):
        weighed(tmp_path, monkeypatch, {"openvino"})(backend="openvino")


def test_what_farm_does_not_convert_is_tried_as_what_it_is(tmp_path, monkeypatch):
    (tmp_path / "m.onnx").write_bytes(b"weights")
    tuning, _, _ = weighed(tmp_path, monkeypatch, {})(weights=str(tmp_path / "m.onnx"))
    assert [trial.backend for trial in tuning.trials] == ["auto"]
    assert tuning.config.model.backend == "auto"


@pytest.mark.timeout(120)
def test_the_faster_of_two_plans_wins(tmp_path):
    """A model that sleeps: two workers label twice as fast as one."""
    source = pictures(tmp_path / "source", 20)
    values = config(source, tmp_path / "run", {"sleep_ms": 10}, workers={"devices": "cpu", "batch": 1, "decoders": 1})
    machine = Machine(cores=((0,), (1,)), memory_bytes=64 << 30, cuda_devices=())
    tuning = tune(values, machine=machine)
    assert {(trial.workers, trial.threads) for trial in tuning.trials} == {(2, 1), (1, 2)}
    assert (tuning.best.workers, tuning.best.threads) == (2, 1)
    slow = next(trial for trial in tuning.trials if trial.workers == 1)
    assert slow.note == "ended early"
    assert tuning.config.workers.count == 2
    assert not (tmp_path / "run").exists(), "nothing is left in the user's run directory"
