"""What a run may go on with: what is compared, what may be accepted, and what is remembered of it."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import get_args

import pytest

import farm
from farm.api import retry
from farm.config.sections import FarmConfig
from farm.core.continuation import (
    DEVICE,
    RULES,
    SOURCE_ROOT,
    THREADS,
    WEIGHTS_DIGEST,
    Difference,
    differences,
    history_with,
    refused,
)
from farm.engines import fingerprint
from farm.errors import RunMismatchError, SourceError
from farm.sources.moved_source import FoundImages
from farm.storage.run_store import RunStore
from farm.verify import verify
from tests.support.harness import ROOT, config, pictures

BEGUN = {
    SOURCE_ROOT: "/images",
    WEIGHTS_DIGEST: "a" * 64,
    "model.conf": 0.25,
    "model.decode": "exact",
    "model.precision": "fp32",
    "model.backend": "openvino",
    THREADS: 1,
    DEVICE: "cpu",
    "torch version": "2.1",
    "openvino version": "2025.1",
}
VERSIONS, SOURCE = {"versions"}, {"source"}


def names(found):
    return [difference.name for difference in found]


@pytest.mark.parametrize("name", [*BEGUN])
def test_each_entry_is_compared_for_a_reason(name):
    found = differences(BEGUN, {**BEGUN, name: "other"})
    assert found == [Difference(name, BEGUN[name], "other")]
    word = {"torch version": "versions", "openvino version": "versions", SOURCE_ROOT: "source"}.get(name)
    assert found[0].word == word
    assert refused(found, frozenset()) == found
    assert refused(found, frozenset({"versions", "source"})) == ([] if word else found)
    assert differences(BEGUN, BEGUN) == []


def test_words_are_those_of_the_config():
    words = get_args(get_args(FarmConfig.model_fields["accept"].annotation)[0])
    assert set(words) == {rule.word for rule in RULES.values()} - {None}


def test_the_reference_lists_what_is_compared():
    section = (ROOT / "docs" / "reference" / "continuing.md").read_text(encoding="utf-8")
    for rule in RULES.values():
        assert rule.why in section
    assert set(re.findall(r"`accept: \[(\w+)\]`", section)) == {"versions", "source"}


def test_packages_of_a_backend_are_compared_where_it_is_the_same():
    now = {name: value for name, value in BEGUN.items() if name != "openvino version"}
    assert names(differences(BEGUN, {**now, "model.backend": "torch"})) == ["model.backend"]


def test_what_an_older_farm_did_not_write_down():
    """Arguments that it did not have were their defaults; of the rest nothing is known."""
    older = {name: BEGUN[name] for name in (SOURCE_ROOT, WEIGHTS_DIGEST, "model.conf", "model.backend")}
    assert differences(older, BEGUN) == []
    assert names(differences(older, {**BEGUN, "model.decode": "reduced"})) == ["model.decode"]
    assert names(differences({**BEGUN, "model.not_yet": 1}, BEGUN)) == ["model.not_yet"], "of a newer one"


def test_a_version_that_was_accepted_stays_accepted_and_no_other():
    newer = {**BEGUN, "torch version": "2.2"}
    history = history_with([], differences(BEGUN, newer), VERSIONS, "today")
    assert history == [{"date": "today", "what": "torch version", "from": "2.1", "to": "2.2", "by": "accept: versions"}]
    assert refused(differences(BEGUN, newer), frozenset(), history) == []
    assert refused(differences(newer, BEGUN), frozenset(), history) == [], "back to what it was begun with"
    assert names(refused(differences(newer, {**BEGUN, "torch version": "2.3"}), frozenset(), history)) == [
        "torch version"
    ]
    assert history_with(history, differences(newer, BEGUN), frozenset(), "later") == history


def test_the_place_of_the_source_is_asked_for_each_time():
    moved = {**BEGUN, SOURCE_ROOT: "/elsewhere"}
    history = history_with([], differences(BEGUN, moved), frozenset(), "today")
    assert history[0]["by"] == "its images were found again"
    assert names(refused(differences(moved, BEGUN), frozenset(), history)) == [SOURCE_ROOT]


@pytest.mark.parametrize(
    ("found", "same"),
    [
        (FoundImages(64, 64, 0), True),
        (FoundImages(64, 32, 10), True),
        (FoundImages(64, 31, 33), False),
        (FoundImages(64, 0, 64), False),
        (FoundImages(0, 0, 0), True),
        (FoundImages(0, 0, 0, all_of_it=False), False),
    ],
)
def test_a_source_is_the_same_where_most_images_are_as_they_were(found, same):
    assert found.is_the_same == same


# Real runs


@pytest.fixture
def versions(monkeypatch):
    """Versions of packages, as tests set them."""
    said = {}
    version = fingerprint.package_version
    monkeypatch.setattr(fingerprint, "package_version", lambda module: said.get(module) or version(module))
    return said


def run(tmp_path, source="source", **top):
    values = config(tmp_path / source, tmp_path / "run", workers={"count": 1}, output={"exports": ["yolo"]})
    summary = farm.run({**values, **top})
    assert verify(tmp_path / "run").problems == ()
    return summary


def history(tmp_path):
    described = RunStore.view(tmp_path / "run").describe()
    assert "accept" not in described["config"], "it is said each time, or remembered with what it accepted"
    return [(change["what"], change["from"], change["to"], change["by"]) for change in described["history"]]


def test_versions_are_refused_by_name_accepted_by_name_and_stay_accepted(tmp_path, versions):
    source = pictures(tmp_path / "source", 3)
    versions["torch"] = "2.1"
    run(tmp_path)
    versions["torch"] = "2.2"
    with pytest.raises(RunMismatchError, match=r"torch version was '2.1', now '2.2'.*`accept: \[versions\]`"):
        run(tmp_path)
    with pytest.raises(RunMismatchError, match="torch version was"):
        run(tmp_path, accept=["source"])
    pictures(source, 5)
    assert run(tmp_path, accept=["versions"]).ok == 5
    assert history(tmp_path) == [("torch version", "2.1", "2.2", "accept: versions")]
    assert run(tmp_path).ok == 5
    versions["torch"] = "2.1"
    assert run(tmp_path).ok == 5
    versions["torch"] = "2.3"
    with pytest.raises(RunMismatchError, match=r"now '2\.3'"):
        run(tmp_path)


def test_a_source_that_was_renamed_goes_on_and_the_link_follows(tmp_path):
    run(tmp_path, str(pictures(tmp_path / "source", 4)))
    (tmp_path / "source").rename(tmp_path / "renamed")
    shutil.copy(pictures(tmp_path / "more", 1) / "00000.png", tmp_path / "renamed" / "new.png")
    summary = run(tmp_path, "renamed")
    assert (summary.listed, summary.ok, summary.skipped) == (5, 5, 4)
    assert os.readlink(tmp_path / "run" / "images") == str(tmp_path / "renamed")
    described = RunStore.view(tmp_path / "run").describe()
    assert described["source_root"] == described["fingerprint"][SOURCE_ROOT] == str(tmp_path / "renamed")
    before, now = str(tmp_path / "source"), str(tmp_path / "renamed")
    assert history(tmp_path) == [(SOURCE_ROOT, before, now, "its images were found again")]
    (tmp_path / "renamed").rename(tmp_path / "again")
    assert run(tmp_path, "again").skipped == 5, "also where nothing is new"
    assert (tmp_path / "run" / "images" / "00001.png").exists()


def test_the_same_folder_by_another_name_goes_on(tmp_path):
    pictures(tmp_path / "source", 3)
    run(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "source")
    for name in (f"{tmp_path}/source/", str(tmp_path / "link"), f"{tmp_path}/x/../source"):
        (tmp_path / "x").mkdir(exist_ok=True)
        values = {**config(Path(), tmp_path / "run", workers={"count": 1}), "source": name}
        assert farm.run(values).skipped == 3


@pytest.mark.parametrize("kind", ["another", "a copy with new times", "a part of it"])
def test_a_source_that_is_another_is_refused_until_it_is_accepted(tmp_path, kind):
    pictures(tmp_path / "source", 6)
    run(tmp_path)
    if kind == "another":
        pictures(tmp_path / "other", 20)
        for number in range(10):
            (tmp_path / "other" / f"{number:05d}.png").unlink()
        said, counts = "0 of 6 labelled images are as they were", (10, 6)
    elif kind == "a part of it":
        (tmp_path / "other").mkdir()
        for number in range(2):
            shutil.copy2(tmp_path / "source" / f"{number:05d}.png", tmp_path / "other")
        said, counts = "2 of 6 labelled images are as they were", (2, 4)
    else:
        shutil.copytree(tmp_path / "source", tmp_path / "other", copy_function=shutil.copyfile)
        said, counts = "0 of 6 labelled images are as they were, and 6 with another size or time", (6, 0)
    with pytest.raises(RunMismatchError, match=rf"source root was .*{said}.*`accept: \[source\]`"):
        run(tmp_path, "other")
    summary = run(tmp_path, "other", accept=["source"])
    assert (summary.ok, summary.gone) == counts, "each path has one row that counts"
    assert run(tmp_path, "other").skipped == sum(counts)
    assert history(tmp_path)[0][3] == "accept: source"


def test_check_says_what_a_run_would_refuse(tmp_path, versions, capsys):
    from farm.cli import main

    pictures(tmp_path / "source", 2)
    run(tmp_path)
    values = config(tmp_path / "source", tmp_path / "run", workers={"count": 1})
    (tmp_path / "config.yaml").write_text(json.dumps(values))
    assert main(["check", str(tmp_path / "config.yaml")]) == 0
    assert "a run refuses" not in capsys.readouterr().out
    versions["torch"] = "9.9"
    assert main(["check", str(tmp_path / "config.yaml")]) == 2
    assert re.search(r"a run refuses    .*torch version was .*, now '9.9'", capsys.readouterr().out)
    assert main(["check", str(tmp_path / "config.yaml"), "accept=[versions]"]) == 0
    assert "a run refuses" not in capsys.readouterr().out


def test_check_shows_names_as_they_are(tmp_path, capsys):
    from farm.cli import main

    source = pictures(tmp_path / ":smile: [red]", 1)
    values = config(source, tmp_path / ":x: run")
    (tmp_path / "config.yaml").write_text(json.dumps(values))
    assert main(["check", str(tmp_path / "config.yaml")]) == 0
    said = capsys.readouterr().out
    assert f"source root      {source}\n" in said
    assert f"dir: '{tmp_path}/:x: run'" in said


def test_check_says_that_nothing_can_be_written_or_started(tmp_path, capsys, monkeypatch):
    from farm.cli import main

    pictures(tmp_path / "source", 2)
    (tmp_path / "file").write_text("in the way")
    values = config(tmp_path / "source", tmp_path / "file" / "run", workers={"count": 2})
    (tmp_path / "config.yaml").write_text(json.dumps(values))
    monkeypatch.setattr("farm.machine.shortage.processes_left", lambda root: 9)  # of which the lister is one
    assert main(["check", str(tmp_path / "config.yaml")]) == 2
    said = capsys.readouterr().out
    (written,), (started,) = re.findall(r"a run refuses    (.*)", said), re.findall(r"not started      (.*)", said)
    assert written.startswith(f"output.dir {tmp_path}/file/run cannot be written: Not a directory: {tmp_path}/file;")
    assert re.match(r"2 workers need at least \d+ processes and threads, and 8 more may be started", started)
    assert RunStore.refusal("nosuch://bucket/run").startswith("output.dir nosuch://bucket/run cannot be used")
    assert main(["check", str(tmp_path / "config.yaml"), f"output.dir={tmp_path}/run", "workers.count=1"]) == 0
    assert not (tmp_path / "run").exists(), "it looks, and makes nothing"


def test_a_retry_whose_source_has_moved_says_how_to_go_on(tmp_path):
    (pictures(tmp_path / "source", 2) / "00009.png").write_text("no image")
    assert run(tmp_path).failed == 1
    (tmp_path / "source").rename(tmp_path / "renamed")
    with pytest.raises(SourceError, match=r"is not at .*source any more; `farm run`"):
        retry(tmp_path / "run")
    assert run(tmp_path, "renamed").failed == 1
    assert retry(tmp_path / "run").failed == 1
