"""How many images fit, by two measured peaks."""

from farm.models.yolo.device_memory import largest_batch


def test_a_batch_that_fits():
    mega = 1 << 20
    peaks = [120 * mega, 320 * mega]  # of 1 and 3 images: 100 each, 20 for the network
    assert largest_batch(32, 80 << 30, (1, 3), peaks) == 32
    assert largest_batch(32, 1025 * mega, (1, 3), peaks) == 8
    assert largest_batch(32, 10 * mega, (1, 3), peaks) == 1, "one image is tried whatever the numbers say"
    assert largest_batch(32, 10 * mega, (1, 3), [mega, mega]) == 32, "a network that shows no growth"
