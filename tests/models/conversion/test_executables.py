"""Conversions and comparisons, with a converter that is made up: how long they may take, what is compared and kept."""

import errno
import fcntl
import os
import sys
import time
from pathlib import Path

import pytest

from farm.config.sections import ModelConfig
from farm.errors import ModelError, OutOfTimeError, RunMismatchError, WeightsChangedError
from farm.models import cache
from farm.models.cache_eviction import found, remove
from farm.models.conversion import identity, int8, job
from farm.models.conversion.executables import make
from farm.models.conversion.identity import entry_of
from farm.models.conversion.request import Request
from farm.models.conversion.sampling import sample_size
from farm.models.weights.files import weights_digest

ANSWER = {"matched": 0.97, "confidence": 0.0, "boxes": 100, "found": 99, "images": 2}


def model(**values):
    return ModelConfig(weights="yolo.pt", **values)


CONVERTER = """#!{python}
import json, pathlib, sys, time
(pathlib.Path(json.load(sys.stdin)["out"]) / ".making-x").mkdir()
time.sleep(60)
"""


def test_what_a_conversion_that_is_cut_off_has_made_is_taken_away(tmp_path, monkeypatch):
    """A converter that begins, and gets no further."""
    converter = tmp_path / "converter"
    converter.write_text(CONVERTER.format(python=sys.executable))
    converter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(converter))
    request = Request(model(backend="onnxruntime"), "digest", "onnxruntime", "cpu")
    with pytest.raises(OutOfTimeError, match=r"took longer than 2 s"):
        make(request, print, tmp_path / "cache", timeout_s=2)
    (folder,) = (tmp_path / "cache").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "used"]


def test_somebody_elses_conversion_is_not_waited_for_longer_than_there_is_time(tmp_path):
    request = Request(model(backend="onnxruntime"), "digest", "onnxruntime", "cpu")
    with pytest.raises(OutOfTimeError):
        make(request, print, tmp_path, timeout_s=0.0)  # makes the folder
    (folder,) = tmp_path.iterdir()
    with open(folder / "lock") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(OutOfTimeError, match=r"took longer than 0\.3 s"):
            make(request, print, tmp_path, timeout_s=0.3)


@pytest.fixture
def asked(monkeypatch):
    """Tasks that a process of its own would have been given."""
    tasks = []

    def answer(task, deadline_s):
        tasks.append(task)
        if task["what"] == "convert":
            (Path(task["out"]) / "model.onnx").write_bytes(b"%d" % len(tasks))
            return {"file": "model.onnx"}
        return ANSWER

    monkeypatch.setattr(job, "ask_converter", answer)
    return tasks


@pytest.mark.parametrize(
    ("values", "device", "reference"),
    [
        ({"precision": "fp16"}, "cuda:0", "torch fp32"),
        ({"decode": "reduced"}, "cpu", "torch fp32 and exact decoding"),
        ({"decode": "device"}, "cuda:0", "torch fp32 and exact decoding"),
        ({"weights": "m.onnx", "decode": "reduced"}, "cpu", "the same model and exact decoding"),
        ({"weights": "m_openvino_model", "precision": "bf16"}, "cpu", "the same model in fp32"),
    ],
)
def test_what_gives_labels_up_is_compared_once(tmp_path, asked, values, device, reference):
    config = ModelConfig(**{"weights": "yolo.pt", **values})
    request = Request(config, "digest", "torch", device, ("a.jpg", "b.jpg"))
    notes = []
    made = make(request, notes.append, tmp_path)
    assert (made.weights, made.agreement.matched, made.agreement.reference) == (config.weights, 0.97, reference)
    assert made.conversion is None
    (task,) = asked
    assert (task["what"], task["device"], task["converted"]) == ("compare", device, config.weights)
    assert f"with {reference} on 2 of the images" in notes[0]
    assert make(request, notes.append, tmp_path) == made
    assert len(asked) == len(notes) == 1


def test_torch_as_it_is_is_compared_with_nothing(tmp_path, asked):
    assert make(Request(model(), "digest", "torch", "cpu", ("a.jpg",)), print, tmp_path).agreement is None
    assert asked == [] and list(tmp_path.iterdir()) == []


def test_images_that_have_changed_are_compared_again(tmp_path, asked):
    image = tmp_path / "a.jpg"
    image.write_bytes(b"one")
    request = Request(model(decode="reduced"), "digest", "torch", "cpu", (str(image),))
    make(request, print, tmp_path / "cache")
    image.write_bytes(b"other")
    make(request, print, tmp_path / "cache")
    assert len(asked) == 2


def test_ways_to_decode_with_one_conversion_are_told_apart(tmp_path, asked):
    for decode in ("exact", "reduced", "device"):
        config = model(backend="onnxruntime", decode=decode)
        make(Request(config, "digest", "onnxruntime", "cpu", ("a.jpg",)), print, tmp_path)
    assert [task["what"] for task in asked] == ["convert", "compare", "compare", "compare"]


def test_another_version_of_the_device_s_decoder_is_compared_again(tmp_path, asked, monkeypatch):
    request = Request(model(decode="device"), "digest", "torch", "cuda:0", ("a.jpg",))
    notes = []
    make(request, notes.append, tmp_path)
    version = identity.package_version
    monkeypatch.setattr(identity, "package_version", lambda name: "9.9" if name == "torchcodec" else version(name))
    make(request, notes.append, tmp_path)
    assert len(asked) == 2
    assert notes[0] == (
        "comparing torch fp32 and decoding on the device with torch fp32 and exact decoding on 1 of the images"
    )


def test_the_process_that_compares_uses_the_processors_it_may(monkeypatch):
    class Asked(Exception):
        pass

    def model(config, device, threads):
        raise Asked(threads)

    monkeypatch.setattr("farm.models.yolo.adapter.YoloModel", model)
    monkeypatch.setattr("farm.machine.available_resources.usable_cpus", lambda: 3)
    with pytest.raises(Asked, match="3"):
        int8.prepared_images(ModelConfig(weights="a.pt"), [])


def test_a_comparison_that_fails_ends_no_run(tmp_path, monkeypatch):
    def fail(task, deadline_s):
        raise ModelError("no room")

    monkeypatch.setattr(job, "ask_converter", fail)
    weights, notes = tmp_path / "yolo.pt", []
    weights.write_bytes(b"weights")
    config = ModelConfig(weights=str(weights), precision="fp16")
    request = Request(config, weights_digest(str(weights)), "torch", "cuda:0", ("a.jpg",))
    made = make(request, notes.append, tmp_path / "cache")
    assert made.agreement is None
    assert notes[-1] == "torch fp16 could not be compared with torch fp32: no room"


@pytest.mark.parametrize(
    ("values", "backend", "images", "size"),
    [
        ({"decode": "reduced"}, "torch", 6, 4),
        ({"decode": "reduced"}, "torch", 100, 12),
        ({"decode": "reduced"}, "torch", 1000, 32),
        ({"backend": "onnxruntime"}, "onnxruntime", 6, 32),
        ({"precision": "int8"}, "openvino", 1000, 128),
    ],
)
def test_a_short_run_is_compared_on_few_images(values, backend, images, size):
    assert sample_size(Request(model(**values), "digest", backend, "cpu"), images) == size


def onnx(sample=("a.jpg",), **values):
    return Request(model(backend="onnxruntime", **values), "digest", "onnxruntime", "cpu", sample)


def test_who_waits_for_anothers_conversion_says_so(tmp_path):
    entry = entry_of(onnx(), tmp_path)
    notes = []
    with entry.alone(time.monotonic()), pytest.raises(OutOfTimeError):
        make(onnx(), notes.append, tmp_path, timeout_s=1.5)
    holder = f"process {os.getpid()} on {os.uname().nodename}"
    assert notes == [f"waiting for {holder}, which makes or compares the onnxruntime fp32 of yolo.pt"]


def test_a_conversion_that_a_power_cut_has_emptied_is_made_and_compared_again(tmp_path, asked):
    first = make(onnx(), print, tmp_path)
    Path(first.weights).write_bytes(b"")
    again = make(onnx(), print, tmp_path)
    assert [task["what"] for task in asked] == ["convert", "compare"] * 2
    assert Path(again.weights).read_bytes() and again.digest == weights_digest(again.weights) != first.digest


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]"])
def test_an_agreement_that_is_damaged_is_found_out_again(tmp_path, asked, damage):
    made = make(onnx(), print, tmp_path)
    (kept,) = Path(made.weights).parent.glob("agreement-*.json")
    kept.write_bytes(damage)
    assert make(onnx(), print, tmp_path) == made
    assert [task["what"] for task in asked] == ["convert", "compare", "compare"]


def test_other_pictures_under_the_same_names_are_another_calibration(tmp_path, asked):
    image = tmp_path / "a.jpg"
    request = Request(model(precision="int8"), "digest", "openvino", "cpu", (str(image),))
    made = []
    for data in (b"one", b"two", b"one"):
        image.write_bytes(data)
        os.utime(image, (0, 0))
        made.append(make(request, print, tmp_path / "cache").conversion)
    assert made[0] != made[1] and made[0] == made[2]
    assert [task["what"] for task in asked].count("convert") == 2
    image.write_bytes(b"three")
    assert make(request, print, tmp_path / "cache", conversion=made[1]).conversion == made[1], "as the run began"


def test_a_calibration_that_is_gone_is_said_to_be_gone_before_another_is_made(tmp_path, asked):
    request = Request(model(precision="int8"), "digest", "openvino", "cpu", (str(tmp_path / "a.jpg"),))
    gone = "yolo-openvino-int8-0123456789abcdef"
    with pytest.raises(RunMismatchError, match=rf"{gone}, .* no longer in the cache .* another output\.dir"):
        make(request, print, tmp_path / "cache", conversion=gone)
    assert asked == []
    made = make(request, print, tmp_path / "cache")
    made.release()
    (entry,) = found(tmp_path, ["cache"])
    assert remove(entry)
    again = make(request, print, tmp_path / "cache", conversion=made.conversion)
    assert again.conversion == made.conversion, "the same images make the same again"


def test_pictures_that_change_while_they_calibrate(tmp_path, monkeypatch):
    image = tmp_path / "a.jpg"
    image.write_bytes(b"one")

    def convert(task, deadline_s):
        (Path(task["out"]) / "model.onnx").touch()
        image.write_bytes(b"two")
        return {"file": "model.onnx"}

    monkeypatch.setattr(job, "ask_converter", convert)
    request = Request(model(precision="int8"), "digest", "openvino", "cpu", (str(image),))
    with pytest.raises(ModelError, match="are being changed"):
        make(request, print, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*/model.onnx"))


def test_what_a_run_loads_is_not_removed(tmp_path, asked):
    made = make(onnx(), print, tmp_path / "backends")
    (entry,) = found(tmp_path)
    assert entry.in_use and not remove(entry)
    made.release()
    assert remove(entry)


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, asked, monkeypatch):
    """Another place is taken; where there is none, that is said."""
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match=r"cache of converted models cannot be written: .*Not a directory"):
        make(onnx(), print, tmp_path / "file")
    monkeypatch.setattr(cache, "ROOT", str(tmp_path / "file"))
    made = make(onnx(), print, spare=tmp_path / "spare")
    assert Path(made.weights).parent.parent == tmp_path / "spare"


def test_without_any_place_a_run_has_one_of_its_own(tmp_path, asked, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(cache, "ROOT", str(tmp_path / "file"))
    notes = []
    made = make(onnx(), notes.append, spare=tmp_path / "file")
    assert Path(made.weights).exists()
    assert [note for note in notes if "one of its own" in note]
    made.release()
    assert not Path(made.weights).exists()


def test_a_cache_that_can_only_be_read_is_read(tmp_path, asked, monkeypatch):
    made = make(onnx(), print, tmp_path)
    made.release()

    def refuse(*arguments, **others):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(cache, "take", refuse)
    assert make(onnx(), print, tmp_path).weights == made.weights
    assert make(onnx(("b.jpg",)), print, tmp_path).agreement is not None
    assert [task["what"] for task in asked] == ["convert", "compare", "compare"]


def test_weights_that_changed_before_they_were_converted_leave_nothing_under_their_old_digest(tmp_path):
    """Between the digest and the conversion lies the wait for a lock, up to an hour."""
    weights = tmp_path / "best.pt"
    weights.write_bytes(b"as the run began")
    digest = weights_digest(str(weights))
    weights.write_bytes(b"overwritten")
    request = Request(ModelConfig(weights=str(weights)), digest, "onnxruntime", "cpu")
    with pytest.raises(WeightsChangedError, match=r"best\.pt changed since the run began"):
        make(request, print, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*/m*"))
