"""letterbox.cu itself, run by the CPU on real images: to the last bit what Ultralytics makes of them."""

import tomllib
from contextlib import nullcontext

import cv2
import numpy as np
import pytest
import torch
from ultralytics.data.augment import LetterBox

from farm.models.yolo import letterbox_kernel
from farm.models.yolo.letterbox import Letterbox, Resize
from farm.models.yolo.letterbox_kernel import SOURCE
from farm.models.yolo.preprocessing import as_input
from tests.support import host_kernels
from tests.support.checkout import ROOT

DTYPES = {False: torch.float32, True: torch.float16}
LAST = {False: torch.contiguous_format, True: torch.channels_last}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def images(coco_images):
    random = np.random.default_rng(5)
    noise = [random.integers(0, 256, (*random.integers(1, 1400, 2), 3), np.uint8) for _ in range(20)]
    exact = [random.integers(0, 256, (*size, 3), np.uint8) for size in ((960, 1280), (1280, 640))]
    return [cv2.imread(str(path)) for path in sorted(coco_images.glob("*.jpg"))] + noise + exact


@pytest.fixture(scope="module", params=[False, True], ids=["float32", "float16"])
def half(request):
    return request.param


@pytest.fixture(scope="module")
def kernel(half, tmp_path_factory):
    return host_kernels.built(tmp_path_factory.mktemp("kernel"), half)


def test_every_image_is_letterboxed_as_by_ultralytics(kernel, half, images):
    theirs, ways = LetterBox((640, 640), auto=True, stride=32), set()
    for number, image in enumerate(images):
        last, planar = bool(number & 1), bool(number & 2)
        plan = Letterbox((640, 640), 32).plan(*image.shape[:2])
        ways.add(plan.resize)
        source = torch.from_numpy(image).permute(2, 0, 1).contiguous() if planar else torch.from_numpy(image)
        out = torch.full((1, 3, *plan.padded), -1, dtype=DTYPES[half]).contiguous(memory_format=LAST[last])
        kernel.letterbox([source], [plan], out, True, planar)
        expected = as_input(torch.from_numpy(theirs(image=image)[None]), half)
        assert torch.equal(out, expected), plan
    assert ways == set(Resize)


@pytest.mark.parametrize("last", [False, True], ids=["planes", "channels-last"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_batch_is_converted_as_by_ultralytics(kernel, half, channels, last):
    pixels = torch.from_numpy(np.random.default_rng(channels).integers(0, 256, (3, 37, 300, channels), np.uint8))
    out = torch.full((3, channels, 37, 300), -1, dtype=DTYPES[half]).contiguous(memory_format=LAST[last])
    kernel.convert(pixels, out, channels == 3)
    assert torch.equal(out, as_input(pixels, half))


def test_images_of_several_sizes_are_one_batch(kernel, half):
    random = np.random.default_rng(2)
    sizes = ((96, 64), (192, 128), (37, 53), (3, 300))
    images = [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    plans = [Letterbox((96, 64), 32, auto=False).plan(*size) for size in sizes]
    out = torch.full((4, 3, 96, 64), -1, dtype=DTYPES[half])
    kernel.letterbox([torch.from_numpy(image) for image in images], plans, out, True, False)
    theirs = LetterBox((96, 64), auto=False, stride=32)
    whole = np.stack([theirs(image=image) for image in images])
    assert torch.equal(out, as_input(torch.from_numpy(whole), half))


def test_what_is_not_dense_is_refused(kernel, half):
    out = torch.zeros((1, 3, 8, 16), dtype=DTYPES[half])[..., ::2]
    with pytest.raises(ValueError, match="dense"):
        kernel.convert(torch.zeros((1, 8, 8, 3), dtype=torch.uint8), out, True)


def test_there_is_no_kernel_for_the_cpu():
    assert letterbox_kernel.compiled("cpu", True) is None


def test_each_name_is_compiled_for_the_device_it_is_launched_on(monkeypatch):
    """As torch compiles them: for the device that is current, of a source that it is given whole."""
    current, asked = [], []
    monkeypatch.setattr(torch.cuda, "device", lambda device: current.append(device) or nullcontext())
    monkeypatch.setattr(torch.cuda, "_compile_kernel", lambda source, name: asked.append((source, name)), raising=False)
    monkeypatch.setattr(letterbox_kernel, "table", lambda device, half: torch.zeros(256))
    letterbox_kernel.compiled("cuda:1", True)
    assert current == ["cuda:1"]
    assert [name for _, name in asked] == ["convert", "letterbox"]
    assert all(source.startswith("#define OUT_T unsigned short\n") for source, _ in asked)


def test_cudas_own_compiler_takes_the_source(half):
    """The one that torch calls, without a device: for Hopper, the first that has all that this needs."""
    try:
        from torch.cuda._utils import _nvrtc_compile

        from_source = f"#define OUT_T {letterbox_kernel.BITS[half]}\n{SOURCE.read_text()}"
        compiled = [_nvrtc_compile(from_source, name, "90")[1] for name in ("convert", "letterbox")]
    except (ImportError, OSError, AttributeError) as error:
        pytest.skip(f"torch has no CUDA here: {error}")
    assert compiled == ["convert", "letterbox"]


def test_the_file_travels_with_the_package():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["farm"]
    assert any(SOURCE.relative_to(ROOT / "farm").match(pattern) for pattern in patterns)
