"""Where the winner of a tuning is written, and what the user is told."""

from farm.config.loading import load, validate
from farm.storage.run_store import RunStore
from farm.tune.contest import Tuning
from farm.tune.trials import Trial
from farm.tune.winner import write_winner


def tuned(tmp_path, untried=(), backend="openvino", output="run"):
    values = {"source": "/x", "model": "m.pt", "output": str(tmp_path / output), "workers": {"count": 1}}
    best = Trial(backend, "fp32", 1, 2, 1, 1, 20.0, 0, 1.0)
    return Tuning((best,), best, validate(values), untried)


def test_a_winner_of_little_time_does_not_replace_another(tmp_path):
    path = tmp_path / "tuned.yaml"
    said = write_winner(path, tuned(tmp_path, untried=("model.backend=onnxruntime",)), 5)
    assert "# 5 s were too short to try model.backend=onnxruntime" in path.read_text()
    assert "farm run" in said[-1]
    assert load(path).workers.count == 1
    write_winner(path, tuned(tmp_path, untried=("workers.batch=4",), backend="torch"), 60)
    assert "workers.batch=4" in path.read_text(), "the other had too little time, too"
    said = write_winner(path, tuned(tmp_path, untried=("model.backend=onnxruntime",)), 5)
    assert "is kept as it was" in said[-1], "and this one even less"
    assert "# 60 s were too short to try workers.batch=4" in path.read_text()
    path.write_text("# Tuned by farm, with all the time there was\n")
    said = write_winner(path, tuned(tmp_path, untried=("model.backend=onnxruntime",)), 5)
    assert "is kept as it was" in said[-1]
    assert path.read_text().endswith("with all the time there was\n")
    write_winner(path, tuned(tmp_path), 180)
    assert "20.0 images/s" in path.read_text()


def test_a_winner_does_not_go_where_it_would_be_refused(tmp_path):
    """The run directory was begun with another backend: the command that is printed must work."""
    store = RunStore.open(tmp_path / "run")
    (store.parts_dir / "0001-000001.parquet").touch()
    store.write_json("run.json", {"fingerprint": {"model.backend": "torch", "workers.threads": 2}})
    store.close()
    path = tmp_path / "tuned.yaml"
    said = write_winner(path, tuned(tmp_path), 180)
    assert said[0] == (
        f"{tmp_path / 'run'} was begun with torch, threads=2, and goes on with nothing else: "
        f"this goes to {tmp_path / 'run'}-tuned"
    )
    assert load(path).output.dir == f"{tmp_path / 'run'}-tuned"
    write_winner(path, tuned(tmp_path, backend="torch"), 180)
    assert load(path).output.dir == str(tmp_path / "run"), "it goes on with what it was begun with"


def test_a_link_to_the_winner_stays_a_link(tmp_path):
    (tmp_path / "link.yaml").symlink_to("tuned.yaml")
    write_winner(tmp_path / "link.yaml", tuned(tmp_path), 180)
    assert (tmp_path / "link.yaml").is_symlink()
    assert load(tmp_path / "tuned.yaml").workers.count == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.yaml", "tuned.yaml"]
