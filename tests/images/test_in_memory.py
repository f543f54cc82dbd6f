"""What an item that is no image becomes: a file that fails with the words of who looked at it."""

import pytest

from farm.errors import DecodeError
from farm.images.decoding import decode
from farm.images.refusals import MESSAGE_CHARS, REFUSED_SUFFIX, refusal


@pytest.mark.parametrize("words", ["a int is no item", "名前\n", "half \udcff", "x" * 10 * MESSAGE_CHARS, ""], ids=len)
def test_a_refusal_comes_back_as_the_error_of_a_file(tmp_path, words):
    path = tmp_path / f"0{REFUSED_SUFFIX}"
    path.write_bytes(refusal("NotAnImage", words))
    with pytest.raises(DecodeError) as raised:
        decode(str(path), 100)
    assert (raised.value.stage, raised.value.kind) == ("decode", "NotAnImage")
    assert str(raised.value) == words[:MESSAGE_CHARS].replace("\udcff", "?")
