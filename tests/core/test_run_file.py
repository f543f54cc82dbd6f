"""run.json that is damaged: one line that says which file, what is wrong and what to do, whoever reads it."""

import json
import re

import pytest

from farm.cli import main
from farm.core.run_file import damaged, parse
from farm.errors import DamagedRunError
from farm.storage.run_store import RunStore
from tests.support.harness import config, pictures

WHOLE = {
    "created": "2026-01-01T00:00:00+0000",
    "names": {"0": "thing"},
    "task": "detect",
    "config": {"output": {"dir": "x"}},
    "fingerprint": {"device": "cpu"},
    "source_root": "/images",
    "history": [],
    "mounts": {"session": 1, "points": {}},
}


def test_what_a_run_has_written_is_read():
    assert parse(json.dumps(WHOLE).encode(), "run.json") == WHOLE
    assert parse(b"{}", "run.json") == {}, "an older farm, or the beginning of a run"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "it is empty"),
        (b"\0" * 100, "it is no JSON"),
        (b'{"names": {', "it is no JSON"),
        (b"\xff\xfe{}", "it is no JSON"),
        (b"[" * 100_000, "it is no JSON"),
        (b"[1, 2]", "it holds [1, 2], not a mapping"),
        (b"null", "it holds null, not a mapping"),
        (b'"text"', 'it holds "text", not a mapping'),
        *[
            (json.dumps({**WHOLE, name: value}).encode(), said)
            for name, value, said in (
                ("names", ["thing"], "'names' is [\"thing\"], not a mapping"),
                ("names", {"zero": "thing"}, '\'names\' has {"zero": "thing"}, not a number and a text'),
                ("names", {"0": None}, "'names' has {\"0\": null}, not a number and a text"),
                ("task", "juggle", "'task' is \"juggle\", not one of detect, "),
                ("task", ["detect"], "'task' is [\"detect\"], not one of"),
                ("config", "output", "'config' is \"output\", not a mapping"),
                ("config", {"output": 1}, "'config' has an 'output' that is 1, not a mapping"),
                ("fingerprint", None, "'fingerprint' is null, not a mapping"),
                ("fingerprint", [["device", "cpu"]], "'fingerprint' is "),
                ("source_root", 7, "'source_root' is 7, not a text"),
                ("mounts", [], "'mounts' is [], not a mapping"),
                ("history", {}, "'history' is {}, not a list"),
                ("history", [1], "'history' is no list of mappings"),
            )
        ],
    ],
)
def test_what_is_wrong_is_said_in_one_line(data, says):
    with pytest.raises(DamagedRunError) as caught:
        parse(data, "/runs/a/run.json")
    said = str(caught.value)
    assert said.startswith(f"/runs/a/run.json is damaged: {says}") and "\n" not in said
    assert said.endswith(str(damaged("", "")).partition(";")[2])


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run directory with work in it, and the arguments of `farm run` into it."""
    import farm

    folder = tmp_path_factory.mktemp("begun")
    source = pictures(folder / "source", 3)
    values = config(source, folder / "run", workers={"count": 1})
    farm.run(values)
    (folder / "config.yaml").write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize("command", ["run", "check", "retry", "export", "verify"])
@pytest.mark.parametrize(
    "content", [b"", b"[1]", b'{"names": 3, "config": "x"}', None], ids=["empty", "list", "types", "unreadable"]
)
def test_every_command_says_so(begun, capsys, command, content):
    file = begun / "run" / "run.json"
    kept = file.read_bytes()
    arguments = {"run": [str(begun / "config.yaml")], "check": [str(begun / "config.yaml")]}
    try:
        if content is None:
            file.unlink()
            file.mkdir()
        else:
            file.write_bytes(content)
        assert main([command, *arguments.get(command, [str(begun / "run")])]) == 1
    finally:
        file.rmdir() if content is None else file.unlink()
        file.write_bytes(kept)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
    assert re.fullmatch(
        r"(farm|broken): .*run\.json (is damaged: .*; put a copy of it back.*|cannot be read: .*)", line
    )


@pytest.mark.parametrize(("missing", "says"), [("config", "it has no 'config'"), ("source_root", "no 'source_root'")])
def test_a_retry_wants_what_the_run_was_made_with(begun, capsys, missing, says):
    file = begun / "run" / "run.json"
    kept = file.read_bytes()
    described = json.loads(kept)
    del described[missing]
    try:
        file.write_text(json.dumps(described))
        assert main(["retry", str(begun / "run")]) == 1
    finally:
        file.write_bytes(kept)
    assert says in capsys.readouterr().err


def test_a_config_that_is_none_names_the_file(begun, capsys):
    file = begun / "run" / "run.json"
    kept = file.read_bytes()
    described = json.loads(kept)
    described["config"]["workers"] = 3
    try:
        file.write_text(json.dumps(described))
        assert main(["retry", str(begun / "run")]) == 2
    finally:
        file.write_bytes(kept)
    assert f"{file}: `workers`" in capsys.readouterr().err


def test_a_run_without_results_needs_no_run_json(tmp_path):
    store = RunStore.open(tmp_path / "run")
    try:
        assert store.describe() == {} and store.fingerprint() == {}
    finally:
        store.close()


def test_a_run_json_that_says_little_is_enough_to_go_on(begun):
    """Images that are gone, and none that is to be labelled: the task is known from the parts."""
    import farm

    file = begun / "run" / "run.json"
    kept = file.read_bytes()
    file.write_text(json.dumps({"fingerprint": json.loads(kept)["fingerprint"]}))
    (begun / "source" / "00002.png").unlink()
    summary = farm.run(json.loads((begun / "config.yaml").read_text()))
    assert (summary.ok, summary.failed, summary.gone) == (2, 0, 1)
    assert json.loads(file.read_bytes())["task"] == "detect"
