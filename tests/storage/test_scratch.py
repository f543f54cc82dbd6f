"""Temporary folders: who is dead leaves nothing for long, who lives keeps what is its own, and nobody else is touched."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from farm.errors import OutputError
from farm.machine.processes import myself
from farm.storage import scratch
from farm.storage.scratch import OWNER, Scratch, sweep
from tests.support.harness import ROOT, config, group_members, pictures, start, wait_for

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where temporary files go, of this process and its children."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setattr(scratch, "SHORT_PLACES", ())
    return place


def killed(text):
    """A process that runs this, says where its folder is, and is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    folder = Path(process.stdout.readline().strip())
    process.kill()
    process.wait(30)
    return folder


MADE = "from farm.storage.scratch import Scratch\nmade = Scratch('tune')\nprint(made.path, flush=True)\ninput()"


def test_what_a_killed_process_left_is_removed_by_the_next(place):
    left = killed(MADE)
    assert left.is_dir()
    with Scratch("tune") as other:
        assert not left.exists()
        with Scratch("tune"):
            assert other.path.is_dir(), "who lives keeps what is its own"
    assert not list(place.iterdir())


def test_a_living_process_is_left_alone(place):
    process = subprocess.Popen(
        [sys.executable, "-c", MADE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    folder = Path(process.stdout.readline().strip())
    sweep()
    assert folder.is_dir()
    process.communicate("\n")
    sweep()
    assert not folder.exists()


def test_a_fork_keeps_no_folder_and_removes_none(place):
    fork = MADE.replace("print", "import os\nos.fork() or os.read(0, 1)\nprint").replace("input()", "")
    with Scratch("tune") as mine:
        if not os.fork():
            mine.close()
            os._exit(0)
        os.wait()
        assert mine.path.is_dir()
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", f"{fork}os.kill(os.getpid(), 9)"], stdin=reading, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    os.close(reading)
    folder = Path(process.stdout.readline().strip())
    process.wait(30)
    assert wait_for(lambda: sweep() or not folder.exists(), 30), "its child still lives"
    os.close(writing)


@pytest.mark.parametrize(
    ("machine", "stays"),
    [("elsewhere another-boot pid:[1]", True), ("elsewhere {boot} pid:[1]", False), ("{name} another-boot pid:[1]", False)],
    ids=["another machine", "another container", "before a reboot"],
)  # fmt: skip
def test_a_free_lock_counts_where_locks_are_shared(place, machine, stays):
    left = killed(MADE)
    words = myself().machine.split()
    said = replace(myself(), machine=machine.format(name=words[0], boot=words[1]))
    (left / OWNER).write_text(json.dumps(asdict(said)))
    sweep()
    assert left.exists() == stays


def test_an_id_that_came_again_is_another_process(place):
    left = killed(MADE)
    (left / OWNER).write_text(json.dumps(asdict(myself())))
    sweep()
    assert left.exists(), "its owner lives"
    (left / OWNER).write_text(json.dumps(asdict(replace(myself(), born=myself().born - 1))))
    sweep()
    assert not left.exists()


@pytest.mark.parametrize("said", [None, "", "nonsense", "[]", "{}"])
def test_what_says_nothing_of_its_owner_stays(place, said):
    folder = place / "farm-tune-unknown"
    folder.mkdir(0o700)
    if said is not None:
        (folder / OWNER).write_text(said)
    sweep()
    assert folder.is_dir()


def test_a_link_is_no_folder(place, tmp_path):
    left = killed(MADE)
    moved = left.rename(tmp_path / "elsewhere")
    (place / "farm-tune-link").symlink_to(moved)
    sweep()
    assert moved.is_dir()


def test_a_killed_run_leaves_nothing_that_the_next_does_not_remove(place, tmp_path):
    source = pictures(tmp_path / "source", 200)
    process = start(config(source, tmp_path / "run", {"sleep_ms": 20}), tmp_path)
    assert wait_for(lambda: list((tmp_path / "run" / "parts").glob("0*")), 60)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert wait_for(lambda: not group_members(process.pid), 30)
    left = {path.name for path in place.iterdir()}
    assert not [name for name in left if name.startswith("pymp-")]
    (tmp_path / "run" / ".run.json.4711").write_text("of an earlier version")
    (tmp_path / "run" / ".summary.json.0123abcd.farm-part").write_text("half")
    again = start(config(source, tmp_path / "run", {"sleep_ms": 20}), tmp_path)
    again.communicate(timeout=100)
    assert again.returncode == 0
    assert not list(place.iterdir())
    assert sorted(path.name for path in (tmp_path / "run").glob(".*")) == [".lock"]


def test_a_place_that_refuses_is_passed_over(place, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setattr(scratch, "SHORT_PLACES", (str(other),))
    monkeypatch.setattr(tempfile, "tempdir", str(place / "none"))
    with Scratch("tune") as made:
        assert made.path.parent == other


def test_where_nothing_takes_a_temporary_file_one_line_says_so(place, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(place / "none"))
    with pytest.raises(OutputError, match=rf"{place}/none: No such file or directory.*set TMPDIR"):
        Scratch("tune")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: (_ for _ in ()).throw(FileNotFoundError(2, "none usable")))
    with pytest.raises(OutputError, match="there is none"):
        Scratch("tune")


def test_a_long_way_to_temporary_files(place, tmp_path):
    """The fork server listens at a name of 107 bytes at most."""
    far = tmp_path / ("x" * 100) / ("y" * 100)
    far.mkdir(parents=True)
    text = """
from farm import Farm
with Farm(model={"factory": "farm.models.fake:make"}, workers={"count": 1, "start": "forkserver", "devices": "cpu"}) as f:
    print(f.submit("a.jpg").result().status)
"""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(far)}
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, env=environ, timeout=60)
    assert done.stdout.strip() == "ok", done.stderr
    assert not list(far.iterdir())
