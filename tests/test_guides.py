"""The guides in docs/guides, and the quick start, run as they are printed.

    ```bash, ```python   run, in the order of the page, in a folder with photographs, weights and shards
    ```yaml              is a config that farm takes
    ```sh, ```text       is shown only: it needs another machine, installs something, or is output

A block of Python that follows a run is started before the next block, which is the run.
"""

import io
import os
import re
import subprocess
import sys
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from farm.config.loading import from_mapping
from tests.support.harness import ROOT

GUIDES = [*sorted((ROOT / "docs" / "guides").glob("*.md")), ROOT / "docs" / "quickstart.md"]
MADE = {  # folders that a reader of a page has afterwards, with something in them
    "bucket": ["labels/labels"],
    "folder": ["runs/mine/labels", "runs/mine/parts"],
    "models": ["runs/codes/parts"],
    "quickstart": ["runs/mine/labels", "runs/mine/parts"],
    "ray": ["runs/ray/labels"],
}
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHOWN_ONLY = {"sh", "text"}
PHOTOS = 6


def blocks(page, *languages):
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(language, text) for language, text in found if language in languages]


RUN = [page for page in GUIDES if blocks(page, "bash", "python")]


@pytest.fixture
def folder(coco_images, coco_weights, tmp_path):
    """Where a reader stands: a folder of photographs, the same in shards, and weights."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "shards").mkdir()
    chosen = sorted(coco_images.iterdir())[:PHOTOS]
    for image in chosen:
        (tmp_path / "photos" / image.name).write_bytes(image.read_bytes())
    with (
        tarfile.open(tmp_path / "shards" / "one.tar", "w") as tar,
        zipfile.ZipFile(tmp_path / "shards" / "one.zip", "w") as archive,
    ):
        for image in chosen:
            member = tarfile.TarInfo(image.name)
            member.size = image.stat().st_size
            tar.addfile(member, io.BytesIO(image.read_bytes()))
            archive.write(image, image.name)
    rows = pa.table({"image": [{"path": image.name, "bytes": image.read_bytes()} for image in chosen]})
    pq.write_table(rows, tmp_path / "shards" / "one.parquet")
    (tmp_path / "yolo26n.pt").symlink_to(coco_weights)
    return tmp_path


@pytest.fixture
def environ(tmp_path_factory):
    """The command `farm` is on the path, and is this checkout's."""
    commands = tmp_path_factory.mktemp("commands")
    (commands / "farm").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m farm "$@"\n')
    (commands / "farm").chmod(0o755)
    return {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def arguments(language, text):
    return [sys.executable, "-c", text] if language == "python" else ["bash", "-euo", "pipefail", "-c", text]


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
@pytest.mark.timeout(600)
def test_blocks_run_as_printed(page, folder, environ, request):
    text_of = str
    if page.stem == "bucket":
        bucket = request.getfixturevalue("bucket")
        environ |= {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        text_of = lambda text: text.replace("s3://bucket", bucket)  # noqa: E731
    if page.stem == "ray":
        pytest.importorskip("ray")
    following = None
    for language, text in blocks(page, "bash", "python"):
        command = arguments(language, text_of(text))
        if "farm.attach" in text:
            following = subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.PIPE, text=True)
            continue
        done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{text}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"
        if following is not None:
            assert "images labelled; 0 missed" in following.communicate(timeout=60)[0]
            following = None
    assert following is None
    assert [made for made in MADE.get(page.stem, ()) if not any((folder / made).iterdir())] == []


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_configs_are_configs(page):
    for _, text in blocks(page, "yaml"):
        from_mapping(yaml.safe_load(text))


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_blocks_are_of_a_kind(page):
    kinds = {language for language, _ in BLOCK.findall(page.read_text(encoding="utf-8"))}
    assert kinds <= {"bash", "python", "yaml", *SHOWN_ONLY}
    fences = re.findall(r"^```", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) == 2 * len(BLOCK.findall(page.read_text(encoding="utf-8")))
