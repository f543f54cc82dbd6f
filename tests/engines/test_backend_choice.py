"""What executes a model, chosen before a run: by comparisons that are made up, whose answers the tests choose."""

import io
import itertools
from pathlib import Path

import pytest

from farm.config.loading import validate
from farm.engines.backend_choice import choose_backend
from farm.engines.preparation import prepare
from farm.errors import RunMismatchError
from farm.machine.hardware import CudaDevice, Machine
from farm.models import backends
from farm.models.conversion import executables, job, sampling
from farm.sources.base import Entry, Source
from farm.storage.run_store import RunStore

GPU = Machine(cores=((0,), (1,)), memory_bytes=64 << 30, cuda_devices=(CudaDevice("A"),))
CPU = Machine(cores=((0,), (1,)), memory_bytes=64 << 30, cuda_devices=())
BOXES = 100
AGREED = {"matched": 1.0, "confidence": 0.0, "boxes": BOXES, "found": BOXES, "images": 32}


class Endless(Source):
    """Counts what was taken from it."""

    def __init__(self):
        super().__init__("endless", "/images", may_repeat=False)
        self.taken = 0

    def entries(self):
        for number in itertools.count():
            self.taken += 1
            yield Entry(f"{number}.jpg", 1, 1)

    def count(self):
        return None


@pytest.fixture
def chosen(tmp_path, monkeypatch):
    """`choose_backend` for a .pt on an endless source; `agrees`: share by (backend, decode). Returns (runnable, notes, source)."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(backends, "installed", lambda name: name == "onnxruntime")
    (tmp_path / "m.pt").write_bytes(b"weights")

    def chosen(machine, agrees, path="/images", **model):
        def answer(task, deadline_s):
            if task["what"] == "convert":
                (Path(task["out"]) / "model.onnx").touch()
                return {"file": "model.onnx"}
            matched = agrees[task["backend"], task["config"]["decode"]]
            return {"matched": matched, "confidence": 0.0, "boxes": BOXES, "found": BOXES, "images": 32}

        monkeypatch.setattr(job, "ask_converter", answer)
        values = {
            "source": path,
            "model": {"weights": str(tmp_path / "m.pt"), **model},
            "output": str(tmp_path / "run"),
        }
        source, notes = Endless(), []
        prepared = prepare(validate(values), io.BytesIO(), source, machine)
        store = RunStore.open(tmp_path / "run")
        try:
            runnable, entries = choose_backend(prepared, store, notes.append)
            assert next(entries).path == "0.jpg"
        finally:
            store.close()
        return runnable, notes, source

    return chosen


def test_fp16_on_a_device_is_compared_with_fp32(chosen):
    runnable, notes, _ = chosen(GPU, {("torch", "exact"): 0.99}, precision="fp16")
    assert (runnable.prepared.device, runnable.executable.backend) == ("cuda:0", "torch")
    assert (runnable.executable.agreement.matched, runnable.executable.agreement.reference) == (0.99, "torch fp32")
    assert notes == ["comparing torch fp16 with torch fp32 on 32 of the images"]


def test_reduced_decoding_is_compared_with_exact(chosen):
    runnable, _, source = chosen(CPU, {("torch", "reduced"): 0.9}, backend="torch", decode="reduced")
    assert runnable.executable.agreement.matched == 0.9
    assert runnable.executable.agreement.reference == "torch fp32 and exact decoding"
    assert source.taken == backends.AUTO_IMAGES


def test_a_backend_is_not_doubted_for_what_decoding_does(chosen):
    agrees = {("onnxruntime", "exact"): 1.0, ("onnxruntime", "reduced"): 0.9}
    runnable, _, _ = chosen(CPU, agrees, decode="reduced")
    assert (runnable.executable.backend, runnable.executable.agreement.matched) == ("onnxruntime", 0.9)


def test_a_backend_that_disagrees_gives_way_to_torch_which_is_compared_then(chosen):
    agrees = {("onnxruntime", "exact"): 0.99, ("torch", "reduced"): 0.9}
    runnable, notes, _ = chosen(CPU, agrees, decode="reduced")
    assert (runnable.executable.backend, runnable.executable.agreement.matched) == ("torch", 0.9)
    assert any(note.endswith("torch is used") for note in notes)


def test_a_pipe_is_waited_for_no_longer_than_a_sample_needs(chosen):
    _, _, source = chosen(CPU, {}, path="-")
    assert source.taken == 1
    runnable, _, source = chosen(CPU, {("torch", "reduced"): 0.9}, path="-", decode="reduced")
    assert (runnable.executable.agreement.matched, source.taken) == (0.9, 32)


def test_torch_is_not_compared(chosen):
    runnable, notes, source = chosen(CPU, {}, backend="torch")
    assert (runnable.executable.agreement, notes, source.taken) == (None, [], 1)


@pytest.mark.parametrize(
    ("folders", "each", "model", "asked"),
    [
        (
            8,
            10,
            {"decode": "reduced", "backend": "torch"},
            4,
        ),  # the first ten images tell that it is a long run, and no more
        (8, 1, {"backend": "onnxruntime"}, 8),  # all of it has been looked at
        (8, 10, {"precision": "int8", "backend": "openvino"}, 16),
    ],
)
def test_the_sample_lies_all_over_the_source(tmp_path, monkeypatch, folders, each, model, asked):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(backends, "installed", lambda name: True)
    monkeypatch.setattr(backends, "AUTO_IMAGES", 10)
    monkeypatch.setattr(sampling, "CALIBRATION_IMAGES", 16)
    (tmp_path / "m.pt").write_bytes(b"weights")
    for folder in range(folders):
        (tmp_path / "images" / str(folder)).mkdir(parents=True)
        for number in range(each):
            (tmp_path / "images" / str(folder) / f"{number}.jpg").touch()
    samples = {}

    def answer(task, deadline_s):
        samples[task["what"]] = [path[len(str(tmp_path / "images")) + 1 :] for path in task["sample"]]
        if task["what"] != "convert":
            return AGREED
        (Path(task["out"]) / "model").touch()
        return {"file": "model"}

    monkeypatch.setattr(job, "ask_converter", answer)
    values = {"source": str(tmp_path / "images"), "model": {"weights": str(tmp_path / "m.pt"), **model}}
    prepared = prepare(validate({**values, "output": str(tmp_path / "run")}), machine=CPU)
    store = RunStore.open(tmp_path / "run")
    try:
        _, entries = choose_backend(prepared, store, lambda text: None)
        listed = [entry.path for entry in entries]
    finally:
        store.close()
    assert listed == sorted(listed) and len(listed) == folders * each, "what is labelled, and in which order, stays"
    for sample in samples.values():
        assert set(sample) <= set(listed)
        assert len({path[0] for path in sample[:folders]}) == min(folders, len(sample))
        assert len(sample) == asked


def test_what_is_converted_is_let_go_where_the_run_turns_out_to_be_another(chosen, monkeypatch):
    """Found out after the conversion: somebody may have changed run.json meanwhile."""
    check, checked, made = RunStore.check, [], []

    def mismatch(self, *about):
        checked.append(about)
        if len(checked) == 2:
            raise RunMismatchError("other settings")
        check(self, *about)

    make_ready = executables.make
    monkeypatch.setattr(RunStore, "check", mismatch)
    monkeypatch.setattr(executables, "make", lambda *a, **k: made.append(make_ready(*a, **k)) or made[-1])
    with pytest.raises(RunMismatchError):
        chosen(CPU, {("onnxruntime", "exact"): 1.0}, backend="onnxruntime")
    (executable,) = made
    assert executable.lease is not None and not executable.lease.held


def test_a_cache_that_cannot_be_written_is_said_once(chosen, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    runnable, notes, _ = chosen(CPU, {("onnxruntime", "exact"): 1.0}, backend="onnxruntime")
    assert sum("cannot be written" in note for note in notes) == 1
    assert str(tmp_path / "run" / "converted") in runnable.executable.weights
