"""Tuning: what is tried, that the fastest wins, and that what the user has set stays."""

import os

import psutil
import pytest
import yaml
from rich.console import Console

import farm.tune.trials
from farm.cli import main
from farm.cli.tune import _table, _write, offers
from farm.config.sections import load, validate
from farm.core.summary import Snapshot, Summary, WorkerSnapshot
from farm.errors import ConfigError, ModelError, OutOfTimeError
from farm.machine.hardware import Machine
from farm.models import backends
from farm.sources.base import Entry, item_key
from farm.storage.run_store import RunStore
from farm.tune.search import Tuning, _doubted, grid, lowered, tune
from farm.tune.trials import SLOW_TO_START, Bench, Sample, Trial
from tests.support.harness import pictures

FOUR = Machine(cores=((0,), (1,), (2,), (3,)), memory_bytes=64 << 30, cuda_devices=())
GPUS = Machine(cores=tuple((cpu,) for cpu in range(16)), memory_bytes=64 << 30, cuda_devices=("A", "B"))


def config(source="x", run="y", args=None, **sections):
    model = {"factory": "farm.models.fake:make", "args": {"boxes": 1, **(args or {})}}
    return validate({"source": str(source), "model": model, "output": str(run), **sections})


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


def test_what_the_user_has_set_stays():
    workers = {"devices": "cpu", "count": 3, "batch": 2, "decoders": 5}
    assert list(grid(FOUR, config(workers=workers))) == [[{}]]


def test_devices_that_are_chosen_are_the_only_ones_counted():
    _, counts, *_ = grid(GPUS, config(workers={"devices": [1]}))
    assert [c["workers.count"] for c in counts] == [1, 2, 3]


def test_a_sample_lists_its_images_again_and_again_as_if_they_had_changed():
    sample = Sample("s", "/root", [Entry("a.jpg", 1, 2), Entry("b.jpg", 1, 2)])
    listed = sample.entries()
    entries = [next(listed) for _ in range(5)]
    assert [entry.path for entry in entries] == ["a.jpg", "b.jpg", "a.jpg", "b.jpg", "a.jpg"]
    assert len({item_key(*entry) for entry in entries}) == 5


def test_a_cluster_is_not_tuned_for():
    with pytest.raises(ConfigError, match="give it engine=local"):
        tune(config(engine="ray"))


class Looked:
    """A run that is looked at: two workers and a collector."""

    ended = False

    def interrupt(self, number):
        self.ended = True

    def processes(self):
        return {"worker 0": 1, "worker 1": 2, "collector": 3}


def look(watcher, done, state="predicting"):
    workers = tuple(WorkerSnapshot(number, "", state, done, 0.0, restarts=number) for number in (0, 1))
    watcher.look(Snapshot(1.0, None, 0, done, 0, 0, 0.0, 0, workers))


def test_memory_is_the_most_that_all_workers_have_while_they_label(monkeypatch):
    seen = iter([{1: 10, 2: 20}, {1: 30, 2: 5}])
    now = {}
    monkeypatch.setattr(farm.tune.trials, "_own_bytes", lambda pid: now[pid])
    monkeypatch.setattr(farm.tune.trials, "TRIAL_S", 0.0)
    watcher, running = farm.tune.trials.Watcher(0.0, over_s=float("inf")), Looked()
    watcher.meet(running)
    look(watcher, 0, "starting")
    assert watcher.own_bytes == 0
    now.update(next(seen))
    look(watcher, 1)
    assert watcher.own_bytes == 30
    now.update(next(seen))
    look(watcher, 2)
    assert (watcher.own_bytes, running.ended) == (35, True)


@pytest.mark.timeout(60)
def test_the_memory_of_threads_is_that_of_their_process(tmp_path, monkeypatch):
    monkeypatch.setattr(farm.tune.trials, "TRIAL_S", 0.3)
    workers = {"kind": "thread", "devices": "cpu", "count": 4, "batch": 1, "decoders": 1}
    source = pictures(tmp_path / "source", 4)
    tuning = tune(config(source, tmp_path / "run", {"sleep_ms": 1}, workers=workers), machine=FOUR)
    mine = psutil.Process(os.getpid()).memory_full_info().uss
    assert 0.5 * mine < tuning.best.own_bytes < 2 * mine


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

    monkeypatch.setattr(farm.tune.trials, "run", run)
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
    trials = tried(precision="bf16")[0].trials
    assert not any(trial.is_offered for trial in trials), "a precision that the config names is the user's"


def rated(config, rates):
    precision = config.model.precision
    backend = {"auto": "torch" if precision == "fp32" else "openvino"}.get(config.model.backend, config.model.backend)
    return Trial(backend, precision, 1, 2, 1, 1, rates[backend, precision], 0, 0.93 if precision != "fp32" else None)


@pytest.mark.parametrize(("bf16", "names"), [(True, ["bf16", "int8"]), (False, ["int8"])])
def test_lower_precisions_are_those_of_this_machine(monkeypatch, bf16, names):
    monkeypatch.setattr(backends, "has_bf16", lambda: bf16)
    monkeypatch.setattr(backends, "installed", lambda name: name != "tensorrt")
    values = validate({"source": "x", "model": "m.pt", "output": "y"})
    assert [each["model.precision"] for each in lowered(FOUR, values)] == names
    assert lowered(GPUS, values) == [{"model.backend": "torch", "model.precision": "fp16"}]
    assert lowered(FOUR, config()) == [], "a model of the user's own has one precision"


def test_the_table_fits_80_columns(capsys):
    """With the longest words that it has; nothing is cut off."""
    shape = {
        "workers": 128,
        "threads": 64,
        "batch": 64,
        "decoders": 16,
        "images_per_s": 12345.6,
        "own_bytes": 99999 << 20,
    }
    trials = [
        Trial("onnxruntime", "fp32", **shape, agreement=1.0, note=SLOW_TO_START),
        Trial("torch", "fp32", **shape, agreement=None, cuda_graphs=True),
        Trial("openvino", "int8", **shape, agreement=0.931, is_offered=True),
    ]
    Console(width=80).print(_table(tuple(trials), trials[1]))
    out = capsys.readouterr().out
    assert "…" not in out
    assert all(
        word in out for word in (SLOW_TO_START, "× threads", "decoders", "12345.6", "torch fp32 graphs", "offered")
    )
    assert all(len(line.rstrip()) <= 80 for line in out.splitlines())


@pytest.mark.parametrize("where", ["missing/tuned.yaml", "file/tuned.yaml", "."])
def test_where_nothing_can_be_written_nothing_is_tried(tmp_path, capsys, where):
    (tmp_path / "file").touch()
    arguments = ["tune", f"source={tmp_path}", "model.factory=farm.models.fake:make", f"output={tmp_path / 'run'}"]
    assert main([*arguments, "--write", str(tmp_path / where)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--write {tmp_path / where}" in line


def tuned(tmp_path, untried=(), backend="openvino", output="run"):
    values = {"source": "/x", "model": "m.pt", "output": str(tmp_path / output), "workers": {"count": 1}}
    best = Trial(backend, "fp32", 1, 2, 1, 1, 20.0, 0, 1.0)
    return Tuning((best,), best, validate(values), untried)


def test_a_winner_of_little_time_does_not_replace_another(tmp_path):
    path = tmp_path / "tuned.yaml"
    said = _write(path, tuned(tmp_path, untried=("model.backend=onnxruntime",)), 5)
    assert "# 5 s were too short to try model.backend=onnxruntime" in path.read_text()
    assert "farm run" in said[-1]
    assert load(path).workers.count == 1
    _write(path, tuned(tmp_path, untried=("workers.batch=4",), backend="torch"), 60)
    assert "workers.batch=4" in path.read_text(), "the other had too little time, too"
    said = _write(path, tuned(tmp_path, untried=("model.backend=onnxruntime",)), 5)
    assert "is kept as it was" in said[-1], "and this one even less"
    assert "# 60 s were too short to try workers.batch=4" in path.read_text()
    path.write_text("# Tuned by farm, with all the time there was\n")
    said = _write(path, tuned(tmp_path, untried=("model.backend=onnxruntime",)), 5)
    assert "is kept as it was" in said[-1]
    assert path.read_text().endswith("with all the time there was\n")
    _write(path, tuned(tmp_path), 180)
    assert "20.0 images/s" in path.read_text()


def test_a_winner_does_not_go_where_it_would_be_refused(tmp_path):
    """The run directory was begun with another backend: the command that is printed must work."""
    store = RunStore.open(tmp_path / "run")
    (store.parts_dir / "0001-000001.parquet").touch()
    store.write_json("run.json", {"fingerprint": {"model.backend": "torch", "workers.threads": 2}})
    store.close()
    path = tmp_path / "tuned.yaml"
    said = _write(path, tuned(tmp_path), 180)
    assert said[0] == (
        f"{tmp_path / 'run'} was begun with torch, threads=2, and goes on with nothing else: "
        f"this goes to {tmp_path / 'run'}-tuned"
    )
    assert load(path).output.dir == f"{tmp_path / 'run'}-tuned"
    _write(path, tuned(tmp_path, backend="torch"), 180)
    assert load(path).output.dir == str(tmp_path / "run"), "it goes on with what it was begun with"


def test_a_conversion_that_nothing_can_be_tried_without(tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="--seconds 250"):
        weighed(tmp_path, monkeypatch, {"openvino"})(backend="openvino")


@pytest.mark.parametrize(
    ("backend", "of_torch", "agreement", "rate"),
    [
        ("auto", None, 0.99, 0.0),
        ("auto", None, 0.996, 9.0),
        ("auto", 0.9, 0.9, 9.0),
        ("auto", 0.9, 0.89, 0.0),
        ("openvino", None, 0.5, 9.0),
    ],
)
def test_a_backend_is_measured_against_torch_with_the_same_decoding(backend, of_torch, agreement, rate):
    def trial(name, agreement):
        return Trial(name, "fp32", 1, 1, 1, 1, 9.0, 0, agreement)

    values = validate({"source": "x", "model": {"weights": "m.pt", "backend": backend}, "output": "y"})
    assert _doubted(trial("openvino", agreement), [trial("torch", of_torch)], values).images_per_s == rate
    assert _doubted(trial("torch", of_torch), [], values).images_per_s == 9.0


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


@pytest.mark.timeout(120)
def test_the_command_writes_a_config_that_runs(tmp_path, capsys):
    source = pictures(tmp_path / "source", 12)
    values = {
        "source": str(source),
        "model": {"factory": "farm.models.fake:make", "args": {"sleep_ms": 5}},
        "output": str(tmp_path / "run"),
        "workers": {"devices": "cpu", "count": 1, "batch": 1},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    written = tmp_path / "tuned.yaml"
    assert main(["tune", str(tmp_path / "config.yaml"), "--write", str(written), "--seconds", "20"]) == 0
    assert "best" in capsys.readouterr().out
    assert written.read_text().startswith("# Tuned by farm: ")
    assert main(["run", str(written)]) == 0
    mine = tmp_path / "mine.yaml"
    mine.write_text("source: x\n")
    assert main(["tune", str(tmp_path / "config.yaml"), "--write", str(mine)]) == 2
    assert "was not written by farm tune" in capsys.readouterr().err
    assert mine.read_text() == "source: x\n"
