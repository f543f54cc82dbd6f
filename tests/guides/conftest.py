"""Where a reader of the guides stands."""

import io
import os
import sys
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.harness import ROOT

PHOTOS = 6


@pytest.fixture(scope="module")
def folder(coco_images, coco_weights, tmp_path_factory):
    """A folder of photographs, the same in shards, and weights."""
    place = tmp_path_factory.mktemp("reader")
    (place / "photos").mkdir()
    (place / "shards").mkdir()
    chosen = sorted(coco_images.iterdir())[:PHOTOS]
    for image in chosen:
        (place / "photos" / image.name).write_bytes(image.read_bytes())
    with (
        tarfile.open(place / "shards" / "one.tar", "w") as tar,
        zipfile.ZipFile(place / "shards" / "one.zip", "w") as archive,
    ):
        for image in chosen:
            member = tarfile.TarInfo(image.name)
            member.size = image.stat().st_size
            tar.addfile(member, io.BytesIO(image.read_bytes()))
            archive.write(image, image.name)
    rows = pa.table({"image": [{"path": image.name, "bytes": image.read_bytes()} for image in chosen]})
    pq.write_table(rows, place / "shards" / "one.parquet")
    (place / "yolo26n.pt").symlink_to(coco_weights)
    return place


@pytest.fixture
def environ(tmp_path_factory):
    """The command `farm` is on the path, and is this checkout's."""
    commands = tmp_path_factory.mktemp("commands")
    (commands / "farm").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m farm "$@"\n')
    (commands / "farm").chmod(0o755)
    return {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
