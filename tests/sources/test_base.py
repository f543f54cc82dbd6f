"""The key of an item, and the first entry."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.errors import SourceError
from farm.sources.base import (
    IMAGE_EXTENSIONS,
    MAX_PROBLEMS,
    Entry,
    Source,
    first_entry_or_raise,
    has_image_extension,
    item_key,
)


class Listed(Source):
    def __init__(self, count: int) -> None:
        super().__init__("here", "/", may_repeat=False)
        self.given = 0
        self._count = count

    def entries(self) -> Iterator[Entry]:
        while self.given < self._count:
            self.given += 1
            yield Entry(f"{self.given}.jpg", 0, 0)

    def count(self) -> int:
        return self._count


def test_key_is_fixed():
    """A changed key would make every run directory start again."""
    assert item_key("a/b.jpg", 3, 7) == hashlib.blake2b(b"3:7:a/b.jpg", digest_size=16).digest()
    assert item_key("a/b.jpg", -1, 0).hex() == hashlib.blake2b(b"-1:0:a/b.jpg", digest_size=16).hexdigest()
    assert len(item_key("\udcff", 2**70, -(2**70))) == 16


paths = st.binary(max_size=8).map(lambda data: data.decode("utf-8", "surrogateescape"))
entries = st.tuples(paths, st.integers(-1, 2**64), st.integers(-(2**70), 2**70))


@given(entries, entries)
def test_different_entries_have_different_keys(one, other):
    assert (item_key(*one) == item_key(*other)) == (one == other)


def test_first_entry_is_not_lost_and_nothing_is_listed_ahead():
    source = Listed(3)
    all_entries = first_entry_or_raise(source)
    assert source.given == 1
    assert [entry.path for entry in all_entries] == ["1.jpg", "2.jpg", "3.jpg"]


def test_no_entry_is_an_error_that_says_what_was_looked_for():
    source = Listed(0)
    source.note("folder x cannot be listed")
    with pytest.raises(SourceError, match=r"no image found in here; looked for extensions avif.*folder x") as caught:
        first_entry_or_raise(source)
    assert all(extension in str(caught.value) for extension in IMAGE_EXTENSIONS)


def test_problems_are_few_and_said_once():
    source = Listed(0)
    for number in range(1000):
        source.note(f"{number}")
        source.note("0")
    assert len(source.problems) == len(set(source.problems)) == MAX_PROBLEMS


def test_extensions_are_those_of_ultralytics_and_gif():
    from ultralytics.data.utils import IMG_FORMATS

    assert {*IMG_FORMATS, "gif"} == IMAGE_EXTENSIONS
    assert has_image_extension("a.JpG") and has_image_extension("a.b.tiff")
    assert not has_image_extension("jpg") and not has_image_extension("a.jpg.txt") and not has_image_extension("a.")
