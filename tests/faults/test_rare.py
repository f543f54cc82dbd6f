"""Rare interleavings, each found once by somebody who looked for it: none may hang a run, lose a row or lie about it."""

import json
import os
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

import farm
from farm.api import Hooks, retry
from farm.errors import SourceError
from farm.ipc.event_loop import EventLoop
from farm.sources.base import Source, examine
from farm.verify import verify
from tests.support.harness import ROOT, Saboteur, config, pictures, rows, start, wait_for

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def source(tmp_path):
    return pictures(tmp_path / "source", 60)


class Breaking(Source):
    """Lists some files, then raises."""

    def __init__(self, folder, error):
        super().__init__("breaking", str(folder), may_repeat=False)
        self._error = error

    def entries(self):
        for name in sorted(os.listdir(self.root))[:40]:
            yield examine(os.path.join(self.root, name), name)
        raise self._error

    def count(self):
        return None

    def chunk(self, entries):
        return [entry for _, entry in zip(range(8), entries, strict=False)] or []


@pytest.mark.parametrize("error", [ValueError("odd"), MemoryError(), OSError(5, "Input/output error")])
def test_a_listing_that_breaks_is_no_complete_run(source, tmp_path, error):
    with pytest.raises(SourceError, match="cannot be listed any further"):
        farm.run(config(source, tmp_path / "run"), source=Breaking(source, error))
    assert farm.run(config(source, tmp_path / "run"), source=None).ok == 60


def test_many_vanished_images_beside_large_batches(tmp_path):
    """Both sides of the collector's pipe have much to say at once; neither may wait for the other."""
    source = pictures(tmp_path / "source", 1500)
    run_dir = tmp_path / "run"
    farm.run(config(source, run_dir))
    for path in sorted(source.iterdir())[:1400]:
        path.unlink()
    for number in range(200):
        os.link(source / "01450.png", source / f"new-{number}.png")
    values = config(source, run_dir)
    values["commit"] = {"images": 2048, "seconds": 5}
    summary = farm.run(values)
    assert (summary.ok, summary.failed, summary.gone) == (300, 0, 1400)


def test_a_stopped_collector_is_replaced(source, tmp_path, monkeypatch):
    monkeypatch.setattr("farm.supervisor.collector_link.COLLECTOR_SILENCE_S", 1.0)
    farm.run(config(source, tmp_path / "undisturbed", {"sleep_ms": 5}))

    def stop(saboteur, snapshot):
        if snapshot.done > 10 and not saboteur.kills:
            saboteur.strike("collector", signal.SIGSTOP)

    saboteur = Saboteur(stop)
    values = config(source, tmp_path / "run", {"sleep_ms": 5}, limits={"item_timeout_s": 1.0})
    saboteur.run(values)
    assert saboteur.kills == 1
    assert rows(tmp_path / "run") == rows(tmp_path / "undisturbed")


def test_waking_a_closed_event_loop_touches_no_file_of_others(tmp_path):
    loop = EventLoop()
    loop.close()
    files = [open(tmp_path / str(n), "wb") for n in range(8)]  # noqa: SIM115
    for _ in range(5):
        loop.wake()
    for file in files:
        file.close()
    assert all((tmp_path / str(n)).read_bytes() == b"" for n in range(8))


def test_results_never_overtake_what_they_are_about(source, tmp_path):
    """The collector is held while it starts, so that workers are ready before it is."""

    def hold(saboteur, snapshot):
        processes = saboteur.supervisor.processes()
        if "collector" in processes and not saboteur.kills:
            saboteur.strike("collector", signal.SIGSTOP)
            saboteur.held = time.monotonic()
        elif saboteur.kills == 1 and time.monotonic() - saboteur.held > 2:
            saboteur.strike("collector", signal.SIGCONT)

    values = config(source, tmp_path / "run", workers={"count": 6}, commit={"images": 1, "seconds": 5})
    assert Saboteur(hold).run(values).ok == 60
    for part in (tmp_path / "run" / "parts").iterdir():
        assert pq.read_schema(part).metadata[b"farm.task"] == b"detect"


def test_an_image_that_vanished_and_is_back(source, tmp_path):
    """A folder that was not mounted for a while: what came back is labelled again, and everything adds up."""
    values = config(source, tmp_path / "run")
    farm.run(values)
    hidden = [(path, path.rename(tmp_path / path.name)) for path in sorted(source.iterdir())[:7]]
    assert farm.run(values).gone == 7
    for path, moved in hidden:
        moved.rename(path)
    summary = farm.run(values)
    assert (summary.ok, summary.failed) == (60, 0)
    assert not verify(tmp_path / "run").problems
    again = farm.run(values)
    assert (again.ok, again.skipped) == (60, 60)


def test_a_failed_image_that_was_deleted_is_gone_once_it_is_retried(source, tmp_path):
    (source / "none.png").write_text("no image")
    (source / "also_none.png").write_text("no image")
    values = config(source, tmp_path / "run", limits={"attempts": 1})
    assert farm.run(values).failed == 2
    moved = (source / "none.png").rename(tmp_path / "moved")
    summary = retry(tmp_path / "run")
    assert (summary.ok, summary.failed, summary.gone) == (60, 1, 1)
    assert not verify(tmp_path / "run").problems
    moved.rename(source / "none.png")
    summary = farm.run(values)
    assert (summary.ok, summary.failed, summary.gone) == (60, 2, 0)
    assert not verify(tmp_path / "run").problems


def test_a_flipped_bit_is_named(tmp_path):
    source = pictures(tmp_path / "source", 400)
    farm.run(config(source, tmp_path / "run", commit={"images": 1000, "seconds": 60}))
    part = sorted((tmp_path / "run" / "parts").iterdir())[0]
    whole = part.read_bytes()
    found = 0
    places = range(8, len(whole) * 3 // 5, 211)
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        part.write_bytes(damaged)
        found += bool(verify(tmp_path / "run").problems)
    assert found >= 0.7 * len(places), "what is left are fields of page headers that nobody reads"
    part.write_bytes(whole)
    assert not verify(tmp_path / "run").problems


def test_damaged_keys_are_set_aside_and_labelled_again(source, tmp_path):
    values = config(source, tmp_path / "run")
    farm.run(values)
    part = sorted((tmp_path / "run" / "parts").iterdir())[0]
    column = pq.ParquetFile(part).metadata.row_group(0).column(0)
    data = bytearray(part.read_bytes())
    start_at = column.dictionary_page_offset or column.data_page_offset
    data[start_at : start_at + column.total_compressed_size] = bytes(column.total_compressed_size)
    part.write_bytes(data)
    summary = farm.run(values)
    assert summary.ok == 60
    assert any("damaged" in warning for warning in summary.warnings)


def test_two_interrupts_end_a_run_whose_worker_is_frozen_at_its_end(source, tmp_path):
    began = []

    def freeze(saboteur, snapshot):
        if snapshot.done >= 20 and not saboteur.kills:
            saboteur.strike("worker 0", signal.SIGSTOP)
            saboteur.supervisor.interrupt(signal.SIGTERM)
            saboteur.supervisor.interrupt(signal.SIGTERM)
            began.append(time.monotonic())

    summary = Saboteur(freeze).run(config(source, tmp_path / "run", {"sleep_ms": 40}))
    assert summary.interrupted == "SIGTERM"
    assert time.monotonic() - began[0] < 15


def test_nohup_means_it(source, tmp_path):
    values = config(source, tmp_path / "run", {"sleep_ms": 20})
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    process = subprocess.Popen(
        [sys.executable, "-c", f"import signal, os, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
         f"os.execv(sys.executable, [sys.executable, '-m', 'farm', 'run', {str(path)!r}])"],
        env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert wait_for(lambda: list((tmp_path / "run" / "parts").glob("0*")), 30)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 0


def test_ctrl_c_while_labels_are_written(tmp_path, source):
    """After the last image is committed nobody catches the signal any more: the export ends as any program does."""
    process = start({**config(source, tmp_path / "run"), "output": {"dir": str(tmp_path / "run")}}, tmp_path)
    process.communicate(timeout=60)
    assert process.returncode == 0
    handlers = []
    before = signal.getsignal(signal.SIGINT)
    hooks = Hooks(on_start=lambda supervisor: handlers.append("on"), on_end=lambda: handlers.append("off"))
    farm.run({**config(source, tmp_path / "other"), "output": {"dir": str(tmp_path / "other")}}, hooks=hooks)
    assert handlers == ["on", "off"]
    assert signal.getsignal(signal.SIGINT) == before
