"""What a program hands over in memory: arrays become pixels, and what is no image fails with the words that say why."""

import numpy as np
import pytest

from farm.config.types import MAX_PIXELS
from farm.errors import DecodeError
from farm.images.decoding import decode, decode_bytes
from farm.images.in_memory import ARRAY_SUFFIX, FAILED_SUFFIX, MESSAGE_CHARS, failed_file


@pytest.mark.parametrize("words", ["a int is no item", "名前\n", "half \udcff", "x" * 10 * MESSAGE_CHARS, ""], ids=len)
def test_a_refusal_comes_back_as_the_error_of_a_file(tmp_path, words):
    path = tmp_path / f"0{FAILED_SUFFIX}"
    path.write_bytes(failed_file("NotAnImage", words))
    with pytest.raises(DecodeError) as raised:
        decode(str(path), 100)
    assert (raised.value.stage, raised.value.kind) == ("decode", "NotAnImage")
    assert str(raised.value) == words[:MESSAGE_CHARS].replace("\udcff", "?")


def handed_over(array):
    shape = np.array([array.ndim, *array.shape], "<i8").tobytes()
    return decode_bytes(shape + array.tobytes(), f"x{ARRAY_SUFFIX}", MAX_PIXELS)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((3, 48, 64), r"shape \(3, 48, 64\) has 64 channels.*write array.transpose\(1, 2, 0\)"),
        ((48, 64, 6), "has 6 channels"),
    ],
)
def test_an_array_whose_channels_lie_elsewhere_is_no_image(shape, says):
    """As torch has them: taken for pixels, nothing would be found in any."""
    with pytest.raises(DecodeError, match=says):
        handed_over(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 1), (48, 64, 3), (48, 64, 4)])
def test_arrays_of_grey_and_of_colour(shape):
    assert handed_over(np.zeros(shape, np.uint8)).shape == (48, 64, 3)
