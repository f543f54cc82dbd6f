"""What cannot be told ends nothing: streams that are closed, full, gone, or cannot encode a name."""

import contextlib
import io
import json
import logging
import os
import pty
import signal
import subprocess
import sys
import time
from multiprocessing import util
from pathlib import Path
from types import SimpleNamespace

import pytest

from farm.cli import main
from farm.cli.signals import passed_to
from farm.machine import standard_streams as streams
from farm.machine.standard_streams import PLAIN, Unfailing
from farm.storage.run_store import RunStore
from tests.support.harness import ROOT, config, pictures

FULL = "/dev/full"
TALKATIVE = "tests.faults.talkative:make"


@contextlib.contextmanager
def gone():
    """The writing end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.fixture
def full():
    descriptor = os.open(FULL, os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


def test_what_cannot_be_written_is_lost_and_remembered(full):
    with gone() as writer:
        for descriptor, kind in ((full, OSError), (writer, BrokenPipeError)):
            raw = Unfailing(descriptor, None)
            stream = io.TextIOWrapper(io.BufferedWriter(raw), line_buffering=True)
            print("a word" * 10_000, file=stream, flush=True)
            print("another", file=stream)
            stream.close()
            assert isinstance(raw.error, kind)
    os.fstat(full)  # still open


def test_a_reader_that_takes_nothing_is_waited_for_once():
    reader, writer = os.pipe()
    raw = Unfailing(writer, patience_s=0.2)
    began = time.monotonic()
    for _ in range(50):
        raw.write(b"x" * 10_000)
    assert time.monotonic() - began < 6, "a wait for each of them would be ten seconds"
    os.set_blocking(reader, False)
    with contextlib.suppress(BlockingIOError):
        while os.read(reader, 65536):
            pass
    raw.write(b"heard again")
    assert os.read(reader, 100) == b"heard again"
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    ("encoding", "seen"),
    [("ascii", r"d\xfcne \u56fe ~ \udcff"), ("latin-1", r"düne \u56fe ~ \udcff"), ("utf-8", r"düne 图 … \udcff")],
)
def test_what_an_encoding_lacks_is_escaped(encoding, seen):
    assert "düne 图 … \udcff".encode(encoding, PLAIN).decode(encoding) == seen


def test_a_stream_that_a_program_put_there_is_left_alone(monkeypatch):
    mine = io.StringIO()
    monkeypatch.setattr(sys, "stdout", mine)
    with streams.unfailing() as output:
        print("heard")
    assert (output, sys.stdout, mine.getvalue()) == (None, mine, "heard\n")


def shell(line, tmp_path, **environ):
    """A command line with redirections of its own, `farm` being this one. Returns its exit code and what is heard."""
    script = f'farm() {{ "{sys.executable}" -m farm "$@"; }}; set -o pipefail; {line}'
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **environ}
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=environ, cwd=tmp_path, timeout=120
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("line", "code", "heard"),
    [
        (f"farm schema >{FULL}", 1, "farm: standard output cannot be written: No space left on device\n"),
        ("farm schema >&-", 1, "farm: standard output cannot be written: Bad file descriptor\n"),
        (f"farm --help >{FULL} 2>&-", 1, ""),
        ("farm schema | true", 1, ""),
        (f"farm run nowhere.yaml 2>{FULL}", 2, ""),
        ("farm verify nowhere >&- 2>&- <&-", 1, ""),
        (
            "farm run source=- output=a model.factory=farm.models.fake:make <&-",
            2,
            "farm: source - is standard input, which is not available here",
        ),
    ],
)
def test_a_command_that_is_not_heard_exits_as_it_should(line, code, heard, tmp_path):
    found = shell(line, tmp_path)
    assert found[0] == code
    assert found[1].startswith(heard) and (heard or not found[1])
    assert "Traceback" not in found[1]


def test_a_check_that_is_not_heard_has_failed(tmp_path, monkeypatch, full):
    pictures(tmp_path / "images", 1)
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(config(tmp_path / "images", tmp_path / "run")))
    with open(full, "w", closefd=False) as stdout:
        monkeypatch.setattr(streams, "STDOUT", full)
        monkeypatch.setattr(streams, "NAMES", {full: "stdout", streams.STDERR: "stderr"})
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["check", str(path)]) == 1


def run_dir(tmp_path, **sections):
    """The command of a run whose workers print; one of its images has a name that ASCII lacks, and is none."""
    pictures(tmp_path / "images", 4)
    (tmp_path / "images" / "düne-é.png").write_text("no image")
    values = {
        **config(tmp_path / "images", tmp_path / "run", **sections),
        "model": {"factory": TALKATIVE, "args": {"sleep_ms": 100}},
    }
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(values))
    return path


def counts(run_dir):
    rows = [row for batch in RunStore.view(run_dir).history.batches(["status"]) for row in batch.to_pylist()]
    return len(rows), sum(row["status"] == "ok" for row in rows)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("said_to", [f"<&- >{FULL} 2>&-", "2>&1 | true"])
def test_a_run_that_is_not_heard_labels_everything(said_to, tmp_path):
    """Its worker is replaced after three images: it leaves with what it could not say, and none counts as dead."""
    path = run_dir(tmp_path, workers={"count": 1, "recycle_after": 3})
    code, heard = shell(f"farm run {path} {said_to}", tmp_path, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert (code, heard) == (3, "")
    assert counts(tmp_path / "run") == (5, 4)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["restarts"] == 0


@pytest.mark.timeout(120)
def test_a_run_goes_on_without_its_terminal(tmp_path):
    path = run_dir(tmp_path, workers={"count": 1})
    ours, theirs = pty.openpty()
    run = subprocess.Popen(
        [sys.executable, "-m", "farm", "run", str(path)], stdin=theirs, stdout=theirs, stderr=theirs,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (tmp_path / "run" / "parts").is_dir():
        time.sleep(0.02)
    os.close(ours)
    assert run.wait(60) == 3
    assert counts(tmp_path / "run") == (5, 4)


def test_a_terminal_that_closes_stops_a_run_once():
    """The system says so, and the shell again: what is in hand is finished all the same."""
    heard = []
    with passed_to(SimpleNamespace(interrupt=heard.append)):
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
    assert heard == [signal.SIGTERM]


def test_what_libraries_log_goes_where_a_child_says_its_words(monkeypatch, full):
    logger = logging.getLogger("test_standard_streams")
    with open(full, "w", closefd=False) as stderr:
        monkeypatch.setattr(streams, "STDERR", full)
        monkeypatch.setattr(streams, "NAMES", {streams.STDOUT: "stdout", full: "stderr"})
        monkeypatch.setattr(sys, "stderr", stderr)
        handler = logging.StreamHandler()
        logger.addHandler(handler)
        try:
            streams.make_unfailing()
            assert handler.stream is sys.stderr is not stderr
            logger.warning("lost")
            streams.tell("lost")
        finally:
            logger.removeHandler(handler)


def test_a_child_starts_whatever_a_program_could_not_print(monkeypatch, full):
    stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(full, "w", closefd=False)))
    monkeypatch.setattr(sys, "stdout", stdout)
    stdout.write("kept in the buffer")
    with pytest.raises(OSError):
        util._flush_std_streams()
    with streams.forgiven():
        util._flush_std_streams()


def test_closed_streams_are_reserved(tmp_path):
    """Else the next file gets the number of one, and the warnings of libraries in C."""
    code = "from farm.machine import standard_streams as streams; import os; print(streams.reserve(), file=open('said', 'w')); os.write(2, b'lost'); os._exit(os.open('said', 0))"
    line = f'"{sys.executable}" -c "{code}" <&- 2>&-'
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environ, timeout=60)
    assert done.returncode > 2
    assert Path(tmp_path, "said").read_text() == "{0, 2}\n"
