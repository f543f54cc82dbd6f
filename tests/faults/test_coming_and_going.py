"""Files, folders, disks and parts that cannot be had for a while: real runs, and what is left of them afterwards."""

import json
import os
import shutil
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

import farm
from farm.api import export, retry
from farm.cli import main
from farm.core.schema import SCHEMA_VERSION
from farm.errors import OutputError, SourceError
from farm.sources import earlier_runs
from farm.storage.run_store import RunStore
from farm.supervisor.failed_rows import Quarantine
from farm.verify import verify
from tests.support.harness import ROOT, WITHOUT_ROOTS_PRIVILEGE, config, pictures

IMAGES = 12


def label(source, tmp_path, **sections):
    sections = {"workers": {"count": 1}, "output": {"exports": ["yolo"]}, **sections}
    summary = farm.run(config(source, tmp_path / "run", **sections))
    assert verify(tmp_path / "run").problems == ()
    return summary.ok, summary.failed, summary.gone, summary.exit_code


def labels(tmp_path):
    return sorted(path.name for path in (tmp_path / "run" / "labels").rglob("*.txt"))


@pytest.fixture(params=["list", "links"])
def listed(request, tmp_path):
    """Images, and a source that lists them also where they are not there."""
    files = pictures(tmp_path / "files", IMAGES)
    if request.param == "links":
        (tmp_path / "links").mkdir()
        for image in files.iterdir():
            (tmp_path / "links" / image.name).symlink_to(image)
        return tmp_path / "links"
    (tmp_path / "list.txt").write_text("".join(f"files/{image.name}\n" for image in sorted(files.iterdir())))
    return tmp_path / "list.txt"


@pytest.mark.parametrize("away", ["files", "files/00003.png"], ids=["the folder", "one image"])
def test_listed_images_that_are_away_for_a_run_are_healed_by_the_same_command(listed, tmp_path, away):
    assert label(listed, tmp_path) == (IMAGES, 0, 0, 0)
    rows = [
        row for part in RunStore.view(tmp_path / "run").history.batches(["path"]) for row in part["path"].to_pylist()
    ]
    missing = IMAGES if away == "files" else 1
    (tmp_path / away).rename(tmp_path / "elsewhere")
    for _ in range(2):
        assert label(listed, tmp_path) == (IMAGES - missing, 0, missing, 0)
        assert len(labels(tmp_path)) == IMAGES - missing
    with pytest.raises(SourceError, match="nothing to retry"):
        retry(tmp_path / "run")
    (tmp_path / "elsewhere").rename(tmp_path / away)
    assert label(listed, tmp_path) == (IMAGES, 0, 0, 0)
    assert len(labels(tmp_path)) == IMAGES == len(rows)


def test_many_vanished_images_become_rows_in_portions(tmp_path, monkeypatch):
    source, portions = pictures(tmp_path / "source", IMAGES), []
    add = Quarantine.add

    def counted(self, verdicts, *about):
        portions.append(len(verdicts))
        add(self, verdicts, *about)

    label(source, tmp_path)
    for number in range(1, IMAGES):
        (source / f"{number:05d}.png").unlink()
    monkeypatch.setattr(earlier_runs, "VANISHED_AT_ONCE", 3)
    monkeypatch.setattr(Quarantine, "add", counted)
    assert label(source, tmp_path) == (1, 0, IMAGES - 1, 0)
    assert portions == [3, 3, 3, 2]


def test_a_file_that_is_put_back_with_its_old_time_has_its_own_labels(tmp_path):
    source = pictures(tmp_path / "source", 3)
    image, kept = source / "00001.png", tmp_path / "kept.png"
    shutil.copy2(image, kept)
    for number, width in ((None, 11), (20, 30), (None, 11)):
        if number is None:
            shutil.copy2(kept, image)
        else:
            shutil.copyfile(pictures(tmp_path / "more", 21) / f"{number:05d}.png", image)
        label(source, tmp_path)
        batches = RunStore.view(tmp_path / "run").history.batches(["path", "width"])
        widths = {row["path"]: row["width"] for batch in batches for row in batch.to_pylist()}
        assert widths["00001.png"] == width


def as_an_ordinary_user(script):
    """What it prints, a JSON value a line."""
    if subprocess.run([*WITHOUT_ROOTS_PRIVILEGE, "true"], capture_output=True).returncode:
        pytest.skip("setpriv cannot give up root's privilege here")
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [*WITHOUT_ROOTS_PRIVILEGE, sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("mode", [0o444, 0], ids=["r--", "---"])
def test_an_unreadable_folder_that_comes_first_does_not_end_the_run(tmp_path, mode):
    pictures(tmp_path / "source" / "a", 200)
    pictures(tmp_path / "source" / "b", 50)
    lines = [f"source/a/{n:05d}.png\n" for n in range(200)] + [f"source/b/{n:05d}.png\n" for n in range(50)]
    (tmp_path / "list.txt").write_text("".join(lines))
    source = tmp_path / ("source" if mode else "list.txt")
    values = config(source, tmp_path / "run", limits={"attempts": 2})
    script = f"""
import dataclasses, farm, json, os
from farm.config.sections import SourceConfig
from farm.sources import open_source
folder = {str(tmp_path / "source" / "a")!r}
for mode in ({mode}, 0o755):
    os.chmod(folder, mode)
    source = open_source(SourceConfig(path={str(source)!r}))
    source.retry_policy = dataclasses.replace(source.retry_policy, give_up_s=2.0)
    summary = farm.run({values!r}, source=source)
    print(json.dumps([summary.ok, summary.failed, summary.exit_code]))
"""
    assert as_an_ordinary_user(script) == [[50, 200, 3], [250, 0, 0]]


def test_an_image_that_was_unreadable_for_a_run_is_healed_by_the_same_command(tmp_path):
    """chmod changes no time, so that its key is the same. As long as it stays unreadable, each run tries it again."""
    image = pictures(tmp_path / "source", 4) / "00001.png"
    values = config(tmp_path / "source", tmp_path / "run", workers={"count": 1})
    script = f"""
import farm, json, os
for mode in (0, 0, 0o644, 0o644):
    os.chmod({str(image)!r}, mode)
    summary = farm.run({values!r})
    print(json.dumps([summary.ok, summary.failed, summary.skipped, summary.exit_code]))
"""
    results = as_an_ordinary_user(script)
    assert results == [[3, 1, 0, 3], [3, 1, 3, 3], [4, 0, 3, 0], [4, 0, 4, 0]]
    assert verify(tmp_path / "run").problems == ()


def test_a_folder_without_permission_costs_no_row_and_no_label(tmp_path):
    """As an ordinary user meets it: root's privilege to look everywhere is given up."""
    source = tmp_path / "source"
    for folder in ("a", "b"):
        pictures(source / folder, 4)
    values = config(source, tmp_path / "run", workers={"count": 1}, output={"exports": ["yolo"]})
    globbed = {**values, "source": f"{source}/**/*.png", "output": {"dir": str(tmp_path / "globbed")}}
    (tmp_path / "list.txt").write_text("".join(f"source/{f}/0000{n}.png\n" for f in "ab" for n in range(4)))
    by_list = {**values, "source": str(tmp_path / "list.txt"), "output": {"dir": str(tmp_path / "listed")}}
    script = f"""
import farm, json, os
for values in {[values, globbed, by_list]!r}:
    for mode in (0o755, 0, 0o755):
        os.chmod({str(source / "b")!r}, mode)
        summary = farm.run(values)
        labels = sum(len(files) for _, _, files in os.walk(values["output"]["dir"] + "/labels"))
        print(json.dumps([summary.ok, summary.failed, summary.left, summary.exit_code, labels, summary.warnings]))
"""
    results = as_an_ordinary_user(script)
    assert len(results) == 9
    for before, during, after in (results[:3], results[3:6], results[6:]):
        assert before[:5] == after[:5] == [8, 0, 0, 0, 8]
        assert during[:5] == [8, 0, 4, 3, 8]
        assert any("rows and labels stay as they are" in warning for warning in during[5])
    for name in ("run", "globbed", "listed"):
        assert verify(tmp_path / name).problems == ()


def test_a_disk_below_the_source_that_is_not_mounted_costs_no_row(tmp_path):
    source, disk = pictures(tmp_path / "source", 3), pictures(tmp_path / "disk", 4)
    (source / "disk").mkdir()
    bind = ["mount", "--bind", disk, source / "disk"]
    if subprocess.run(bind, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        assert label(source, tmp_path) == (7, 0, 0, 0)
    finally:
        subprocess.run(["umount", source / "disk"], check=True)
    for _ in range(2):
        assert label(source, tmp_path) == (7, 0, 0, 3)
    assert len(list((tmp_path / "run" / "labels" / "disk").iterdir())) == 4
    subprocess.run(bind, check=True)
    try:
        (disk / "00002.png").unlink()
        assert label(source, tmp_path) == (6, 0, 1, 0)
    finally:
        subprocess.run(["umount", source / "disk"], check=True)


def test_a_clean_run_verifies_where_the_image_without_a_shared_label_file_comes_first(tmp_path):
    """The smaller path keeps the label file; of a folder and the images beside it the folder comes later."""
    source = tmp_path / "source"
    (tmp_path / "list.txt").write_text("source/00001.png\nsource/00001.jpg\n")
    pictures(source, 2)
    shutil.copy(pictures(tmp_path / "more", 31) / "00030.png", source / "00001.jpg")
    assert label(tmp_path / "list.txt", tmp_path, commit={"images": 1, "seconds": 60}) == (2, 0, 0, 0)
    names = [
        row for batch in RunStore.view(tmp_path / "run").history.batches(["path"]) for row in batch["path"].to_pylist()
    ]
    assert names == ["source/00001.png", "source/00001.jpg"]


def test_a_clean_run_verifies_where_no_label_file_can_have_its_name(tmp_path):
    source = pictures(tmp_path / "source", 2)
    pictures(source / "00001.txt", 1)  # a folder where the label of 00001.png would be
    assert label(source, tmp_path) == (3, 0, 0, 0)


@pytest.fixture
def labelled(tmp_path):
    label(pictures(tmp_path / "source", 3), tmp_path)
    return tmp_path / "run"


@pytest.mark.parametrize("command", ["run", "retry", "export", "verify"])
@pytest.mark.parametrize("harm", ["unreadable", "another version"])
def test_a_good_part_that_cannot_be_used_is_refused_with_what_to_do(
    labelled, tmp_path, capsys, monkeypatch, command, harm
):
    parts = sorted(os.listdir(labelled / "parts"))
    if harm == "unreadable":

        def refuse(*args, **options):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(pq, "ParquetFile", refuse)
        says = f"part {parts[-1]} cannot be read: Permission denied; mend that, then run the same command again"
    else:
        part = labelled / "parts" / parts[-1]
        said = b"farm.schema_version"
        data = part.read_bytes()
        _write_with_metadata(part, {said: b"2"})
        assert data != part.read_bytes()
        says = "was not written by this version of farm: its schema is number 2"
    commands = {
        "run": lambda: farm.run(config(tmp_path / "source", labelled, workers={"count": 1})),
        "retry": lambda: retry(labelled),
        "export": lambda: export(RunStore.view(labelled), "yolo"),
    }
    if command == "verify":
        assert main(["verify", str(labelled)]) == 1
        assert says in capsys.readouterr().err
    else:
        with pytest.raises(OutputError, match=says):
            commands[command]()
    assert sorted(os.listdir(labelled / "parts")) == parts, "nothing is set aside"


def _write_with_metadata(part, metadata):
    table = pq.read_table(part)
    assert table.schema.metadata[b"farm.schema_version"] == SCHEMA_VERSION.encode()
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, **metadata}), part)
