"""What `farm verify` says: of runs that are whole, of those that have not come to their end, of label files; and what
it costs."""

import gc
import signal
import subprocess
import sys
import tracemalloc

import pytest

import farm
from farm.api import Hooks
from farm.cli import main
from farm.cli.verify import in_words
from farm.core.schema import part_metadata
from farm.errors import OutputError
from farm.storage.part_writer import PartWriter
from farm.storage.run_store import RunStore
from farm.verify import Verification, verify
from farm.verify.verification import SHOWN
from tests.exports.conftest import make_rows
from tests.support.harness import ROOT, WITHOUT_ROOTS_PRIVILEGE, config, pictures, wait_for


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Verification(3, 1, (), ()), "whole: 4 images = 3 labelled + 1 failed, each once"),
        (Verification(3, 1, (), (), gone=2), "whole: 6 images = 3 labelled + 1 failed + 2 gone, each once"),
        (
            Verification(63, 0, (), (), finished=False, remaining=65),
            "unfinished: so far 63 images = 63 labelled + 0 failed, each once; 65 still to do",
        ),
        (
            Verification(63, 0, (), (), finished=False),
            "unfinished: so far 63 images = 63 labelled + 0 failed, each once; an unknown number still to do",
        ),
    ],
)
def test_words(found, words):
    assert in_words(found) == words


def test_what_is_committed_as_a_run_ends_is_not_still_to_do(tmp_path):
    """The collector commits while the run is stopped at once, and is not heard any more."""
    source = pictures(tmp_path / "source", 60)
    values = config(source, tmp_path / "run", {"sleep_ms": 20}, workers={"count": 1}, commit={"images": 4})
    started, sent = [], []

    def look(snapshot):
        if snapshot.committed and not sent:
            for _ in range(2):
                sent.append(signal.SIGTERM)
                started[0].interrupt(signal.SIGTERM)
            committed = len(list((tmp_path / "run" / "parts").iterdir()))
            assert wait_for(lambda: len(list((tmp_path / "run" / "parts").iterdir())) > committed, 30)

    summary = farm.run(values, hooks=Hooks(on_start=started.append, on_snapshot=look))
    assert summary.remaining == 60 - summary.ok


@pytest.mark.parametrize("signals", [1, 2])
def test_an_interrupted_run_is_unfinished_and_nothing_is_broken(tmp_path, capsys, signals):
    source = pictures(tmp_path / "source", 60)
    values = config(source, tmp_path / "run", {"sleep_ms": 20}, workers={"count": 1}, commit={"images": 4})
    started, sent = [], []

    def look(snapshot):
        if snapshot.committed and len(sent) < signals:
            sent.append(signal.SIGTERM)
            started[0].interrupt(signal.SIGTERM)

    summary = farm.run(values, hooks=Hooks(on_start=started.append, on_snapshot=look))
    assert 0 < summary.ok < 60
    assert main(["verify", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert f"unfinished: so far {summary.ok} images" in out and "whole" not in out
    if summary.remaining is not None:
        assert f"{60 - summary.ok} still to do" in out
    (tmp_path / "run" / "summary.json").unlink()
    assert not verify(tmp_path / "run").finished, "killed before it could say anything"
    farm.run(config(source, tmp_path / "run", {"sleep_ms": 20}))
    assert main(["verify", str(tmp_path / "run")]) == 0
    assert "whole: 60 images" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["verify", "export"])
def test_parts_that_cannot_be_listed_are_one_line(tmp_path, command):
    if subprocess.run([*WITHOUT_ROOTS_PRIVILEGE, "true"], capture_output=True).returncode:
        pytest.skip("setpriv cannot give up root's privilege here")
    RunStore.open(tmp_path / "run").close()
    (tmp_path / "run" / "parts").chmod(0)
    call = [*WITHOUT_ROOTS_PRIVILEGE, sys.executable, "-m", "farm", command, str(tmp_path / "run")]
    done = subprocess.run(call, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (done.returncode, done.stderr) == (1, f"farm: {tmp_path / 'run'} cannot be read: Permission denied\n")


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(OutputError, match="no run directory"):
        verify(tmp_path)


def committed(folder, images, at_once=1000):
    """A run of so many images in which nothing was found, with the labels that gives: none."""
    writer = PartWriter(RunStore.open(folder).parts_dir, 1)
    for first in range(0, images, at_once):
        paths = [f"a folder of some length/{number:08d}.jpg" for number in range(first, first + at_once)]
        keys = [number.to_bytes(16, "little") for number in range(first, first + at_once)]
        writer.commit([make_rows(paths, boxes=[], key=keys)], part_metadata("detect", {0: "thing"}, "digest"))
    (folder / "labels").mkdir()
    return folder


def peak_of(folder):
    gc.collect()
    tracemalloc.start()
    assert not verify(folder).problems
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_a_label_path_costs_a_few_bytes(tmp_path):
    few, many = 4_000, 36_000
    small, large = committed(tmp_path / "few", few), committed(tmp_path / "many", many)
    peak_of(small)  # what is imported and remembered once
    assert (peak_of(large) - peak_of(small)) / (many - few) < 40


def test_problems_without_number_are_counted_not_kept(tmp_path):
    run = committed(tmp_path / "run", 1000)
    strangers = 3000
    for number in range(strangers):
        (run / "labels" / f"{number}.txt").touch()
    problems = verify(run).problems
    assert len(problems) == SHOWN + 1
    assert problems[-1] == f"{strangers - SHOWN} more label files that disagree"


@pytest.mark.parametrize("place", [".", "sub"])
def test_what_ultralytics_keeps_of_labels_is_no_stranger(tmp_path, place):
    run = committed(tmp_path / "run", 1000)
    (run / "labels" / place).mkdir(exist_ok=True)
    (run / "labels" / place / "a folder of some length.cache").touch()
    assert not verify(run).problems
