"""OpenVINO compiled for a shape gives the numbers of the dynamic model, to the bit, or is not used."""

from pathlib import Path

import numpy as np
import pytest

from farm.config.sections import ModelConfig
from farm.images.decoding import decode
from farm.models import load_model
from farm.models.backends import openvino_shapes
from farm.models.backends.openvino_kept import KeptNetworks
from farm.models.backends.openvino_shapes import ShapeCompiler
from farm.models.conversion.executables import make
from farm.models.conversion.request import Request
from farm.models.weights.files import weights_digest


@pytest.fixture(scope="module")
def converted(coco_weights, tmp_path_factory):
    pytest.importorskip("openvino")
    config = ModelConfig(weights=str(coco_weights), backend="openvino", imgsz=160)
    request = Request(config, weights_digest(str(coco_weights)), "openvino", "cpu")
    executable = make(request, print, tmp_path_factory.mktemp("cache"))
    return config.model_copy(update={"weights": executable.weights})


def batches(model, paths):
    images = [decode(str(path), 10**9) for path in paths]
    return [model.input_of([model.prepare(image, image.shape[:2])]) for image in images]


def outputs(model, batch):
    return [np.asarray(output) for output in model._predictor.model.backend.forward(batch)]


def test_the_same_numbers_before_a_shape_is_compiled_for_and_after(converted, coco_images, monkeypatch):
    monkeypatch.setattr("farm.models.backends.openvino.SEEN_BEFORE", 1)
    model = load_model(converted, "cpu", 1)
    paths = sorted(coco_images.glob("*.jpg"))[:6]
    images = batches(model, paths)
    before = [outputs(model, batch) for batch in images]
    for _ in range(2):
        after = [outputs(model, batch) for batch in images]
    made = model._predictor.model.backend.forward.made()
    assert len(made) == len({tuple(batch.shape) for batch in images}) > 1
    assert any(network is not None for network in made.values())
    for ours, theirs in zip(after, before, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_bf16_stays_dynamic(converted):
    model = load_model(converted.model_copy(update={"precision": "bf16"}), "cpu", 1)
    assert not hasattr(model._predictor.model.backend.forward, "made")


def test_what_was_compiled_for_a_shape_is_read_by_the_next_worker(converted, coco_images, monkeypatch):
    """And only where it gives the same numbers to the bit."""
    monkeypatch.setattr("farm.models.backends.openvino.SEEN_BEFORE", 1)
    monkeypatch.setattr("farm.models.backends.openvino.SEEN_BEFORE_READ", 0)
    folder = Path(converted.weights).parent
    for earlier in folder.glob("*.compiled"):
        earlier.unlink()
    first = load_model(converted, "cpu", 1)
    batch = batches(first, sorted(coco_images.glob("*.jpg"))[:1])[0]
    dynamic = first._predictor.model.backend.ov_compiled_model(batch.numpy())[0]
    for _ in range(3):
        outputs(first, batch)
    assert len(list(folder.glob("1x3x*.compiled"))) == 1

    def no_compilation(*_):
        raise AssertionError("compiled again")

    monkeypatch.setattr(ShapeCompiler, "__init__", recording := Recording(ShapeCompiler.__init__))
    second = load_model(converted, "cpu", 1)
    recording.made[0]._compile = no_compilation
    for _ in range(3):
        assert np.array_equal(outputs(second, batch)[0], dynamic)
    assert recording.made[0]._were_read == {tuple(batch.shape)}


def test_a_network_of_a_users_own_folder_is_not_kept(converted, tmp_path):
    assert KeptNetworks.beside(Path(converted.weights), []) is not None
    assert KeptNetworks.beside(tmp_path / "mine_openvino_model", []) is None


class Recording:
    """Calls an `__init__`, and remembers what was made."""

    def __init__(self, init):
        self._init = init
        self.made = []

    def __get__(self, made, _):
        def init(*args):
            self.made.append(made)
            self._init(made, *args)

        return init


class Doubling:
    """A compiled model of one output."""

    def __init__(self, factor=2):
        self._factor = factor

    def __call__(self, pixels, share_inputs):
        return {"output": pixels * self._factor}

    def reshape(self, shape):
        self.shape = shape


class Batch(np.ndarray):
    def cpu(self):
        return self

    def numpy(self):
        return np.asarray(self)


def a_batch():
    return np.ones((1, 3, 4, 6), np.float32).view(Batch)


def network(batch):
    return [np.asarray(batch) * 2]


def test_a_shape_that_gives_other_numbers_is_not_compiled_for():
    assert ShapeCompiler(Doubling, lambda model: Doubling(3))(network, a_batch()) is None
    made = ShapeCompiler(Doubling, lambda model: model)(network, a_batch())
    assert np.array_equal(made(a_batch())[0], network(a_batch())[0])


def test_what_is_kept_and_gives_other_numbers_is_not_used(tmp_path):
    kept = KeptNetworks(tmp_path, "these settings")
    kept.write((1, 3, 4, 6), b"compiled")
    read = []

    def import_model(stream):
        read.append(stream.getvalue())
        return Doubling(len(read) + 1)

    compiler = ShapeCompiler(Doubling, lambda model: model, import_model, kept)
    assert np.array_equal(compiler.read(network, a_batch())(a_batch())[0], network(a_batch())[0])
    assert compiler.read(network, a_batch()) is None, "it triples"
    assert read == [b"compiled"] * 2


def test_memory_ends_it(monkeypatch):
    hoard = []

    def compile_model(model):
        hoard.append(np.ones(40 << 20, np.uint8))
        return model

    monkeypatch.setattr(openvino_shapes, "SHAPES_BYTES", 60 << 20)
    compiler = ShapeCompiler(Doubling, compile_model)
    made = [compiler(network, a_batch()) is not None for _ in range(4)]
    assert made[0] and not made[-1]
