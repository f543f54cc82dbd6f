"""What an error says in a row, and what of it is kept: its words, none of the memory that it held."""

import weakref

import cv2
import pytest

from farm.models.base import is_out_of_memory
from farm.models.fake import AcceleratorError, OutOfMemoryError
from farm.worker import failures
from farm.worker.failures import BatchFailure

REFUSED = "OpenCV(4.10.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 1200000000 bytes in function"


@pytest.mark.parametrize(
    "error",
    [RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), cv2.error(REFUSED)],
)
def test_memory_that_a_model_is_refused_has_one_name_in_rows(error):
    kind, message = failures.named(error)
    assert kind == "MemoryError"
    assert message.startswith("not enough memory for this image: ")
    assert is_out_of_memory(error), "a batch gets smaller by it"


def test_what_a_refused_batch_held_is_let_go_before_it_is_halved():
    class Features:
        """What a network has computed when memory runs out."""

    def launch():
        features = Features()
        held.append(weakref.ref(features))
        raise OutOfMemoryError("2 GiB do not fit")

    held = []
    try:
        launch()
    except OutOfMemoryError as error:
        failure = BatchFailure.of(error)
    assert held[0]() is None
    assert (failure.kind, failure.out_of_memory, failure.device_lost) == ("OutOfMemoryError", True, False)
    assert failure.message.startswith("2 GiB do not fit (test_failures.py:")


@pytest.mark.parametrize(
    ("says", "memory"), [("CUDA error: out of memory", True), ("CUDA error: device-side assert", False)]
)
def test_errors_of_an_accelerator(says, memory):
    failure = BatchFailure.of(AcceleratorError(says))
    assert (failure.out_of_memory, failure.device_lost) == (memory, not memory)
