"""Names are the bytes on disk in every locale: what one locale has written another goes on with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import farm
from farm.config.loading import load
from farm.core.key_set import item_key, path_key
from farm.core.schema import path_columns, path_of
from farm.engines import continuing
from farm.errors import ConfigError
from farm.machine import filenames
from tests.support.harness import ROOT, config, pictures

NAMES = (b"d\xc3\xbcne.png", b"nbsp-\xc3\xa0", b"latin1-\xe9.png", b"plain.png", b"\xe6\x97\xa5.png")
LATIN1 = "en_US.ISO-8859-1"


@pytest.fixture(params=["iso8859-1", "ascii"])
def held_as(request, monkeypatch):
    """This process in another locale, as far as farm looks at it."""
    monkeypatch.setattr(filenames, "HELD_AS", request.param)
    monkeypatch.setattr(filenames, "IS_UTF8", False)
    monkeypatch.setattr("farm.core.schema.IS_UTF8", False)
    return request.param


def test_keys_and_rows_are_made_of_the_bytes(held_as):
    for raw in NAMES:
        here = raw.decode(held_as, "surrogateescape")
        there = os.fsdecode(raw)
        assert path_key(filenames.to_bytes(here)) == path_key(raw)
        framed = item_key(here, 5, 6)
        shown, exact = path_columns([here])
        assert filenames.kept(here) == there and filenames.here(there) == here
        assert path_of(shown[0].as_py(), exact[0].as_py()) == here
        with pytest.MonkeyPatch.context() as utf8:
            utf8.setattr(filenames, "HELD_AS", "utf-8")
            utf8.setattr(filenames, "IS_UTF8", True)
            utf8.setattr("farm.core.schema.IS_UTF8", True)
            assert item_key(there, 5, 6) == framed
            assert [column.to_pylist() for column in path_columns([there])] == [shown.to_pylist(), exact.to_pylist()]
            assert path_of(shown[0].as_py(), exact[0].as_py()) == there


def test_a_name_that_the_locale_has_no_bytes_for_still_has_a_key(held_as):
    assert filenames.to_bytes("日本.png") == "日本.png".encode()


def test_names_in_a_config_only(held_as):
    values = {"source": {"path": b"d\xc3\xbc".decode(held_as, "surrogateescape"), "split": "train"}, "output": None}
    kept = filenames.with_names(values, [("source", "path"), ("output", "dir"), ("model", "weights")], filenames.kept)
    assert kept == {"source": {"path": "dü", "split": "train"}, "output": None}


def test_paths_in_a_config_file_are_its_bytes(held_as, tmp_path):
    (tmp_path / "c.yaml").write_text(
        "source: düne\nmodel: {weights: mödel.pt, prompts: [Tür]}\noutput: öut\n", encoding="utf-8"
    )
    found = load(tmp_path / "c.yaml")
    assert filenames.to_bytes(found.source.path).endswith(b"/d\xc3\xbcne")
    assert filenames.to_bytes(found.output.dir).endswith(b"/\xc3\xb6ut") and found.model.prompts == ["Tür"]


def test_a_source_that_has_not_moved_is_not_looked_for(held_as, monkeypatch):
    """That reads the parts of the run."""
    monkeypatch.setattr(continuing, "look_for_images", lambda store, root: pytest.fail("it is where it was"))
    root = b"/d\xc3\xbc".decode(held_as, "surrogateescape")
    prepared = SimpleNamespace(config=SimpleNamespace(accept=[]), source=SimpleNamespace(root=root))
    assert continuing.allowed_differences(prepared, None, {"source root": "/d\xfc"}) == (frozenset(), "")


def test_names_that_are_no_utf8_may_stand_in_a_config():
    name = os.fsdecode(b"/tmp/latin1-\xe9")
    found = load(None, [f"source={name}", f"model={name}.pt", f"output={name}", f"source.exclude={name}"])
    found = found.model_dump(mode="json")
    assert (found["source"]["path"], found["source"]["exclude"], found["output"]["dir"]) == (name, name, name)
    assert found["model"]["weights"] == f"{name}.pt"
    with pytest.raises(ConfigError, match="empty"):
        load(None, ["source=", "model=x.pt", "output=o"])


def test_a_run_directory_whose_name_is_no_utf8(tmp_path):
    run_dir = Path(os.fsdecode(os.fsencode(tmp_path) + b"/run-\xe9"))
    source = pictures(Path(os.fsdecode(os.fsencode(tmp_path) + b"/images-\xe9")), 2)
    values = config(source, run_dir, workers={"kind": "thread", "count": 1}, output={"exports": ["yolo"]})
    assert farm.run(values).ok == 2 and farm.run(values).skipped == 2
    assert len(os.listdir(run_dir / "labels")) == 2


SESSIONS = """
import json, sys
import farm.api
from farm.machine.filenames import HELD_AS, kept
from farm.storage.run_store import RunStore
source, run_dir = sys.argv[1:]
config = {"source": source, "output": run_dir, "model": {"factory": "farm.models.fake:make", "args": {"boxes": 1, "pixels": True}},
          "workers": {"count": 1, "devices": "cpu", "kind": "thread"}}
summary = farm.run(config)
if summary.failed:
    summary = farm.api.retry(run_dir)
rows = [row for batch in RunStore.view(run_dir).history.batches(["key", "path", "path_bytes", "status"]) for row in batch.to_pylist()]
rows = sorted((row["path"], str(row["path_bytes"]), row["key"].hex(), row["status"]) for row in rows)
print(json.dumps([HELD_AS, summary.listed, summary.skipped, summary.exit_code, rows, list(summary.warnings)]))
"""


def environment(locale: str, folder: Path) -> dict[str, str]:
    """Variables that give a new Python this locale, and no UTF-8 mode."""
    if locale == LATIN1 and shutil.which("localedef"):
        made = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(folder / LATIN1)]
        if not subprocess.run(made, capture_output=True).returncode:
            return {"LOCPATH": str(folder), "LC_ALL": LATIN1}
    if locale == "C.UTF-8":
        return {"LC_ALL": locale}
    return {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # ASCII: every system has that


def session(locale: str, folder: Path, source: bytes) -> list:
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    variables |= {"PYTHONPATH": str(ROOT), **environment(locale, folder)}
    command = [sys.executable, "-c", SESSIONS, source, os.fsencode(folder) + b"/r\xc3\xbcn"]
    done = subprocess.run(command, capture_output=True, env=variables, cwd=folder)
    assert not done.returncode, done.stderr.decode()[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("first", "second"), [(LATIN1, "C.UTF-8"), ("C.UTF-8", LATIN1)])
def test_a_run_goes_on_in_another_locale(tmp_path, first, second):
    """Rows, labels, root and lists are what they would be, and nothing is labelled twice."""
    source = os.fsencode(tmp_path) + b"/s\xc3\xbcd"
    pictures(Path(os.fsdecode(source)), 1)
    (image,) = Path(os.fsdecode(source)).iterdir()
    for raw in NAMES:
        shutil.copy2(image, source + b"/" + raw if raw.endswith(b".png") else source + b"/x" + raw + b".png")
    image.unlink()
    before = session(first, tmp_path, source)
    after = session(second, tmp_path, source)
    assert before[0] != after[0], "two locales"
    assert before[1:4] == [5, 0, 0] and after[1:4] == [5, 5, 0]
    assert before[4] == after[4] and [row[0] for row in after[4] if "d" in row[0]] == ["düne.png"]
    labels = os.listdir(os.fsencode(tmp_path / "rün" / "labels"))
    assert sorted(labels) == sorted(
        raw.removesuffix(b".png") + b".txt" if raw.endswith(b".png") else b"x" + raw + b".txt" for raw in NAMES
    )
    assert os.readlink(os.fsencode(tmp_path / "rün" / "images")) == source
    lines = (tmp_path / "rün" / "images.txt").read_bytes().splitlines()
    assert b"./images/d\xc3\xbcne.png" in lines and "source_root" in (tmp_path / "rün" / "run.json").read_text()
    assert json.loads((tmp_path / "rün" / "run.json").read_text())["source_root"].endswith("/süd")
