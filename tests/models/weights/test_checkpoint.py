"""The reader of checkpoints: what torch writes it reads, whatever else it is given does it no harm."""

import io
import pickle
import struct
import time
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.models.weights import checkpoint, inert_pickle
from farm.models.weights.checkpoint import read
from farm.models.weights.inert_pickle import Inert


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small model as torch saves it: as an archive, and as a row of pickles."""
    import torch

    folder = tmp_path_factory.mktemp("saved")
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.SiLU())
    content = {"model": model, "ema": None, "train_args": {"imgsz": 320, "lr0": 0.01, "data": "ü.yaml", "classes": [0]}}
    torch.save(content, folder / "archive.pt")
    torch.save(content, folder / "pickles.pt", _use_new_zipfile_serialization=False)
    return folder


@pytest.mark.parametrize("name", ["archive.pt", "pickles.pt"])
def test_both_formats_are_read(saved, name):
    found = read(saved / name)
    assert found.root["train_args"] == {"imgsz": 320, "lr0": 0.01, "data": "ü.yaml", "classes": [0]}
    assert found.model.name == "torch.nn.modules.container.Sequential"
    assert [child.name.rpartition(".")[2] for child in found.model.modules.values()] == [
        "Conv2d",
        "BatchNorm2d",
        "SiLU",
    ]
    assert found.model.modules["0"].state["_parameters"]["weight"].is_tensor
    assert "torch.nn.modules.conv.Conv2d" in found.names
    assert not found.is_script


def test_real_weights(coco_weights):
    found = read(coco_weights)
    assert found.model.name == "ultralytics.nn.tasks.DetectionModel"
    assert found.root["train_args"]["imgsz"] == 640


def test_what_is_no_checkpoint_is_none(tmp_path):
    for content in (b"", b"<html>", b"PK\x03\x04" + b"x" * 500, pickle.dumps({"model": 1}), b"\x80\x02}q"):
        (tmp_path / "m.pt").write_bytes(content)
        assert read(tmp_path / "m.pt") is None
    assert read(tmp_path) is None
    assert read(tmp_path / "missing.pt") is None


class Evil:
    """What loading it would run."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return open, (self.mark, "w")


def archived(content):
    """An archive as torch writes it, around any pickle."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("m/data.pkl", content)
        archive.writestr("m/version", "3\n")
    return whole.getvalue()


def written(tmp_path, content):
    (tmp_path / "m.pt").write_bytes(content)
    return tmp_path / "m.pt"


def test_nothing_is_run(tmp_path):
    found = read(
        written(tmp_path, archived(pickle.dumps({"model": Evil(tmp_path / "run"), "train_args": {"imgsz": 64}})))
    )
    assert isinstance(found.root["model"], Inert)
    assert found.root["model"].name in ("io.open", "builtins.open", "_io.open")
    assert found.root["train_args"] == {"imgsz": 64}
    assert not (tmp_path / "run").exists()


def deep(levels):
    """A tuple in a tuple in a tuple, as a key: hashing it would overflow the stack of C."""
    return b"\x80\x02}" + b")" + b"\x85" * levels + b"K\x01s."


def doubled(levels):
    """t = (t, t), many times over, as a key: hashing it would take for ever."""
    return b"\x80\x02}" + b")" + b"2\x86" * levels + b"K\x01s."


HOSTILE = {
    "a deep key": deep(200_000),
    "a key that doubles": doubled(100),
    "a memo with a gap": b"\x80\x02}r\xff\xff\xff\xff.",
    "a length beyond the file": b"\x80\x04\x96" + struct.pack("<Q", 1 << 60) + b"x.",
    "a frame beyond the file": b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"}.",
    "a call of a number": b"\x80\x02K\x01)R.",
    "nothing on the stack": b"\x80\x02R.",
    "no end": b"\x80\x02}",
    "a name that is no text": b"\x80\x04K\x01K\x02\x93.",
    "many marks": b"\x80\x02" + b"(" * 100_000 + b"t.",
    "a state that is its own object": b"\x80\x02cx\ny\n)\x81q\x00h\x00b.",
    "a list that holds itself": b"\x80\x02]q\x00h\x00a.",
    "an extension": b"\x80\x02\x82\x01.",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_pickles_do_no_harm(tmp_path, content):
    began = time.monotonic()
    read(written(tmp_path, archived(content)))
    read(written(tmp_path, content))
    assert time.monotonic() - began < 30


def test_what_is_too_long_is_left_alone(tmp_path, monkeypatch):
    content = archived(pickle.dumps(list(range(1000))))
    monkeypatch.setattr(inert_pickle, "MOST_STEPS", 100)
    assert read(written(tmp_path, content)) is None
    monkeypatch.setattr(inert_pickle, "MOST_STEPS", 10_000)
    assert read(written(tmp_path, content)).root == list(range(1000))
    monkeypatch.setattr(checkpoint, "PICKLE_BYTES", 100)
    assert read(written(tmp_path, content)) is None


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_damaged_checkpoints_do_no_harm(saved, data):
    """Some bytes of a real one changed, or its end cut off."""
    whole = bytearray((saved / data.draw(st.sampled_from(["archive.pt", "pickles.pt"]))).read_bytes())
    changes = st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=8)
    for place, byte in data.draw(changes):
        whole[place] = byte
    size = data.draw(st.integers(0, len(whole)))
    place = saved / "damaged.pt"
    place.write_bytes(whole[:size])
    read(place)


@settings(deadline=None, max_examples=150)
@given(content=st.binary(max_size=200))
def test_any_bytes_do_no_harm(saved, content):
    place = saved / "any.pt"
    for whole in (content, b"\x80\x02" + content, archived(b"\x80\x02" + content), archived(content + b".")):
        place.write_bytes(whole)
        read(place)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=10,
)


@settings(deadline=None, max_examples=100)
@given(value=PLAIN, protocol=st.integers(0, 5))
def test_plain_values_are_what_pickle_makes_of_them(saved, value, protocol):
    place = saved / "plain.pt"
    place.write_bytes(archived(pickle.dumps({"value": value}, protocol)))
    found = read(place)
    if not found.names:  # bytes were made by a call before protocol 3
        assert found.root == {"value": value}
