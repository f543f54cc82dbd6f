"""A URL is told that it is no source yet, and no path is made of it."""

import pytest

from farm.config.loading import load
from farm.config.sections import SourceConfig
from farm.errors import ModelError, SourceError
from farm.models.weights.files import resolve_weights
from farm.sources import open_source
from farm.sources.directory import DirectorySource


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3://bucket/images", "mount the bucket as a folder"),
        ("gs://bucket/images/*.jpg", "mount the bucket as a folder"),
        ("https://example.com/a.jpg", "download the images into a folder"),
        ("rtsp://camera/1", "save frames of the stream"),
        ("hdfs://name/a", "copy the images into a folder of this machine"),
    ],
)
def test_what_works_today(tmp_path, monkeypatch, url, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError) as raised:
        open_source(load(None, [f"source={url}", "model=m.pt", "output=o"], tmp_path).source)
    told = str(raised.value)
    assert told.startswith(f"source {url} is a URL, which is no source yet: ") and says in told
    assert str(tmp_path) not in told


def test_a_file_url_is_a_path(tmp_path):
    config = load(None, [f"source=file://{tmp_path}", "model=m.pt", f"output=file://{tmp_path}/run"], "/")
    assert (config.source.path, config.output.dir) == (str(tmp_path), f"{tmp_path}/run")
    assert open_source(config.source).root == str(tmp_path)
    assert open_source(SourceConfig(path=f"local://{tmp_path}")).root == str(tmp_path)


def test_a_folder_that_is_called_so_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:" / "b").mkdir(parents=True)
    assert isinstance(open_source(SourceConfig(path="s3://b")), DirectorySource)


@pytest.mark.parametrize("url", ["s3://bucket/yolo11n.pt", "https://example.com/yolo11n.pt"])
def test_weights_are_a_file(url):
    with pytest.raises(ModelError, match="is a URL; download the file, and give its path"):
        resolve_weights(url)
