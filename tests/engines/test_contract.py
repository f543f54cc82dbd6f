"""The contract of engines, by whichever a run is done: the same items in, the same rows out, failures recorded, resumed.

Expectations are written out; `process` is not the measure of the others, though all rows must be equal to its rows.
"""

import os
import signal

import pytest

import farm
from farm.api import Hooks, retry
from farm.verify import verify
from tests.support.engines import config, sound
from tests.support.harness import POISON, pictures

ENGINES = {
    "process": {"engine": "local", "kind": "process"},
    "thread": {"engine": "local", "kind": "thread"},
    "locked": {"engine": "local", "kind": "locked"},
    "ray": {"engine": "ray", "kind": "process"},
}
FAULTY = {"empty.jpg": "EmptyFile", "page.jpg": "NotAnImage", "dangling.png": "FileNotFoundError", "00003.png": None}
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(params=ENGINES)
def engine(request):
    if request.param == "ray":
        request.getfixturevalue("own_ray")
    return request.param


def values(engine, source, run_dir, model=None, **sections):
    """A run by this engine, two workers on CPU."""
    how = ENGINES[engine]
    workers = {"count": 2, "devices": "cpu", "threads": 1, "kind": how["kind"]}
    return config(source, run_dir, how["engine"], model, **{"workers": workers, **sections})


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Thirty images, one of which the model rejects, three files that are none, and a name that is no UTF-8."""
    source = pictures(tmp_path_factory.mktemp("mixed") / "images", 30, poisoned=(3,))
    (source / "empty.jpg").write_bytes(b"")
    (source / "page.jpg").write_text("<!DOCTYPE html>")
    (source / "dangling.png").symlink_to("nowhere.png")
    with open(os.fsencode(source) + b"/not-utf8-\xff.png", "wb") as file:
        file.write((source / "00001.png").read_bytes())
    return source


@pytest.fixture(scope="module")
def photographs(coco_images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for image in sorted(coco_images.iterdir())[:6]:
        (folder / image.name).symlink_to(image)
    return folder


@pytest.fixture(scope="module")
def of_processes(mixed, photographs, coco_weights, tmp_path_factory):
    """Rows of both sources, and label files of the second, by processes of this machine."""
    folder = tmp_path_factory.mktemp("processes")
    farm.run(values("process", mixed, folder / "mixed", {"raise_on": POISON}, limits={"attempts": 2}))
    found = labelled("process", photographs, coco_weights, folder / "photographs")
    return sound(folder / "mixed"), *found


def labelled(engine, photographs, weights, run_dir):
    """Rows and label files of real images and weights."""
    model = {"weights": str(weights), "imgsz": 320}
    farm.run({**values(engine, photographs, run_dir), "model": model, "output": str(run_dir)})
    return sound(run_dir), {path.name: path.read_bytes() for path in (run_dir / "labels").iterdir()}


def test_same_items_in_same_rows_out_failures_recorded(engine, mixed, of_processes, tmp_path):
    options = {"limits": {"attempts": 2}, "commit": {"images": 7}}
    summary = farm.run(values(engine, mixed, tmp_path / "run", {"raise_on": POISON}, **options))
    assert (summary.listed, summary.ok, summary.failed, summary.exit_code) == (34, 30, 4, 3)
    found = sound(tmp_path / "run")
    failed = {path: error for path, status, error, *_ in found if status == "failed"}
    assert failed.keys() == FAULTY.keys()
    assert all(kind in (None, failed[path]["type"]) for path, kind in FAULTY.items())
    assert (failed["00003.png"]["stage"], failed["00003.png"]["type"]) == ("predict", "RuntimeError")
    assert {(path, width, height) for path, status, _, width, height, *_ in found if status == "ok"} >= {
        ("00000.png", 10, 8), ("00029.png", 39, 8)
    }  # fmt: skip
    assert found == of_processes[0]


def test_real_weights_give_the_same_labels_to_the_byte(engine, photographs, coco_weights, of_processes, tmp_path):
    found, labels = labelled(engine, photographs, coco_weights, tmp_path / "run")
    assert len(labels) == 5, "at this size one image shows nothing, and gets no file"
    assert (found, labels) == of_processes[1:]


def test_an_interrupted_run_is_continued_and_failed_images_are_tried_again(engine, tmp_path):
    source = pictures(tmp_path / "images", 150, poisoned=(149,))
    running, interrupted = [], []

    def look(snapshot):
        if snapshot.committed and not interrupted:
            interrupted.append(snapshot.committed)
            running[0].interrupt(signal.SIGINT)

    same = values(engine, source, tmp_path / "run", {"sleep_ms": 20, "raise_on": POISON}, commit={"images": 8})
    summary = farm.run(same, hooks=Hooks(running.append, look))
    assert (summary.exit_code, summary.interrupted) == (130, "SIGINT")
    before = sound(tmp_path / "run")
    assert 0 < len(before) < 150
    seen = []
    summary = farm.run(same, hooks=Hooks(on_batch=lambda batch: seen.extend(batch["path"].to_pylist())))
    assert not set(seen) & {row[0] for row in before}
    assert (summary.ok, summary.failed, summary.skipped) == (149, 1, len(before))
    assert len(sound(tmp_path / "run")) == 150
    again = farm.run(same, hooks=Hooks(on_batch=lambda batch: pytest.fail("nothing was left to do")))
    assert (again.ok, again.failed, again.skipped) == (149, 1, 150)
    (source / "00149.png").write_bytes((source / "00001.png").read_bytes())
    assert (retry(tmp_path / "run").ok, verify(tmp_path / "run").problems) == (150, ())
