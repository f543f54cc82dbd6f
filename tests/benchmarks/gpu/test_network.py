"""The limit of the network is of rectangles and of squares."""

from dataclasses import replace

import pytest

from benchmarks.gpu import network
from benchmarks.gpu.inputs import TINY, Inputs
from benchmarks.gpu.settings import Setting


@pytest.mark.timeout(120)
def test_rectangles_have_fewer_pixels_than_squares(monkeypatch, coco_images, coco_weights, tmp_path):
    """With a pass that takes a microsecond a pixel, and a launch of a millisecond, on the CPU."""
    passes = []

    def made_up(yolo, shape, batch, inputs):
        passes.append(shape)
        return batch * shape[0] * shape[1] / 1e6, 1e-3

    monkeypatch.setattr(network, "_pass_s", made_up)
    images = sorted(map(str, coco_images.glob("*.jpg")))[:4]
    inputs = Inputs(images, images, str(coco_weights), ["cpu"], str(tmp_path), replace(TINY, shapes=2))
    ways = [Setting(precision="fp32", graphs="off"), Setting(precision="fp16")]
    (line,) = network.network(inputs, ways, [2])
    assert line["squares_per_s"] == pytest.approx(1e6 / 640**2, abs=0.1)
    assert line["images_per_s"] > line["squares_per_s"]
    assert (line["launch_ms"], line["precision"], line["batch"]) == (1.0, "fp32", 2), "no fp16 on a CPU"
    assert passes[-1] == (640, 640) and len(passes) <= 3
