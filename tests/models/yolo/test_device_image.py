"""Images that the device has decoded, in batches through a made-up device: what the CPU finds in the same pixels."""

import cv2
import numpy as np
import pytest
import torch

from farm.config.sections import ModelConfig
from farm.images.baseline_jpeg import baseline_jpeg
from farm.images.decoding import decode_bytes
from farm.models import base
from farm.models.backends import cuda_graphs
from farm.models.conversion.sample_images import readable
from farm.models.yolo.adapter import YoloModel
from farm.models.yolo.cuda_streams import CudaStreams
from farm.models.yolo.device_decoder import DeviceDecoder
from farm.models.yolo.device_image import DeviceImage
from farm.models.yolo.device_input import DeviceInput
from farm.models.yolo.device_pipeline import DevicePipeline, Parts
from farm.models.yolo.postprocessing import Postprocessor
from tests.models.yolo.fake_torchcodec import BAD_JPEG, FakeTorchcodec, commented
from tests.support import cuda as fake

FULL = 3


@pytest.fixture(scope="module")
def files(coco_images):
    """JPEGs of a few sizes, some to be enlarged and some to be halved."""
    made = []
    for number, path in enumerate(sorted(coco_images.iterdir())[:8]):
        image = cv2.resize(decode_bytes(path.read_bytes(), path.name, 10**9), ((320, 240), (640, 480))[number % 2])
        made.append(
            cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444])[
                1
            ].tobytes()
        )
    return made


@pytest.fixture
def cuda(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "_PROCESS", cuda_graphs._Process())
    return fake.install(monkeypatch)


@pytest.fixture
def model(coco_weights, cuda):
    """Loaded on the CPU; its batches go through the made-up device."""
    made = YoloModel(ModelConfig(weights=str(coco_weights), imgsz=320), "cpu", 1)
    postprocessor = Postprocessor.for_predictor(made._predictor, made.task)
    parts = Parts(made._predictor, postprocessor, CudaStreams("cpu"), DeviceInput("cpu", False, False, 3))
    made._pipeline = DevicePipeline(parts, "cpu", graphs=True, channels_last=False)
    made.device_decoder = DeviceDecoder(FakeTorchcodec().make)
    made.full_batch(FULL)
    yield made
    made.close()


@pytest.fixture(scope="module")
def plain(coco_weights):
    return YoloModel(ModelConfig(weights=str(coco_weights), imgsz=320), "cpu", 1)


def on_device(model, data):
    jpeg = baseline_jpeg(data, "x.jpg", 10**9)
    shape = jpeg.height, jpeg.width
    return model.prepare(model.device_decoder.decode(jpeg), shape), shape


def found(model, plain, cuda, batch):
    prepared, shapes = zip(*(on_device(model, data) for data in batch), strict=True)
    with cuda:
        launched = model.launch(prepared, shapes)
        return plain.encode(model.finish(launched))


def expected(plain, batch):
    images = [decode_bytes(data, "x.jpg", 10**9) for data in batch]
    images += images[:1] * (FULL - len(images))  # convolutions of fewer round otherwise
    shapes = [image.shape[:2] for image in images]
    columns = plain.encode(plain.predict([plain.prepare(i, s) for i, s in zip(images, shapes, strict=True)], shapes))
    return {name: column.slice(0, len(batch)) for name, column in columns.items()}


def test_it_is_gathered_by_the_shape_that_it_is_letterboxed_to(model, plain, files):
    image, shape = on_device(model, files[1])
    assert isinstance(image, DeviceImage)
    assert image.shape == plain.prepare(decode_bytes(files[1], "x.jpg", 10**9), shape).shape == (256, 320, 3)
    assert (image.dtype, image.nbytes) == (np.uint8, 640 * 480 * 3)
    smaller, _ = on_device(model, files[0])
    slot = model.prepare(decode_bytes(files[0], "x.jpg", 10**9), (240, 320))
    assert base.batch_key(image) == base.batch_key(smaller) != base.batch_key(slot)
    assert base.batch_of(image, 7) == 7


def test_batches_are_those_of_the_cpu(model, plain, cuda, files):
    """Of mixed original sizes; the last of full batches by a graph; parts of a batch too, as where memory is short."""
    for batch in (files[:3], files[3:6], files[1:4], files[2:5], files[6:7], files[:2]):
        assert found(model, plain, cuda, batch) == expected(plain, batch)
    assert cuda.replays
    assert sum(map(len, expected(plain, files)["boxes"].to_pylist())) > 10


def test_torch_is_told_that_the_network_s_stream_reads_what_the_decoder_has_written(model, plain, cuda, files):
    prepared, shapes = zip(*(on_device(model, data) for data in files[:2]), strict=True)
    with cuda:
        launched = model.launch(prepared, shapes)
    told = {address for address, _ in cuda.told}
    assert {image.pixels.untyped_storage().data_ptr() for image in prepared} <= told
    with cuda:
        model.finish(launched)


def test_a_batch_that_fails_can_be_launched_again(model, plain, cuda, files):
    prepared, shapes = zip(*(on_device(model, data) for data in files[:3]), strict=True)
    cuda.fail(torch.OutOfMemoryError("CUDA out of memory."), lambda name, recording: name == "aten::sigmoid")
    with cuda, pytest.raises(torch.OutOfMemoryError):
        model.launch(prepared, shapes)
    with cuda:
        again = plain.encode(model.finish(model.launch(prepared, shapes)))
    assert again == expected(plain, files[:3])


def test_a_comparison_decodes_as_a_worker(model, plain, files, tmp_path):
    """What the device decodes, it decodes there too; the rest on the CPU; what cannot be read is left out."""
    (tmp_path / "good.jpg").write_bytes(files[0])
    (tmp_path / "bad.jpg").write_bytes(commented(files[1], BAD_JPEG))
    (tmp_path / "torn.jpg").write_bytes(files[2][:-2])
    cv2.imwrite(str(tmp_path / "other.png"), np.zeros((48, 64, 3), np.uint8))
    sample = [str(tmp_path / name) for name in ("good.jpg", "bad.jpg", "torn.jpg", "other.png")]
    found = {path: (prepared, shape) for path, prepared, shape in readable(model, sample, None)}
    assert [path in found for path in sample] == [True, True, False, True]
    assert [isinstance(prepared, DeviceImage) for prepared, _ in found.values()] == [True, False, False]
    assert [shape for _, shape in found.values()] == [(240, 320), (480, 640), (48, 64)]
    assert [not isinstance(prepared, DeviceImage) for _, prepared, _ in readable(plain, sample, None)] == [True] * 3


def test_what_waits_on_the_device_is_left_out_of_the_room_for_a_batch(model, cuda, monkeypatch):
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(model, "_device", "made up")
    monkeypatch.setattr(model, "_peak_bytes", lambda count: count << 28)
    cuda.free_bytes = 8 << 30
    with_it = model.fitting_batch(64, 1.0)
    monkeypatch.setattr(model, "device_decoder", None)
    assert model.fitting_batch(64, 1.0) > with_it
