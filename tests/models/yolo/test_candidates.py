"""Candidates where the output lies: without waiting for a device, in one copy, and what happens where room is short."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from farm.models.yolo.candidates import on_host
from tests.support.recorded_outputs import LIVE, of_each, same

WAIT = (
    "aten.nonzero.",
    "aten._local_scalar_dense",
    "aten.masked_select",
    "aten.is_nonzero",
    "aten.item",
    "aten.unique",
)


class NothingWaits(TorchDispatchMode):
    """Fails as a recording of a CUDA graph does: where the host must know a number of the device's, or copies one."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        if name.startswith(WAIT):
            raise RuntimeError(f"{name} waits for the device")
        if name.startswith("aten.index."):
            assert all(index is None or index.dtype != torch.bool for index in args[1]), "a mask's count is asked for"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["coco", *LIVE])
def test_nothing_waits_for_a_device(coco, live, name):
    recorded = (coco if name == "coco" else live(name)).half()
    post = recorded.post
    with torch.inference_mode():
        with NothingWaits():
            compacted = post.compact(recorded.raw, 2048)
        found = post.found(compacted.to_host(), recorded.shape, recorded.originals, compacted.protos)
        assert same(found, recorded.theirs())


def test_what_waits_is_noticed(coco):
    with torch.inference_mode(), NothingWaits(), pytest.raises(RuntimeError, match="waits"):
        coco.half().post.compact(coco.half().raw, None)


def test_an_overflow_is_told_and_a_larger_cap_holds_all(coco):
    post = coco.told(conf=0.001).post
    with torch.inference_mode():
        compacted = post.compact(coco.raw, 64)
        counts = compacted.to_host().counts
        total = int(counts.sum())
        assert post.overflown(counts, 64)
        assert not post.overflown(counts, total)
        whole = post.compact(coco.raw, total).to_host()
        exact = post.compact(coco.raw, None).to_host()
    assert np.array_equal(counts, whole.counts)
    assert np.array_equal(whole.rows, exact.rows)
    assert np.array_equal(compacted.to_host().rows, exact.rows[:64])


def test_probabilities_never_overflow(live):
    recorded = live("classify")
    with torch.inference_mode():
        counts = recorded.post.compact(recorded.raw, 1).to_host().counts
    assert not recorded.post.overflown(counts, 1)


def test_rows_and_counts_are_one_copy(coco):
    """As from a device: the copy is only begun, and what it fills is seen when it is done."""
    with torch.inference_mode():
        compacted = coco.post.compact(coco.raw, 512)
        later = torch.zeros_like(compacted.buffer)
        host = on_host(later, compacted.images, compacted.width)
        assert host.total == 0
        later.copy_(compacted.buffer)
        assert same(coco.post.found(host, coco.shape, coco.originals), coco.ours())


@pytest.mark.parametrize("cap", [None, 64])
@pytest.mark.parametrize("half", [False, True])
def test_an_output_without_places(coco, cap, half):
    """Prompt-free YOLOE looks only where its filter lets something through."""
    empty = replace(coco, raw=of_each(coco.half().raw if half else coco.raw, lambda tensor: tensor[..., :0]))
    with torch.inference_mode():
        found = empty.ours(cap)
        assert same(found, empty.theirs())
    assert found.counts.tolist() == [0] * len(coco.originals)
