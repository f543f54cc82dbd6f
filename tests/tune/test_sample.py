"""The images that plans are tried on."""

from farm.sources.base import Entry, item_key
from farm.tune.sample import Sample


def test_a_sample_lists_its_images_again_and_again_as_if_they_had_changed():
    sample = Sample("s", "/root", [Entry("a.jpg", 1, 2), Entry("b.jpg", 1, 2)])
    listed = sample.entries()
    entries = [next(listed) for _ in range(5)]
    assert [entry.path for entry in entries] == ["a.jpg", "b.jpg", "a.jpg", "b.jpg", "a.jpg"]
    assert len({item_key(*entry) for entry in entries}) == 5
