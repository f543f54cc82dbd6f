"""Pixels on a device to what a network takes: the ways of doing it, and what is tried before one is used."""

import cv2
import numpy as np
import pytest
import torch

from farm.models.yolo import device_input, letterbox_kernel, letterbox_torch
from farm.models.yolo.device_input import OPENCV, TORCHCODEC, DeviceInput
from farm.models.yolo.letterbox import Letterbox, letterboxed
from farm.models.yolo.preprocessing import as_input
from tests.support import host_kernels

KERNEL = {"convert": "kernel", "letterbox": "kernel"}
TORCH = {"convert": "torch", "letterbox": "torch"}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=[False, True], ids=["float32", "float16"])
def half(request):
    return request.param


@pytest.fixture
def with_kernel(monkeypatch, tmp_path, half):
    """A device whose compiler makes this of letterbox.cu."""

    def compile_changed(change=lambda source: source):
        kernel = host_kernels.built(tmp_path, half, change)
        monkeypatch.setattr(letterbox_kernel, "compiled", lambda device, as_half: kernel)

    return compile_changed


def laid_out(image, layout):
    turned = image[..., ::-1] if layout.rgb else image
    return torch.from_numpy(np.ascontiguousarray(turned.transpose(2, 0, 1) if layout.planar else turned))


def check(made, half, coco_images):
    """Everything that `made` does, on real images, is what Ultralytics does."""
    letterbox = Letterbox((640, 640), 32)
    images = [cv2.imread(str(path)) for path in sorted(coco_images.glob("*.jpg"))[:8]]
    by_padded = {}
    for image in images:
        by_padded.setdefault(letterbox.plan(*image.shape[:2]).padded, []).append(image)
    for padded, together in by_padded.items():
        plans = [letterbox.plan(*image.shape[:2]) for image in together]
        pixels = torch.from_numpy(np.stack(list(map(letterboxed, together, plans))))
        expected = as_input(pixels, half)
        out = torch.empty((len(together), 3, *padded), dtype=expected.dtype).to(memory_format=torch.channels_last)
        assert torch.equal(made.convert(pixels), expected)
        assert made.convert(pixels, out) is out and torch.equal(out, expected)
        for layout in (OPENCV, TORCHCODEC):
            out.zero_()
            sources = [laid_out(image, layout) for image in together]
            assert torch.equal(made.letterbox(sources, plans, layout=layout), expected)
            assert made.letterbox(sources, plans, out, layout) is out and torch.equal(out, expected)


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_kernel_where_it_compiles(with_kernel, half, channels_last, coco_images, capfd):
    with_kernel()
    made = DeviceInput.checked("cpu", half, channels_last, 3)
    assert made.ways == KERNEL
    check(made, half, coco_images)
    made_of = made.convert(torch.zeros((2, 8, 8, 3), dtype=torch.uint8))
    assert made_of.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("channels_last", [False, True])
def test_plain_torch_where_it_does_not(monkeypatch, half, channels_last, coco_images, capfd):
    def refused(device, as_half):
        raise RuntimeError("Kernel compilation failed:\nletterbox.cu(1): error")

    monkeypatch.setattr(letterbox_kernel, "compiled", refused)
    made = DeviceInput.checked("cpu", half, channels_last, 3)
    assert made.ways == TORCH
    check(made, half, coco_images)
    assert made.convert(torch.zeros((2, 8, 8, 3), dtype=torch.uint8)).is_contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )
    assert capfd.readouterr().err.count("does not compile; torch does it: Kernel compilation failed:\n") == 1


@pytest.mark.parametrize(
    ("before", "after", "ways"),
    [
        ("table[pixel[c]]", "table[pixel[c] ^ 1]", {"convert": "torch", "letterbox": "kernel"}),
        ("reverse ? C - 1 - c : c, H, W, C, last)] = table[pixel", "c, H, W, C, last)] = table[pixel",
         {"convert": "torch", "letterbox": "kernel"}),
        ("2048.f", "2047.f", {"convert": "kernel", "letterbox": "torch"}),
        ("+ r + s + 2) >> 2", "+ r + s + 1) >> 2", {"convert": "kernel", "letterbox": "torch"}),
        ("planar ? 1 : C", "C", {"convert": "kernel", "letterbox": "torch"}),
        ("+ 0.5, scale)", ", scale)", {"convert": "kernel", "letterbox": "torch"}),
        ("(int)m[5]", "(int)m[6]", {"convert": "kernel", "letterbox": "torch"}),
    ],
)  # fmt: skip
def test_a_kernel_that_gives_other_numbers_is_not_used(with_kernel, half, coco_images, capfd, before, after, ways):
    def change(source):
        assert before in source
        return source.replace(before, after)

    with_kernel(change)
    made = DeviceInput.checked("cpu", half, False, 3)
    assert made.ways == ways
    check(made, half, coco_images)
    assert capfd.readouterr().err.count("gives other numbers; torch does it\n") == 1


def test_a_kernel_that_fails_is_not_used(monkeypatch, half, coco_images, capfd):
    def refused(**launched):
        raise RuntimeError("CUDA error: invalid device function")

    kernel = letterbox_kernel.LetterboxKernel(refused, refused, letterbox_kernel.table("cpu", half))
    monkeypatch.setattr(letterbox_kernel, "compiled", lambda device, as_half: kernel)
    made = DeviceInput.checked("cpu", half, False, 3)
    assert made.ways == TORCH
    check(made, half, coco_images)
    assert capfd.readouterr().err.count("torch does it\n") == 2


def test_where_torch_resizes_otherwise_the_cpu_letterboxes(monkeypatch, half, capfd):
    monkeypatch.setattr(letterbox_torch, "ONE", 2047.0)
    made = DeviceInput.checked("cpu", half, False, 3)
    assert not made.can_letterbox and made.ways == {"convert": "torch", "letterbox": "CPU"}
    assert "cannot be letterboxed exactly on cpu; the CPU does it" in capfd.readouterr().err


def test_a_device_that_is_lost_is_not_asked_again(monkeypatch, half):
    """After an illegal access every call of CUDA's raises: the worker is replaced."""
    asked = []

    def lost(**launched):
        asked.append(launched)
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    kernel = letterbox_kernel.LetterboxKernel(lost, lost, letterbox_kernel.table("cpu", half))
    monkeypatch.setattr(letterbox_kernel, "compiled", lambda device, as_half: kernel)
    with pytest.raises(torch.AcceleratorError):
        DeviceInput.checked("cpu", half, False, 3)
    assert len(asked) == 1


@pytest.mark.parametrize("channels", [1, 4])
def test_images_without_the_order_of_colours(with_kernel, half, channels):
    with_kernel()
    made = DeviceInput.checked("cpu", half, False, channels)
    assert made.ways == KERNEL
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 64, 64, channels), np.uint8))
    plans = [Letterbox((64, 64), 32).plan(64, 64)] * 2
    assert torch.equal(made.convert(pixels), as_input(pixels, half))
    planes = list(pixels.permute(0, 3, 1, 2))
    assert torch.equal(made.letterbox(planes, plans), as_input(pixels, half))
    assert torch.equal(made.letterbox(list(pixels), plans, layout=OPENCV), as_input(pixels, half))


def test_all_that_is_tried_at_start_differs_in_its_way():
    planned = [Letterbox(device_input.TRIED_SIZE, 1, False).plan(*size) for size in device_input.TRIED]
    assert {plan.resize.name for plan in planned} == {"COPY", "LINEAR", "HALF"}
    assert any(plan.top for plan in planned) and any(plan.left for plan in planned)
    assert any(plan.scales[0] < 1 for plan in planned) and any(plan.scales[0] > 2 for plan in planned)
