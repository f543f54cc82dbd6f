"""The device's decoder with a fake of torchcodec: what waits is one list, and no image fails for another."""

import gc
import threading
import time

import cv2
import numpy as np
import pytest

from farm.images.baseline_jpeg import baseline_jpeg
from farm.models.yolo import device_decoder
from farm.models.yolo.device_decoder import FAILURES_IN_A_ROW, LONGEST_LIST, THREAD_NAME, DeviceDecoder
from tests.images.samples import rgb, saved
from tests.models.yolo.fake_torchcodec import BAD_JPEG, GROWS, FakeTorchcodec, commented

WAIT_S = 20


class Submitted:
    """One image that was submitted, and what became of it."""

    def __init__(self, data):
        self.data = data
        self.began = []
        self.outcome = threading.Event()

    def begin_decoding(self, together):
        self.began.append(together)

    def done(self, pixels, seconds):
        self.pixels, self.seconds = pixels, seconds
        self.thread = threading.current_thread()
        self.outcome.set()


def photo(seed=0, comment=b"a photograph", height=48, width=64):
    return commented(saved(rgb(seed, height, width), "JPEG", subsampling=0), comment)


def submit(decoder, images):
    submitted = [Submitted(data) for data in images]
    for each in submitted:
        decoder.submit(baseline_jpeg(each.data, "x.jpg", 10**8), each)
    return submitted


def ended(submitted):
    for each in submitted:
        assert each.outcome.wait(WAIT_S)
    return submitted


def is_right(each):
    expected = cv2.imdecode(np.frombuffer(each.data, np.uint8), cv2.IMREAD_COLOR)
    return each.pixels is not None and np.array_equal(each.pixels.numpy().transpose(1, 2, 0)[..., ::-1], expected)


def is_alive():
    return any(thread.name.startswith(THREAD_NAME) for thread in threading.enumerate())


def until(condition):
    end = time.monotonic() + WAIT_S
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


@pytest.fixture
def decoder():
    made = []

    def make(fake, threads=1):
        made.append(DeviceDecoder(fake.make, threads))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_all_that_waits_is_decoded_as_one_list_and_nothing_waits_for_a_list_to_be_full(decoder):
    fake = FakeTorchcodec()
    made = decoder(fake)
    (alone,) = ended(submit(made, [photo()]))
    fake.go_on.clear()
    first = submit(made, [photo(1)])
    assert until(lambda: first[0].began)
    rest = submit(made, [photo(seed, height=40 + 8 * (seed % 3)) for seed in range(LONGEST_LIST + 5)])
    fake.go_on.set()
    assert all(map(is_right, ended([alone, *first, *rest])))
    assert fake.lists == [1, 1, LONGEST_LIST, 5]
    assert rest[0].began == [LONGEST_LIST] and rest[-1].began == [5]
    assert 0 <= rest[0].seconds < WAIT_S and rest[0].thread.name.startswith(THREAD_NAME)


def test_threads_share_what_comes(decoder):
    fake = FakeTorchcodec()
    made = decoder(fake, threads=2)
    fake.go_on.clear()
    first = submit(made, [photo(1)])
    assert until(lambda: first[0].began)
    second = submit(made, [photo(2)])
    assert until(lambda: second[0].began)
    assert len(fake.threads) == 2
    fake.go_on.set()
    assert all(map(is_right, ended(first + second)))


@pytest.mark.parametrize("bad", [(0,), (5,), (15,), (3, 12), tuple(range(16))])
def test_a_list_that_fails_is_tried_in_halves_and_only_the_bad_image_is_given_back(decoder, bad):
    fake = FakeTorchcodec()
    made = decoder(fake)
    fake.go_on.clear()
    submit(made, [photo()])
    assert until(lambda: fake.threads)
    images = submit(made, [photo(seed, BAD_JPEG if seed in bad else b"good") for seed in range(16)])
    fake.go_on.set()
    for number, each in enumerate(ended(images)):
        assert each.pixels is None if number in bad else is_right(each)
    assert made.works


def test_a_device_without_room_for_a_list_decodes_parts_of_it(decoder):
    fake = FakeTorchcodec(most=3 * 48 * 64)
    made = decoder(fake)
    fake.go_on.clear()
    submit(made, [photo()])
    assert until(lambda: fake.threads)
    images = submit(made, [photo(seed) for seed in range(8)] + [photo(9, height=480, width=640)])
    fake.go_on.set()
    *small, large = ended(images)
    assert all(map(is_right, small)) and large.pixels is None


def test_an_image_of_another_size_than_its_header_says_is_given_back(decoder):
    grown, good = ended(submit(decoder(FakeTorchcodec()), [photo(0, GROWS), photo(1)]))
    assert grown.pixels is None and is_right(good)


def test_a_decoder_that_decodes_nothing_is_not_asked_any_more(decoder, monkeypatch):
    said = []
    monkeypatch.setattr(device_decoder, "tell", said.append)
    fake = FakeTorchcodec(broken=True)
    made = decoder(fake)
    ended(submit(made, [photo()] * (FAILURES_IN_A_ROW - 1)))
    assert made.works and not said
    ended(submit(made, [photo()]))
    assert not made.works
    asked = len(fake.lists)
    images = ended(submit(made, [photo()] * 20))
    assert all(each.pixels is None for each in images)
    assert len(fake.lists) <= asked + 20, "no halves"
    assert said == [
        "farm: the device decodes no image any more, the CPU does it: RuntimeError: Failed to decode batch: 5"
    ]


def test_what_cannot_be_loaded_in_a_thread_gives_images_back(decoder):
    def make():
        raise ImportError("libnvjpeg.so.13: cannot open shared object file")

    made = DeviceDecoder(make, 1)
    (each,) = ended(submit(made, [photo()]))
    assert each.pixels is None
    made.close()


def test_threads_end_when_all_that_waits_is_decoded(decoder):
    fake = FakeTorchcodec()
    made = decoder(fake, threads=2)
    fake.go_on.clear()
    images = submit(made, [photo(seed) for seed in range(5)])
    made.close()
    made.close()
    assert is_alive()
    (late,) = submit(made, [photo()])
    assert late.outcome.is_set() and late.pixels is None
    fake.go_on.set()
    assert all(map(is_right, ended(images)))
    assert until(lambda: not is_alive())


def test_threads_end_with_a_decoder_that_nobody_closes():
    made = DeviceDecoder(FakeTorchcodec().make, 2)
    ended(submit(made, [photo()]))
    assert is_alive()
    del made
    gc.collect()
    assert until(lambda: not is_alive())


def test_images_are_let_go_of_while_a_thread_waits(decoder):
    import weakref

    made = decoder(FakeTorchcodec())
    images = ended(submit(made, [photo()]))
    pixels = weakref.ref(images[0].pixels)
    del images
    assert until(lambda: gc.collect() >= 0 and pixels() is None)
