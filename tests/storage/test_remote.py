"""What is done differently on remote file systems."""

import re

import pytest

from farm.errors import OutputError
from farm.storage import folders, remote
from farm.storage.folders import folder_of


def test_a_refused_upload_is_tried_again(bucket, monkeypatch):
    """Whatever a client library raises: for as long as patience lasts, unless the answer is final."""
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.01)
    path = folder_of(bucket) / "part"
    upload, refusals = remote.upload, [OSError("slow down"), TimeoutError("no answer")]

    def refuse(path, data):
        if refusals:
            raise refusals.pop()
        upload(path, data)

    monkeypatch.setattr(remote, "upload", refuse)
    folders.write_whole(path, b"data")
    assert folders.read(path) == b"data"

    monkeypatch.setattr(remote, "PATIENCE_S", 0.0)
    refusals.append(OSError("slow down"))
    with pytest.raises(OSError, match="slow down"):
        folders.write_whole(path, b"data")

    monkeypatch.setattr(remote, "PATIENCE_S", 300.0)
    refusals.append(PermissionError("no"))
    with pytest.raises(PermissionError):
        folders.write_whole(path, b"data")


@pytest.mark.parametrize(
    ("url", "says"),
    [("s3://bucket/run[12]", r"has a \*"), ("s4://bucket/run", "s4"), ("gs://bucket/run", "gcsfs")],
)
def test_what_cannot_be_opened_says_what_is_missing(url, says):
    with pytest.raises(OutputError, match=f"output.dir {re.escape(url)} .*{says}"):
        folder_of(url)
