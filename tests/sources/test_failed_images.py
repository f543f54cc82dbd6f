"""Images that failed in earlier runs, as a later run and `farm retry --list` tell of them."""

import os

import pytest

from farm.cli import main
from farm.core.schema import failed_batch, part_metadata
from farm.storage.part_writer import PartWriter
from farm.storage.run_store import RunStore
from farm.supervisor.supervisor import labelling_s
from tests.storage.rows import committed, labelled, rows
from tests.support.harness import Saboteur, config, pictures

UNREADABLE = {"stage": "read", "type": "PermissionError", "message": "EACCES: Permission denied"}
VANISHED = {"stage": "list", "type": "FileNotFoundError", "message": "vanished"}


@pytest.fixture
def store(tmp_path):
    store = RunStore.open(tmp_path / "run")
    yield store
    store.close()


def failed(error, *paths):
    keys = [os.fsencode(path).ljust(16, b"\0") for path in paths]
    return failed_batch("detect", keys, list(paths), [error] * len(paths), attempts=1, worker=0)


def test_those_that_stay_failed_are_counted(store):
    assert store.history.failed_before == 0
    committed(store, rows("a.jpg", "b.jpg"), labelled("a.jpg", "c.jpg"), rows("c.jpg", "d.jpg", stamp=1))
    assert store.history.failed_before == 3, "b, c, d; a newer row of a.jpg is ok"


def test_those_that_are_tried_again_or_have_vanished_do_not_count(store):
    committed(store, failed(UNREADABLE, "a.jpg"), failed(VANISHED, "b.jpg"), rows("c.jpg"))
    assert store.history.failed_before == 1


@pytest.mark.timeout(60)
def test_a_run_that_goes_on_tells_of_them(tmp_path):
    """Of theirs beside its own, and of no more done than there is."""
    pictures(tmp_path / "images", 3)
    (tmp_path / "images" / "torn.png").write_text("no image")
    values = config(tmp_path / "images", tmp_path / "run", workers={"count": 1})
    seen = []
    saboteur = Saboteur(lambda saboteur, snapshot: seen.append(snapshot))
    saboteur.run(values)
    (tmp_path / "images" / "torn-too.png").write_text("no image either")
    before = len(seen)
    summary = saboteur.run(values)
    assert {s.failed_before for s in seen[before:]} == {1}
    assert all(s.total is None or s.progress <= s.total for s in seen)
    assert (summary.failed, summary.exit_code, summary.task) == (2, 3, "detect")
    assert 0 < summary.labelling_s < summary.wall_s


def test_a_run_that_committed_before_a_worker_was_ready_has_no_negative_rate():
    """As one in which only what has vanished was recorded, or whose last commit was of a run before."""
    assert labelling_s(ready_s=9.0, last_commit_s=5.0) == 0.0
    assert labelling_s(ready_s=0.0, last_commit_s=5.0) == 0.0
    assert labelling_s(ready_s=5.0, last_commit_s=9.0) == 4.0


def test_a_list_of_them_can_be_sorted_and_cut(tmp_path, capsys):
    store = RunStore.open(tmp_path / "run")
    name = os.fsdecode(b"tab\tand\xff.jpg")
    PartWriter(store.parts_dir, 1).commit(
        [labelled("ok.jpg"), failed(UNREADABLE, "a.jpg", name)], part_metadata("detect", {}, "d")
    )
    store.close()
    assert main(["retry", "--list", str(tmp_path / "run")]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines == [[path, *UNREADABLE.values()] for path in ("a.jpg", r"tab\tand\udcff.jpg")]
    assert not (tmp_path / "run" / "run.json").exists(), "nothing was run"
