"""Weights that are overwritten while a run goes on: a training run writes its best.pt again and again."""

import os
import signal

import pytest

import farm
from farm.errors import ModelError, WeightsChangedError
from farm.models.weights.files import weights_digest
from farm.verify import verify
from tests.support.harness import Saboteur, config, pictures, rows

COUNT = 60


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models that find different things."""
    import torch
    from ultralytics import YOLO

    folder, paths = tmp_path_factory.mktemp("models"), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        yolo = YOLO("yolo11n.yaml", verbose=False)
        paths.append(folder / f"{seed}.pt")
        torch.save({"model": yolo.model.half().eval(), "train_args": {"imgsz": 32, "task": "detect"}}, paths[-1])
    return paths


@pytest.fixture
def run(tmp_path, models, monkeypatch):
    """A run whose weights `other()` overwrites, as an editor does it or in place; `first()` puts them back."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    best = tmp_path / "best.pt"
    best.write_bytes(models[0].read_bytes())

    class Run:
        weights = best
        settings = config(
            pictures(tmp_path / "images", COUNT), tmp_path / "run",
            {"weights": str(best), "imgsz": 32, "conf": 1e-6, "max_det": 5},
            workers={"count": 1, "recycle_after": 20}, commit={"images": 4},
        )  # fmt: skip
        run_dir = tmp_path / "run"

        @staticmethod
        def other():
            best.write_bytes(models[1].read_bytes())

        @staticmethod
        def first():
            best.write_bytes(models[0].read_bytes())

    return Run


def overwritten_early(run, values):
    def act(saboteur, snapshot):
        if snapshot.done and not saboteur.kills:
            saboteur.kills = 1
            run.other()

    return Saboteur(act).run(values)


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_a_replaced_worker_does_not_load_other_weights(run, kind):
    values = {**run.settings, "workers": {**run.settings["workers"], "kind": kind}}
    with pytest.raises(ModelError, match=r"best\.pt changed since the run began") as error:
        overwritten_early(run, values)
    assert error.value.exit_code == 2
    committed = rows(run.run_dir)
    assert 0 < len(committed) < COUNT
    assert not verify(run.run_dir).problems
    run.first()
    summary = farm.run(values)
    assert (summary.ok, summary.skipped) == (COUNT, len(committed))
    assert set(committed) < set(rows(run.run_dir))


def test_a_farm_ends_where_a_killed_worker_would_be_replaced_by_another_model(run):
    images = sorted((run.run_dir.parent / "images").iterdir())
    with farm.Farm(model=run.settings["model"], workers={"count": 1, "devices": "cpu"}) as running:
        assert running.submit(images[0]).result(timeout=120).status == "ok"
        run.other()
        os.kill(running.processes()["worker 0"], signal.SIGKILL)
        with pytest.raises(ModelError, match=r"best\.pt changed"):
            running.submit(images[1]).result(timeout=120)


def test_weights_that_are_no_longer_the_runs_are_loaded_by_nobody(run):
    """Of whatever kind and engine: what workers get says which weights they are to have."""
    from farm.models import load_model

    digest = weights_digest(str(run.weights))
    settings = farm.config.sections.ModelConfig(**run.settings["model"])
    assert load_model(settings, "cpu", 1, digest).task == "detect"
    run.other()
    with pytest.raises(WeightsChangedError):
        load_model(settings, "cpu", 1, digest)
