"""Networks that were compiled for a shape are found again whole, by those alone that can run them."""

import os

from farm.models.backends import openvino_kept
from farm.models.backends.openvino_kept import KeptNetworks
from farm.models.cache import Entry

SHAPE, OTHER = (1, 3, 480, 640), (1, 3, 640, 480)


def test_what_is_written_is_read(tmp_path):
    kept = KeptNetworks(tmp_path, {"threads": 1})
    assert kept.read(SHAPE) is None
    kept.write(SHAPE, b"a network")
    assert kept.read(SHAPE) == b"a network"
    assert kept.read(OTHER) is None
    assert KeptNetworks(tmp_path, {"threads": 2}).read(SHAPE) is None


def test_what_is_not_whole_is_not_read(tmp_path):
    kept = KeptNetworks(tmp_path, {})
    kept.write(SHAPE, b"a network")
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:40], whole[:10], b"", whole[:-1] + b"?"):
        path.write_bytes(damaged)
        assert kept.read(SHAPE) is None


def test_what_was_used_longest_ago_makes_room(tmp_path, monkeypatch):
    monkeypatch.setattr(openvino_kept, "KEPT_BYTES", 300)
    kept = KeptNetworks(tmp_path, {})
    shapes = [(1, 3, 32, 32 * number) for number in (1, 2, 3)]
    for shape in shapes[:2]:
        kept.write(shape, bytes(100))
    for path in tmp_path.iterdir():
        os.utime(path, (1.0, 1.0))
    kept.read(shapes[0])
    kept.write(shapes[2], bytes(100))
    assert [kept.read(shape) is not None for shape in shapes] == [True, False, True]
    kept.write(OTHER, bytes(300))
    assert kept.read(OTHER) is None


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path):
    kept = KeptNetworks(tmp_path / "gone", {})
    kept.write(SHAPE, b"a network")
    assert kept.read(SHAPE) is None


def test_what_a_killed_worker_left_goes_with_the_next_conversion(tmp_path):
    left = tmp_path / ".1x3x480x640-0123.compiled.77.farm-part"
    left.write_bytes(b"half")
    kept = KeptNetworks(tmp_path, {})
    kept.write(SHAPE, b"a network")
    Entry(tmp_path).sweep()
    assert not left.exists()
    assert kept.read(SHAPE) == b"a network"
