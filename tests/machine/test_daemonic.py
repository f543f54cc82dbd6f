"""Farms in daemonic processes, which multiprocessing allows no children: a plain one, and a DataLoader's worker."""

import multiprocessing
import os
import subprocess
import sys

import pytest

from tests.support.harness import ROOT, group_members, wait_for

pytestmark = pytest.mark.timeout(120)

HEAD = """
import multiprocessing, sys
import farm
FAKE = {"factory": "farm.models.fake:make"}
def label(paths):
    with farm.Farm(model=FAKE, workers=1) as labelling:
        for result in labelling.map(paths):
            yield result.path
"""
PLAIN = """
def work():
    print(*label(["a.jpg", "b.jpg"]), flush=True)
    values = {"source": sys.argv[1], "model": FAKE, "output": {"dir": sys.argv[2], "exports": []},
              "workers": {"count": 1, "devices": "cpu"}}
    print(farm.run(values).ok, flush=True)
if __name__ == "__main__":
    child = multiprocessing.get_context("fork").Process(target=work, daemon=True)
    child.start()
    child.join()
    print(child.exitcode)
"""
LOADER = """
from torch.utils.data import DataLoader, IterableDataset
class Labelled(IterableDataset):
    def __iter__(self):
        yield from label(["a.jpg", "b.jpg"])
if __name__ == "__main__":
    print(*DataLoader(Labelled(), batch_size=None, num_workers=1, multiprocessing_context="fork"))
"""
LEFT_OPEN = """
def work():
    global left
    left = farm.Farm(model=FAKE, workers=1)
    print(left.submit("a.jpg").result().path, flush=True)
if __name__ == "__main__":
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(30)
    print(child.exitcode)
    child.kill()
"""


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        pytest.param(PLAIN, ["a.jpg b.jpg", "2", "0"], id="a daemonic process"),
        pytest.param(LOADER, ["a.jpg b.jpg"], id="a worker of a DataLoader"),
        pytest.param(LEFT_OPEN, ["a.jpg", "0"], id="a child that closes no farm"),
    ],
)
def test_a_child_of_multiprocessing_has_a_farm_and_ends(tmp_path, text, lines):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (source / name).write_bytes(b"not looked into")
    script = tmp_path / "script.py"
    script.write_text(HEAD + text)
    process = subprocess.Popen(
        [sys.executable, str(script), str(source), str(tmp_path / "run")], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
    )  # fmt: skip
    out, err = process.communicate(timeout=100)
    assert out.splitlines() == lines, err
    assert wait_for(lambda: not group_members(process.pid), 30)


def test_what_a_process_knows_of_itself_is_as_before(monkeypatch):
    """Also in a process of billiard's, whose key is of a type of its own."""
    from farm.machine.daemonic import children_allowed

    class Key(bytes):
        pass

    config = multiprocessing.current_process()._config
    monkeypatch.setitem(config, "daemon", True)
    monkeypatch.setitem(config, "authkey", Key(b"secret"))
    with children_allowed():
        assert not multiprocessing.current_process().daemon
        assert type(config["authkey"]) is multiprocessing.process.AuthenticationString
    assert config["daemon"] is True and type(config["authkey"]) is Key
    monkeypatch.delitem(config, "daemon")
    with children_allowed():
        pass
    assert "daemon" not in config
