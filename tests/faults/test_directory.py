"""The run directory under attack: full disks, torn and foreign files, two farms, and what verify and retry make of it."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import farm
from farm.api import retry
from farm.cli import main
from farm.errors import OutputError, RunLockedError, SharedMemoryError, SourceError, WorkerError
from farm.verify import verify
from tests.support.harness import POISON, ROOT, Saboteur, config, pictures, rows, segments, start, wait_for

IMAGES = 40


@pytest.fixture
def source(tmp_path):
    return pictures(tmp_path / "source", IMAGES)


def label(source, tmp_path, model=None, **sections):
    return farm.run(config(source, tmp_path / "run", model, **{"output": {"exports": ["yolo"]}, **sections}))


def first_part(tmp_path):
    return sorted((tmp_path / "run" / "parts").glob("*.parquet"))[0]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte. Needs root to be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_fatal_and_resumable(source, small_disk, tmp_path):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(900 << 10))
    values = config(source, small_disk / "run", {"boxes": 4000}, commit={"images": 4, "seconds": 60})
    with pytest.raises(OutputError, match=r"No space left on device.*run the same command to continue"):
        farm.run(values)
    kept = rows(small_disk / "run")
    assert len(kept) < IMAGES
    assert not verify(small_disk / "run").problems, "a broken file is visible"
    ballast.unlink()
    assert farm.run(values).ok == IMAGES
    assert len(rows(small_disk / "run")) == IMAGES


def test_an_output_that_vanishes_is_fatal(source, tmp_path):
    def remove(saboteur, snapshot):
        if snapshot.committed and saboteur.kills == 0:
            shutil.rmtree(tmp_path / "run" / "parts")
            saboteur.kills = 1

    with pytest.raises(OutputError, match="cannot be written"):
        Saboteur(remove).run(config(source, tmp_path / "run", {"sleep_ms": 20}))


def test_a_read_only_output_is_refused(tmp_path, source, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(OutputError, match="Read-only file system"):
        farm.run(config(source, small_disk / "run"))


def test_no_room_in_shared_memory_is_said_before_anything_starts(source, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(SharedMemoryError, match="--shm-size"):
        farm.run(config(source, tmp_path / "run"))
    assert not segments(tmp_path / "run")


def test_too_few_file_descriptors_are_named(source, tmp_path):
    values = config(source, tmp_path / "run", workers={"count": 64})
    script = f"import resource, farm\nresource.setrlimit(resource.RLIMIT_NOFILE, (96, 96))\nfarm.run({values!r})"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environ, timeout=120)
    assert WorkerError.__name__ in done.stderr, done.stderr[-1500:]
    assert "ulimit -n" in done.stderr
    assert not segments(tmp_path / "run")


@pytest.mark.parametrize("kind", ["process", "thread"])
@pytest.mark.parametrize("limit", [13, 15])
def test_so_few_file_descriptors_that_nothing_begins_are_named_in_one_line(source, tmp_path, limit, kind):
    """Not as a want of shared memory, nor by what multiprocessing's resource tracker makes of it."""
    values = json.dumps(config(source, tmp_path / "run", workers={"kind": kind}))
    (tmp_path / "config.yaml").write_text(values)
    command = [f"--nofile={limit}:{limit}", sys.executable, "-m", "farm", "run", str(tmp_path / "config.yaml")]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["prlimit", *command], capture_output=True, text=True, env=environ, timeout=120)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(rf"farm: a run needs at least \d+ open files, .* may have {limit}: .*\(ulimit -n\)", line)


def test_two_farms_in_one_directory(source, tmp_path):
    process = start(config(source, tmp_path / "run", {"sleep_ms": 100}), tmp_path)
    assert wait_for(lambda: (tmp_path / "run" / "run.json").exists(), 30)
    with pytest.raises(RunLockedError, match=f"process {process.pid}"):
        farm.run(config(source, tmp_path / "run", {"sleep_ms": 100}))
    process.kill()
    process.communicate()


def test_a_whole_run_verifies(source, tmp_path, capsys):
    label(source, tmp_path)
    assert verify(tmp_path / "run").listed == IMAGES
    assert main(["verify", str(tmp_path / "run")]) == 0
    assert f"whole: {IMAGES} images = {IMAGES} labelled + 0 failed" in capsys.readouterr().out


def test_a_part_cut_at_any_byte_is_named_never_counted_and_relabelled(source, tmp_path):
    label(source, tmp_path, commit={"images": 10, "seconds": 60})
    torn = first_part(tmp_path)
    whole, before = torn.read_bytes(), rows(tmp_path / "run")
    for cut in sorted({*range(0, len(whole), max(1, len(whole) // 40)), len(whole) - 1}):
        torn.write_bytes(whole[:cut])
        assert any("torn" in problem for problem in verify(tmp_path / "run").problems), cut
    torn.write_bytes(whole[:-100] + bytes(100))
    assert verify(tmp_path / "run").problems
    summary = label(source, tmp_path)
    assert (summary.ok, len(rows(tmp_path / "run"))) == (IMAGES, IMAGES)
    assert rows(tmp_path / "run") == before
    assert not verify(tmp_path / "run").problems
    assert any("set aside" in warning for warning in summary.warnings)


def test_foreign_files_are_named(source, tmp_path, capsys):
    label(source, tmp_path)
    parts = tmp_path / "run" / "parts"
    pq.write_table(pa.table({"x": [1]}), parts / "9999-000001.parquet")
    (parts / "notes.txt").write_text("mine")
    assert main(["verify", str(tmp_path / "run")]) == 1
    complaints = capsys.readouterr().err
    assert "9999-000001.parquet was not written by" in complaints
    assert "notes.txt' is foreign" in complaints


def test_a_row_too_many_is_named(source, tmp_path):
    label(source, tmp_path, commit={"images": 1000, "seconds": 60})
    shutil.copy(first_part(tmp_path), tmp_path / "run" / "parts" / "0007-000001.parquet")
    problems = verify(tmp_path / "run").problems
    assert any("more than one row that counts" in problem for problem in problems)
    assert any("more rows that count twice" in problem for problem in problems)


def test_labels_that_disagree_are_named_and_written_again(source, tmp_path):
    label(source, tmp_path)
    labels = tmp_path / "run" / "labels"
    (labels / "00003.txt").write_text("0 0 0 0 0\n")
    (labels / "00004.txt").unlink()
    (labels / "stranger.txt").write_text("")
    (labels / "00005.txt").unlink()
    (labels / "00005.txt").symlink_to("/etc/passwd")
    named = " ".join(verify(tmp_path / "run").problems)
    assert all(name in named for name in ("00003.txt", "00004.txt", "00005.txt", "stranger.txt"))
    main(["export", str(tmp_path / "run")])
    assert not verify(tmp_path / "run").problems


def test_a_summary_that_disagrees_is_named(source, tmp_path):
    label(source, tmp_path)
    path = tmp_path / "run" / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "ok": 39}))
    assert "summary.json says 39 ok" in verify(tmp_path / "run").problems[0]


def test_an_image_that_was_deleted_is_gone_and_not_failed(source, tmp_path):
    label(source, tmp_path)
    (source / "00003.png").unlink()
    summary = label(source, tmp_path)
    assert (summary.listed, summary.ok, summary.failed, summary.gone) == (IMAGES, IMAGES - 1, 0, 1)
    assert (summary.failures, summary.exit_code) == ((), 0)
    assert not (tmp_path / "run" / "labels" / "00003.txt").exists()
    parts = len(list((tmp_path / "run" / "parts").iterdir()))
    summary = label(source, tmp_path)
    assert (summary.ok, summary.gone, summary.skipped) == (IMAGES - 1, 1, IMAGES)
    assert len(list((tmp_path / "run" / "parts").iterdir())) == parts, "said once is enough"
    assert not verify(tmp_path / "run").problems
    pictures(source, 4)
    summary = label(source, tmp_path)
    assert (summary.ok, summary.gone) == (IMAGES, 0), "it came back"


def test_gone_and_new_images_together(source, tmp_path):
    label(source, tmp_path)
    (source / "00003.png").rename(source / "moved.png")
    summary = label(source, tmp_path)
    assert (summary.ok, summary.gone) == (IMAGES, 1)


def test_retry_gives_failed_images_another_chance(tmp_path):
    source = pictures(tmp_path / "source", 20, poisoned=(4, 5, 6))
    summary = label(source, tmp_path, {"raise_on": POISON}, limits={"attempts": 1})
    assert (summary.ok, summary.failed) == (17, 3)
    pictures(source, 6, poisoned=(5,))
    summary = retry(tmp_path / "run")
    assert (summary.listed, summary.ok, summary.failed) == (20, 18, 2), "4 is healed; 6 was not touched"
    assert not verify(tmp_path / "run").problems
    assert (tmp_path / "run" / "labels" / "00004.txt").exists()
    pictures(source, 20)
    assert retry(tmp_path / "run").ok == 20
    with pytest.raises(SourceError, match="nothing to retry"):
        retry(tmp_path / "run")


def test_a_hostile_run_directory_executes_nothing(tmp_path):
    """verify and export read run.json, parts and labels; a factory named there must not be imported."""
    run = tmp_path / "run"
    label(pictures(tmp_path / "source", 5), tmp_path)
    mark = tmp_path / "executed"
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w')\n")
    described = json.loads((run / "run.json").read_text())
    described["config"]["model"]["factory"] = "evil:make"
    described["names"] = {"0": "!!python/object/apply:os.system ['touch x']"}
    described["source_root"] = "/etc"
    (run / "run.json").write_text(json.dumps(described))
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    for command in ("verify", "export"):
        subprocess.run([sys.executable, "-m", "farm", command, run], env=environ, capture_output=True, timeout=60)
    assert not mark.exists()


@pytest.mark.parametrize(
    "path", ["../../escape.jpg", "/tmp/farm-absolute/x.jpg", "a/../../b.jpg", "labels/../../c.jpg"]
)
def test_labels_stay_inside_their_folder(tmp_path, path):
    listed = tmp_path / "lists" / "list.txt"
    for folder in (listed.parent, listed.parent / "a", listed.parent / "labels"):
        folder.mkdir()
    image = pictures(tmp_path / "source", 1) / "00000.png"
    target = Path(os.path.normpath(listed.parent / path))
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(image, target)
    listed.write_text(f"{path}\n")
    before = set(tmp_path.rglob("*.txt"))
    values = config(listed, tmp_path / "run", output={"exports": ["yolo"]})
    assert farm.run(values).ok == 1
    made = set(tmp_path.rglob("*.txt")) - before - {tmp_path / "run" / "images.txt"}
    assert all(p.is_relative_to(tmp_path / "run" / "labels") for p in made)
    assert len(made) == 1
    assert not verify(tmp_path / "run").problems
    target.unlink()


def test_a_run_of_which_everything_is_done_starts_no_process(source, tmp_path):
    label(source, tmp_path)
    began = time.monotonic()
    seen = set()
    saboteur = Saboteur(lambda s, snapshot: seen.update(s.supervisor.processes()))
    assert saboteur.run(config(source, tmp_path / "run")).ok == IMAGES
    assert not seen
    assert time.monotonic() - began < 60
