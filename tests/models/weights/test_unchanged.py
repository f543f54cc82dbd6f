"""Weights that change while somebody loads them are noticed, whatever the moment."""

import os
import time

import pytest

from farm.errors import ModelError, WeightsChangedError
from farm.models import cache
from farm.models.cache import Entry
from farm.models.weights.files import weights_digest
from farm.models.weights.unchanged import check, unchanged


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "best.pt"
    path.write_bytes(b"first")
    return path


def test_weights_that_stay_as_they_are(weights):
    with unchanged(str(weights), weights_digest(str(weights))):
        os.utime(weights, (0, 0))
        weights.write_bytes(b"first")
    with unchanged("a factory's", None):
        pass


def test_weights_that_have_changed_before(weights):
    digest = weights_digest(str(weights))
    weights.write_bytes(b"other")
    with pytest.raises(WeightsChangedError) as error, unchanged(str(weights), digest):
        pytest.fail("nothing is loaded")
    words = str(error.value)
    assert (
        f"{weights} changed since the run began (sha256 {digest[:12]}, now {weights_digest(str(weights))[:12]})"
        in words
    )
    assert "put the file back and run again to continue, or give another output.dir" in words
    assert error.value.exit_code == 2 and "\n" not in words


def test_weights_that_change_meanwhile(weights):
    digest = weights_digest(str(weights))
    before = weights.stat()
    with pytest.raises(WeightsChangedError), unchanged(str(weights), digest):
        weights.write_bytes(b"other")  # as long, and as old
        os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    weights.write_bytes(b"first")
    with pytest.raises(WeightsChangedError), unchanged(str(weights), digest):
        weights.write_bytes(b"oth")
        raise ModelError("no weights at all")  # of whoever has read half of them
    weights.write_bytes(b"first")
    with pytest.raises(ModelError, match="not like this"), unchanged(str(weights), digest):
        raise ModelError("not like this")


def test_weights_that_are_gone_or_cannot_be_read(weights, tmp_path):
    digest = weights_digest(str(weights))
    weights.unlink()
    with pytest.raises(WeightsChangedError, match="now gone"), unchanged(str(weights), digest):
        pass
    with pytest.raises(OSError, match="loop"):  # which may pass
        (tmp_path / "loop.pt").symlink_to(tmp_path / "loop.pt")
        with unchanged(str(tmp_path / "loop.pt"), digest):
            pass


@pytest.mark.parametrize("place", ["backends", "converted"])
def test_of_a_converted_model_another_one_is_made(tmp_path, monkeypatch, place):
    monkeypatch.setattr(cache, "ROOT", str(tmp_path))
    entry = Entry.of(tmp_path / place, "best", 1)
    with entry.alone(time.monotonic() + 5), entry.making() as making:
        (making / "best.onnx").write_bytes(b"first")
        made = entry.publish(making / "best.onnx", {})
    made.path.write_bytes(b"other")
    words = r"the converted model .* run again to continue$"
    with pytest.raises(WeightsChangedError, match=words), unchanged(str(made.path), made.digest):
        pass


def test_a_manifest_beside_weights_makes_them_nobody_elses(weights):
    digest = weights_digest(str(weights))
    weights.with_name("manifest.json").write_text('{"name": "best.pt"}')
    weights.write_bytes(b"other")
    with pytest.raises(WeightsChangedError, match=r"^model\.weights .* put the file back"):
        check(str(weights), digest)


def test_a_folder(tmp_path):
    folder = tmp_path / "m_openvino_model"
    folder.mkdir()
    (folder / "m.xml").write_text("one")
    with pytest.raises(WeightsChangedError), unchanged(str(folder), weights_digest(str(folder))):
        (folder / "m.bin").touch()
