"""Batches through a made-up CUDA device (tests/support/cuda.py): what the CPU finds, however the device fails."""

import numpy as np
import pytest
import torch

from benchmarks.live_weights import MANY, SIDE, build, save
from farm.config.sections import ModelConfig
from farm.images.decoding import decode
from farm.models import load_model
from farm.models.backends import cuda_graphs
from farm.models.base import is_device_lost, is_out_of_memory
from farm.models.yolo import postprocessing
from farm.models.yolo.cuda_streams import CudaStreams
from farm.models.yolo.device_input import DeviceInput
from farm.models.yolo.device_pipeline import DevicePipeline, Parts
from farm.models.yolo.postprocessing import Postprocessor
from tests.support import cuda as fake

FULL = 3
TASKS = ("detect", "segment", "pose", "obb", "classify")
NO_MEMORY = "CUDA out of memory. Tried to allocate 20.00 MiB"


@pytest.fixture(scope="module")
def models(coco_images, tmp_path_factory):
    """A model of each task on the CPU, loaded when it is asked for."""
    made = {}
    paths = sorted(coco_images.iterdir())

    def model(task):
        if task not in made:
            weights = tmp_path_factory.mktemp(task) / f"tiny-{task}.pt"
            save(build(f"tiny-{task}", paths[:4], MANY), weights)
            made[task] = load_model(ModelConfig(weights=str(weights), imgsz=SIDE), "cpu", 1)
        return made[task]

    return model


@pytest.fixture(scope="module")
def images(coco_images):
    """Pictures of one size, all different."""
    found = [decode(str(path), 10**9, 3)[:160, :120].copy() for path in sorted(coco_images.glob("*.jpg"))[:12]]
    assert len({image.tobytes() for image in found}) == len(found)
    return found


@pytest.fixture
def cuda(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "_PROCESS", cuda_graphs._Process())
    return fake.install(monkeypatch)


class Device:
    """A pipeline of a model that was loaded on the CPU, and what that finds there."""

    def __init__(self, model, cuda, full=FULL, graphs=True):
        self.model, self.cuda = model, cuda
        predictor = model._predictor
        postprocessor = Postprocessor.for_predictor(predictor, model.task)
        parts = Parts(predictor, postprocessor, CudaStreams("cpu"), DeviceInput("cpu", False, False, 3))
        self.pipeline = DevicePipeline(parts, "cpu", graphs, channels_last=False)
        self.pipeline.full_batch(full)

    def launch(self, images, may_wait=True):
        prepared, shapes = self.prepared(images)
        with self.cuda:
            if may_wait or self.model.task == "classify":
                return self.pipeline.launch(prepared, shapes)
            with self.cuda.without_waiting():
                return self.pipeline.launch(prepared, shapes)

    def prepared(self, images):
        return [self.model.prepare(image, image.shape[:2]) for image in images], [image.shape[:2] for image in images]

    def finish(self, batch):
        with self.cuda:
            found, _ = self.pipeline.finish(batch)
        return self.model.encode(found)

    def find(self, images):
        return self.finish(self.launch(images))

    def expected(self, images, full=FULL):
        """Of a batch of `full` images: convolutions of fewer round otherwise."""
        count, filled = len(images), [*images, *images[:1] * (full - len(images))]
        columns = self.model.encode(self.model.predict(*self.prepared(filled)))
        return {name: column.slice(0, count) for name, column in columns.items()}


def parts_of(images):
    return [images[at : at + FULL] for at in range(0, len(images), FULL)]


@pytest.mark.parametrize("task", TASKS)
def test_batches_on_the_device_are_those_of_the_cpu(models, images, cuda, task):
    """Launched one before the other is finished; from the third on by a graph."""
    device = Device(models(task), cuda)
    launched = None
    for batch in [*parts_of(images), *parts_of(images)]:
        following = device.launch(batch, may_wait=cuda.replays == 0), batch
        if launched is not None:
            assert device.finish(launched[0]) == device.expected(launched[1])
        launched = following
    assert device.finish(launched[0]) == device.expected(launched[1])
    assert cuda.replays == 2 * len(parts_of(images)) - cuda_graphs.SEEN_BEFORE
    assert sum(map(len, device.expected(images)["boxes"].to_pylist())) > 10 or task == "classify"


def counted(device, monkeypatch):
    """How many images the network is given, each time."""
    network, given = device.pipeline._network, []
    monkeypatch.setattr(device.pipeline, "_network", lambda batch: (given.append(len(batch)), network(batch))[1])
    return given


@pytest.mark.parametrize("task", TASKS)
def test_a_batch_that_is_not_full_is_filled_up(models, images, cuda, monkeypatch, task):
    """cuDNN plans for each number of images anew. What the memory held before is in no image."""
    device = Device(models(task), cuda)
    given = counted(device, monkeypatch)
    for batch in (images[:FULL], images[3:4], images[4:6], images[6:7], images[7:9]):
        assert device.find(batch) == device.expected(batch)
    assert set(given) == {FULL}
    assert cuda.replays > 0, "and has a graph"


def test_a_full_batch_without_memory_is_not_what_its_parts_are_filled_up_to(models, images, cuda, monkeypatch):
    device = Device(models("detect"), cuda, graphs=False)
    given = counted(device, monkeypatch)
    cuda.fail(torch.OutOfMemoryError(NO_MEMORY), launching)
    with pytest.raises(torch.OutOfMemoryError):
        device.launch(images[:FULL])
    for batch in (images[:2], images[2:3]):
        assert device.find(batch) == device.expected(batch, full=len(batch))
    wide = [np.ascontiguousarray(image.transpose(1, 0, 2)) for image in images[:2]]
    assert device.find(wide) == device.expected(wide)
    assert given == [FULL, 2, 1, FULL], "another shape may have memory for a full one"


def test_nothing_is_waited_for_also_where_only_the_number_of_images_changes(models, images, cuda):
    device = Device(models("detect"), cuda, graphs=False)
    device.find(images[:2])
    for count in (3, 1, 2):
        batch = images[:count]
        assert device.finish(device.launch(batch, may_wait=False)) == device.expected(batch)


def test_images_in_slots_in_any_order(models, images, cuda):
    device = Device(models("detect"), cuda)
    slots = []
    for image in images[:6]:
        prepared = device.model.prepare(image, image.shape[:2])
        slot = device.pipeline.slots.take(prepared.shape)
        slot.pixels[:] = prepared
        slots.append(slot)
    for order in ([0], [1, 2, 4], [4, 1], [5, 3, 2]):
        batch = [images[at] for at in order]
        with cuda:
            launched = device.pipeline.launch([slots[at] for at in order], [image.shape[:2] for image in batch])
        assert device.finish(launched) == device.expected(batch)


def test_what_another_stream_reads_is_told_to_torch(models, images, cuda):
    device = Device(models("detect"), cuda)
    computing = device.pipeline._parts.streams.computing
    device.find(images[:2])
    assert {stream for _, stream in cuda.told} == {computing.cuda_stream}


def test_what_masks_are_made_of_is_kept_until_they_are_made(models, images, cuda):
    """Its memory goes back to the network's stream, which does not wait for the other one."""
    device = Device(models("segment"), cuda)
    device.find(images[:2])
    beside = device.pipeline._parts.streams._beside
    assert 0 < beside.kernels == beside.waited_for


def test_more_candidates_than_rows_are_run_again_with_more(models, images, cuda, monkeypatch):
    monkeypatch.setattr(postprocessing, "CANDIDATES_PER_IMAGE", 1)
    device = Device(models("detect"), cuda)
    again = []
    run, launch = device.pipeline._again, device.launch
    monkeypatch.setattr(device.pipeline, "_again", lambda batch: again.append(batch) or run(batch))
    for batch in [*parts_of(images), *parts_of(images)]:
        assert device.finish(launch(batch)) == device.expected(batch)
    assert 1 <= len(again) <= 3, "rows are made room for once, and for all that come"
    assert cuda.replays > 0


def test_graphs_that_were_dropped_leave_their_pool(models, images, cuda):
    """torch refuses a pool that all its graphs have left."""
    device = Device(models("detect"), cuda)
    for _ in range(2):
        for batch in parts_of(images):
            assert device.find(batch) == device.expected(batch)
        device.pipeline._graphs.clear()
    assert len(cuda.pools) == 2


def test_graphs_of_several_shapes_share_a_pool_and_their_input(models, images, cuda):
    device = Device(models("segment"), cuda)
    wide = [np.ascontiguousarray(image.transpose(1, 0, 2)) for image in images]
    for tall_batch, wide_batch in zip(parts_of(images), parts_of(wide), strict=True):
        launched = [device.launch(batch) for batch in (tall_batch, wide_batch)]
        for one, batch in zip(launched, (tall_batch, wide_batch), strict=True):
            assert device.finish(one) == device.expected(batch)
    graphs = list(device.pipeline._graphs._shapes.made().values())
    assert len(graphs) == 2
    assert len({graph.pixels.untyped_storage().data_ptr() for graph in graphs}) == 1
    assert len(cuda.pools) == 1


def recording(name, is_recording):
    return is_recording and name == "aten::conv2d"


def launching(name, is_recording):
    return not is_recording and name == "aten::conv2d"


def test_no_memory_while_launching(models, images, cuda):
    device = Device(models("detect"), cuda)
    cuda.fail(torch.OutOfMemoryError(NO_MEMORY), launching)
    with pytest.raises(RuntimeError) as error:
        device.launch(images[:FULL])
    assert is_out_of_memory(error.value)
    assert device.find(images[:FULL]) == device.expected(images[:FULL])


def test_no_memory_while_recording_costs_the_graph_and_not_the_batch(models, images, cuda, capsys):
    device = Device(models("detect"), cuda)
    cuda.fail(torch.OutOfMemoryError(NO_MEMORY), recording)
    wide = [np.ascontiguousarray(image.transpose(1, 0, 2)) for image in images]
    for batch in [*parts_of(images), *parts_of(wide)]:
        assert device.find(batch) == device.expected(batch)
    assert (cuda.replays, cuda.routed, cuda.emptied) == (0, [], 1)
    assert "the device has no memory left for more of them" in capsys.readouterr().err
    assert not any(cuda.pools.values()), "what was recorded is let go"


def test_no_memory_before_recording_costs_the_graph_and_the_batch_once(models, images, cuda):
    device = Device(models("detect"), cuda)
    for batch in parts_of(images)[:2]:
        device.find(batch)
    cuda.fail(torch.OutOfMemoryError(NO_MEMORY), launching)
    with pytest.raises(torch.OutOfMemoryError):
        device.launch(images[:FULL])
    for batch in parts_of(images):
        assert device.find(batch) == device.expected(batch)
    assert (cuda.replays, cuda.routed) == (0, [])


def test_a_recording_that_breaks_is_the_last_one_in_the_process(models, images, cuda, capsys):
    def break_off(name, is_recording):
        if recording(name, is_recording):
            cuda.recording.is_broken = True
            return True
        return False

    cuda.fail(torch.AcceleratorError(fake.NOT_PERMITTED), break_off)
    for _ in range(2):
        device = Device(models("detect"), cuda)
        for batch in parts_of(images):
            assert device.find(batch) == device.expected(batch)
    assert (cuda.replays, cuda.routed) == (0, [])
    said = capsys.readouterr().err
    assert said.count("no CUDA graph") == 1
    assert "none are recorded any more in this process" in said
    assert len(cuda_graphs._PROCESS.failed) == 1, "torch may still ask it which streams are its own"


def test_a_network_that_waits_for_the_device_is_never_recorded(models, images, cuda, monkeypatch):
    device = Device(models("detect"), cuda)
    network = device.pipeline._network
    monkeypatch.setattr(device.pipeline, "_network", lambda batch: (batch.sum().item(), network(batch))[1])
    for batch in parts_of(images):
        assert device.find(batch) == device.expected(batch)
    assert cuda.replays == 0


def test_a_device_that_is_lost_while_recording_is_not_taken_for_a_bad_graph(models, images, cuda):
    device = Device(models("detect"), cuda)

    def lose(name, is_recording):
        if recording(name, is_recording):
            cuda.lose()
            return True
        return False

    cuda.fail(torch.AcceleratorError(fake.LOST), lose)
    for batch in parts_of(images)[:2]:
        device.find(batch)
    with pytest.raises(torch.AcceleratorError) as error:
        device.launch(images[:FULL])
    assert is_device_lost(error.value)


def test_a_device_that_is_lost_under_a_batch(models, images, cuda):
    device = Device(models("detect"), cuda)
    batch = device.launch(images[:2])
    cuda.lose()
    assert device.pipeline.is_done(batch), "finish says why"
    with pytest.raises(torch.AcceleratorError) as error:
        device.finish(batch)
    assert is_device_lost(error.value)


def test_a_batch_that_the_device_never_finishes(models, images, cuda):
    device = Device(models("detect"), cuda)
    batch = device.launch(images[:2])
    assert device.pipeline.is_done(batch)
    cuda.stuck = True
    assert not device.pipeline.is_done(batch)


def test_no_memory_while_masks_are_made(models, images, cuda):
    device = Device(models("segment"), cuda)
    batch = device.launch(images[:2])
    cuda.fail(torch.OutOfMemoryError(NO_MEMORY), lambda name, is_recording: "upsample" in name or "mm" in name)
    with pytest.raises(RuntimeError) as error:
        device.finish(batch)
    assert is_out_of_memory(error.value)
    assert device.find(images[:2]) == device.expected(images[:2])


def test_a_graph_that_gives_other_numbers_is_not_used(models, images, cuda, capsys):
    device = Device(models("detect"), cuda)
    cuda.drift = 1e-6
    for batch in parts_of(images):
        assert device.find(batch) == device.expected(batch)
    assert cuda.replays == 1, "the one that was tried"
    assert "its replay gives other numbers" in capsys.readouterr().err


def test_the_network_alone_for_benchmarks(models, images, cuda):
    device = Device(models("detect"), cuda)
    batch = torch.rand(FULL, 3, 160, 120 + 8)
    with cuda, cuda.without_waiting():
        device.pipeline.infer(batch)
        device.pipeline.infer(batch)
    with cuda:
        for _ in range(3):
            device.pipeline.infer(batch)
    assert cuda.replays == 3
