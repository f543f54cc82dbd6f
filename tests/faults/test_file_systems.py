"""Runs on file systems that lack something, as commands with all their processes. What is missing stands in `lacking`."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from farm.verify import verify
from tests.support.harness import ROOT, config, pictures, rows, wait_for

pytestmark = pytest.mark.timeout(120)

SHIM = Path(__file__).parent / "lacking"
SMB = "flock=EOPNOTSUPP open_folder=EACCES symlink=EPERM replace=EEXIST utime=EPERM chmod=EPERM"
FUSE = "flock=ENOSYS fsync_folder=EINVAL"


def begin(values, tmp_path, lacks):
    """The command on a file system that lacks this, wherever it lies below `tmp_path`."""
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    environ = {**os.environ, "PYTHONPATH": f"{SHIM}:{ROOT}", "FARM_LACKS": lacks, "FARM_LACKS_AT": str(tmp_path)}
    return subprocess.Popen(
        [sys.executable, "-m", "farm", "run", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environ, start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        (SMB, ["has no locks", "cannot flush folders", "cannot rename over a file", "has no symbolic links"]),
        (FUSE, ["has no locks", "cannot flush folders"]),
    ],
)
def test_a_run_goes_on_and_says_once_what_is_missing(tmp_path, lacks, said):
    source = pictures(tmp_path / "source", 4)
    values = config(source, tmp_path / "run", output={"exports": ["yolo"]}, workers={"count": 1})
    done = begin(values, tmp_path, lacks)
    out, err = done.communicate(timeout=100)
    assert done.returncode == 0, err
    assert [out.replace("\n", " ").count(text) for text in said] == [1] * len(said)
    assert len(list((tmp_path / "run" / "labels").iterdir())) == 4
    assert (tmp_path / "run" / "data.yaml").exists() == ("symlink" not in lacks)
    assert not verify(tmp_path / "run").problems


def test_two_runs_without_locks(tmp_path):
    """The second is told who is at work; when that was killed, it continues at once, and no row is there twice."""
    source = pictures(tmp_path / "source", 60)
    values = config(source, tmp_path / "run", {"sleep_ms": 100}, workers={"count": 1})
    first = begin(values, tmp_path, "flock=ENOLCK")
    assert wait_for(lambda: list((tmp_path / "run" / "parts").glob("0*")), 60)
    second = begin(values, tmp_path, "flock=ENOLCK")
    assert f"is being written by process {first.pid} on" in second.communicate(timeout=60)[1]
    assert second.returncode == 2
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    third = begin(values, tmp_path, "flock=ENOLCK")
    err = third.communicate(timeout=100)[1]
    assert third.returncode == 0, err
    assert [row[0] for row in rows(tmp_path / "run")] == [f"{number:05d}.png" for number in range(60)]
