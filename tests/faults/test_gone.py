"""Images that somebody deleted: a state of their own, which is no failure, and which ends when they are back."""

import json
import os
import shutil
import subprocess
import threading

import pyarrow.parquet as pq
import pytest

import farm
from farm.api import Hooks, retry
from farm.cli import main
from farm.core.key_set import ABSENT, item_key
from farm.errors import SourceError
from farm.storage.run_store import RunStore
from farm.verify import verify
from tests.support.harness import config, pictures


def values(tmp_path, source="source", **sections):
    return config(tmp_path / source, tmp_path / "run", **{"workers": {"count": 1}, **sections})


def run(tmp_path, *about, hooks=None, **sections):
    summary = farm.run(values(tmp_path, *about, **sections), hooks=hooks)
    assert verify(tmp_path / "run").problems == ()
    return summary.ok, summary.failed, summary.gone, summary.exit_code


def statuses(tmp_path):
    rows = [
        row
        for batch in RunStore.view(tmp_path / "run").history.batches(["path", "status"])
        for row in batch.to_pylist()
    ]
    return {row["path"]: row["status"] for row in rows}


def none_of(folder, *names):
    """Files that fail: images by name only."""
    for name in names:
        (folder / name).write_text("no image")


def test_failed_images_that_were_deleted_are_gone_with_the_next_run(tmp_path):
    none_of(pictures(tmp_path / "source", 3), "a.png", "b.png")
    assert run(tmp_path) == (3, 2, 0, 3)
    (tmp_path / "source" / "a.png").unlink()
    assert run(tmp_path) == (3, 1, 1, 3)
    (tmp_path / "source" / "b.png").unlink()
    assert run(tmp_path) == (3, 0, 2, 0)
    assert run(tmp_path) == (3, 0, 2, 0)
    with pytest.raises(SourceError, match="nothing to retry"):
        retry(tmp_path / "run")
    shutil.copy(tmp_path / "source" / "00001.png", tmp_path / "source" / "a.png")
    assert run(tmp_path) == (4, 0, 1, 0)


def test_an_image_that_is_deleted_between_its_listing_and_its_reading_is_gone(tmp_path):
    """All are listed before a model is there to label them."""
    source = pictures(tmp_path / "source", 40)
    kept = tmp_path / "kept.png"
    shutil.copy2(source / "00007.png", kept)
    hooks = Hooks(on_start=lambda running: (wait_until_listed(running), (source / "00007.png").unlink()))
    assert run(tmp_path, hooks=hooks, model={"load_s": 0.1}) == (39, 0, 1, 0)
    assert statuses(tmp_path)["00007.png"] == "gone"
    assert run(tmp_path, model={"load_s": 0.1}) == (39, 0, 1, 0)
    shutil.copy2(kept, source / "00007.png")
    assert run(tmp_path, model={"load_s": 0.1}) == (40, 0, 0, 0), "as it was, to the nanosecond"


def wait_until_listed(running):
    """Lists in this thread what the lister's thread would list, before the loop begins."""
    lister = running._lister
    lister._list()
    lister.start = lambda: None


def test_a_line_of_a_list_that_never_named_a_file_stays_a_failure_as_long_as_it_is_there(tmp_path):
    pictures(tmp_path / "source", 2)
    listed = tmp_path / "list.txt"
    listed.write_text("source/00000.png\nsource/00001.png\nsource/typo.png\n")
    for _ in range(2):
        assert run(tmp_path, "list.txt") == (2, 1, 0, 3)
    assert retry(tmp_path / "run").exit_code == 3
    (tmp_path / "source" / "00001.png").unlink()
    assert run(tmp_path, "list.txt") == (1, 1, 1, 3), "that one was there"
    listed.write_text("source/00000.png\nsource/00001.png\n")
    assert run(tmp_path, "list.txt") == (1, 0, 2, 0)


def test_images_below_a_disk_that_is_not_mounted_are_not_gone(tmp_path):
    source, disk = pictures(tmp_path / "source", 4), pictures(tmp_path / "disk", 3)
    none_of(disk, "a.png")
    (source / "disk").mkdir()
    bind = ["mount", "--bind", disk, source / "disk"]
    if subprocess.run(bind, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        assert run(tmp_path) == (7, 1, 0, 3)
    finally:
        subprocess.run(["umount", source / "disk"], check=True)
    assert run(tmp_path) == (7, 1, 0, 3)
    assert retry(tmp_path / "run").failed == 1
    source.rename(tmp_path / "renamed")
    assert run(tmp_path, "renamed") == (7, 1, 0, 3), "nor where the source has another name now"
    assert retry(tmp_path / "run").failed == 1


def test_what_an_older_farm_called_failed_is_gone(tmp_path):
    """Of a list, too, which still names it."""
    pictures(tmp_path / "source", 3)
    (tmp_path / "list.txt").write_text("".join(f"source/0000{n}.png\n" for n in range(3)))
    run(tmp_path, "list.txt")
    (tmp_path / "source" / "00001.png").unlink()
    assert run(tmp_path, "list.txt") == (2, 0, 1, 0)
    part = sorted((tmp_path / "run" / "parts").iterdir())[-1]
    table = pq.read_table(part)
    assert table["key"].to_pylist() == [item_key("source/00001.png", *ABSENT)]
    failed = table.set_column(table.schema.get_field_index("status"), table.schema.field("status"), [["failed"]])
    pq.write_table(failed, part)
    path = tmp_path / "run" / "summary.json"
    summary = {**json.loads(path.read_text()), "failed": 1}
    del summary["gone"]
    path.write_text(json.dumps(summary))
    os.utime(path)
    assert verify(tmp_path / "run").problems == ()
    assert statuses(tmp_path)["source/00001.png"] == "failed"
    assert run(tmp_path, "list.txt") == (2, 0, 1, 0)


def test_gone_images_do_not_end_a_run(tmp_path):
    pictures(tmp_path / "source", 30)
    run(tmp_path)
    for number in range(29):
        (tmp_path / "source" / f"{number:05d}.png").unlink()
    assert run(tmp_path, limits={"max_failed": 1}) == (1, 0, 29, 0)


def test_a_run_whose_failed_images_are_deleted_while_all_others_are_new(tmp_path):
    """Nothing that was done before is known: each row failed by its place."""
    source = pictures(tmp_path / "source", 3)
    lock = threading.Event()
    names = sorted(os.listdir(source))

    def hide(running):
        wait_until_listed(running)
        for name in names:
            (source / name).rename(tmp_path / name)
        lock.set()

    hidden = run(tmp_path, hooks=Hooks(on_start=hide))
    assert lock.is_set() and hidden[:3] == (0, 3, 0), "an empty folder: it might be a disk that is gone"
    pictures(source, 5)
    for name in names:
        (source / name).unlink()
    assert run(tmp_path) == (2, 0, 3, 0)


def test_counts_are_told_apart(tmp_path, capsys):
    none_of(pictures(tmp_path / "source", 3), "a.png")
    run(tmp_path)
    (tmp_path / "source" / "00001.png").unlink()
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(values(tmp_path)))
    assert main(["run", str(path)]) == 3
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["gone", "1"] in lines and ["1", "gone:", "deleted", "since", "they", "were", "listed"] in lines
    assert ["failed", "1"] in lines and ["images", "4"] in lines
    assert main(["verify", str(tmp_path / "run")]) == 0
    said = "whole: 4 images = 2 labelled + 1 failed + 1 gone, each once"
    assert capsys.readouterr().out.splitlines()[-1] == said
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["gone"] == 1
