"""Runs that are ended while their model is converted: nothing goes on without them, and the same command continues."""

import os
import signal
import subprocess
import sys

import psutil
import pytest
import yaml

from farm.api.summarising import EXIT_SIGNAL
from tests.support.harness import ROOT, config, pictures, wait_for

pytest.importorskip("onnxruntime")


@pytest.fixture
def command(tmp_path):
    """Start `farm run` with a model that is to be converted, in a home of its own."""
    from ultralytics import YOLO

    YOLO("yolo11n.yaml", verbose=False).save(tmp_path / "best.pt")
    model = {"weights": str(tmp_path / "best.pt"), "imgsz": 32, "backend": "onnxruntime"}
    settings = config(pictures(tmp_path / "images", 4), tmp_path / "run", model, workers={"count": 1})
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "home").mkdir()
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path / "home")}
    started = []

    words = [sys.executable, "-m", "farm", "run", str(tmp_path / "config.yaml")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environ}

    def start():
        started.append(subprocess.Popen(words, start_new_session=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def converter_of(run):
    """The process that converts for a run, once there is one."""
    found = []

    def look():
        found.extend(p for p in psutil.Process(run.pid).children() if "farm.models.conversion.converter" in p.cmdline())
        return found

    assert wait_for(look, 60)
    return found[0]


def is_gone(process):
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_converter_dies_with_a_run_that_is_killed_and_what_it_left_is_taken_away(command, tmp_path):
    run = command()
    converter = converter_of(run)
    backends = tmp_path / "home" / ".cache" / "farm" / "backends"
    assert wait_for(lambda: list(backends.glob("*/.making-*/best.pt")), 60), "it has begun"
    (left,) = backends.glob("*/.making-*")
    run.kill()
    assert wait_for(lambda: is_gone(converter), 30)
    assert not list(backends.glob("**/*.onnx")), "it did not go on to its end"
    again = command()
    converter_of(again)
    assert not left.exists()
    again.terminate()
    again.communicate(timeout=20)
    assert not list(backends.glob("*/.making-*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_run_and_converter_at_once(command, number):
    run = command()
    converter = converter_of(run)
    run.send_signal(number)
    _, errors = run.communicate(timeout=20)
    assert run.returncode == EXIT_SIGNAL + number
    assert errors.strip().splitlines()[-1] == "farm: interrupted; run the same command again to continue"
    assert is_gone(converter)
