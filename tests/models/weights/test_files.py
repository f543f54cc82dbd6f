"""Weights as the supervisor sees them: found, told apart, and described when they are not there."""

from pathlib import Path

import pytest

from farm.errors import ModelError
from farm.models.weights import files
from farm.models.weights.files import resolve_weights, weights_digest


def test_an_existing_file_is_its_absolute_path(tmp_path, monkeypatch):
    (tmp_path / "m.pt").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert resolve_weights("m.pt") == str(tmp_path / "m.pt")


def test_a_missing_file_names_its_neighbour(tmp_path):
    (tmp_path / "yolo11n-coco.pt").touch()
    with pytest.raises(ModelError, match=r"did you mean .*yolo11n-coco\.pt"):
        resolve_weights(str(tmp_path / "yolo11n-cocoo.pt"))


def test_a_named_model_that_cannot_be_fetched_says_so_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "DOWNLOAD", "import sys; sys.exit('no network here')")
    with pytest.raises(ModelError, match=r"yolo99n\.pt is no file here.*no network here.*copy it to") as raised:
        resolve_weights("yolo99n.pt", tmp_path / "cache")
    assert "\n" not in str(raised.value)


def test_a_model_that_ultralytics_has_under_another_name_is_called_as_it_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "DOWNLOAD", "import sys; sys.exit('no network here')")
    with pytest.raises(
        ModelError, match=r"^model\.weights yolov5n\.pt \(Ultralytics has it as yolov5nu\.pt\) is no file"
    ):
        resolve_weights("yolov5n.pt", tmp_path / "cache")
    with pytest.raises(
        ModelError, match=r"^model\.weights \S*/yolov5s\.pt \(Ultralytics has it as yolov5su\.pt\) do not"
    ):
        monkeypatch.chdir(tmp_path)  # a "u" in the path would have Ultralytics leave the name as it is
        resolve_weights("./yolov5s.pt")


def test_a_named_model_is_fetched_once(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "DOWNLOAD", "import sys; open(sys.argv[1], 'a').write('x')")
    for _ in range(2):
        path = resolve_weights("yolo99n.pt", tmp_path)
    assert Path(path).read_text() == "x"


@pytest.mark.parametrize("name", ["yolo11n.yaml", "yolo26x.yaml", "yolo11n-seg.yaml", "yolov8.yaml"])
def test_model_yamls_that_ultralytics_ships_are_known(name):
    assert resolve_weights(name) == name
    assert len(weights_digest(name)) == 64


def test_a_digest_tells_contents_apart_also_of_folders(tmp_path):
    for name, content in (("a", b"1"), ("b", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.bin").write_bytes(content)
        (tmp_path / f"{name}.pt").write_bytes(content)
    digests = {weights_digest(str(tmp_path / name)) for name in ("a", "b", "a.pt", "b.pt")}
    assert len(digests) == 4
    (tmp_path / "c.pt").write_bytes(b"1")
    assert weights_digest(str(tmp_path / "c.pt")) == weights_digest(str(tmp_path / "a.pt"))


def test_without_a_home_folder_nothing_is_downloaded(monkeypatch):
    monkeypatch.setattr(files, "root", lambda: None)
    with pytest.raises(ModelError, match="without a home folder nothing is downloaded"):
        resolve_weights("yolo99n.pt")
