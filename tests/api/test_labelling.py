"""What `farm.run` makes of its arguments, before anything runs."""

import pytest

import farm
from farm import Farm
from farm.errors import ConfigError

FAKE = {"factory": "farm.models.fake:make"}
VALUES = {"source": "photos", "model": "a.pt", "output": "runs/a", "workers": {"count": 2}}


@pytest.mark.parametrize(
    ("config", "overrides", "words"),
    [
        (VALUES, "workers.count=4", r"overrides are a list, .*: write \['workers\.count=4'\]"),
        (5, (), "a int is no config; give a YAML file's path, a mapping or a FarmConfig"),
        (None, (), "a NoneType is no config"),
        ([VALUES], (), "a list is no config"),
        ({"source": "photos"}, (), "`model` is missing"),
        ("~/none.yaml", (), "/none.yaml does not exist"),
    ],
)
def test_wrong_arguments_are_told_in_the_same_words_by_both_runs(config, overrides, words):
    with Farm(model=FAKE) as labelling:
        for run in (farm.run, labelling.run):
            with pytest.raises(ConfigError, match=words):
                run(config, overrides)


def test_a_run_of_a_mapping_with_overrides(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"no image")
    values = {"source": str(tmp_path / "photos"), "model": FAKE, "output": {"dir": str(tmp_path / "a"), "exports": []}}
    summary = farm.run(values, [f"output.dir={tmp_path / 'b'}", "workers.count=1", "workers.devices=cpu"])
    assert (summary.run_dir, summary.ok) == (str(tmp_path / "b"), 1)
    assert not (tmp_path / "a").exists()
