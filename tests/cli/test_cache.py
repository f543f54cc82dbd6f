"""`farm cache`: what is kept, in 80 columns, and how to be rid of it."""

import os
import time

import pytest

from farm.cli import main
from farm.cli.cache import KINDS, table
from farm.models import cache_eviction
from farm.models.cache import Entry

MADE = "onnxruntime fp32 and reduced decoding"


def shown(entry):
    """The name of an entry as `list` has it."""
    return entry.folder.name.rpartition("-")[2]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    folder = tmp_path / ".cache" / "farm"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "yolo26n-with-a-name-that-is-long.pt").write_bytes(b"x" * 2000)
    return folder


def made(home, kind, label, days=0):
    entry = Entry.of(home / kind, label, label)
    with entry.alone(time.monotonic() + 5), entry.making() as folder:
        (folder / "model").write_bytes(b"x" * 1_500_000)
        entry.publish(folder / "model", {"weights": f"{label}.pt", "made": MADE})
    then = time.time() - days * 86400
    for path in (*entry.folder.iterdir(), entry.folder):
        os.utime(path, (then, then))
    return entry


def test_the_command_knows_the_kinds():
    assert KINDS == cache_eviction.KINDS


def test_list(home, capsys):
    made(home, "backends", "best", 3)
    lease = made(home, "mapped", "yolo11x").lease()
    assert main(["cache", "list"]) == 0
    head, *rows, total = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in (head, *rows))
    assert head.split() == ["kind", "entry", "made", "of", "size", "last", "used"]
    entries = [row for row in rows if not row.startswith(" ")]
    assert [row.split()[0] for row in entries] == ["backends", "mapped", "weights"]
    assert "yolo26n-with-a-name-that-is-long.pt" in entries[2]
    assert "".join(row[47:59].replace(" ", "") for row in rows[:6]).startswith(
        "best.ptonnxruntimefp32andreduceddecoding"
    )
    assert entries[0].endswith("1.4 MiB  3 d ago") and entries[1].endswith("in use") and entries[2].endswith("today")
    assert total == f"3 in {home}, 2.9 MiB; by kind, the last used first"
    lease.release()


def test_clear_leaves_alone_what_is_in_use_and_what_was_downloaded(home, capsys):
    recent, old, used = made(home, "backends", "recent"), made(home, "mapped", "old", 9), made(home, "mapped", "used")
    lease = used.lease()
    assert main(["cache", "clear", "--older-than", "8"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"removed mapped {shown(old)} (old.pt {MADE}), 1.4 MiB",
        "1 removed, 1.4 MiB",
    ]
    assert main(["cache", "clear"]) == 0
    said = capsys.readouterr().out
    assert f"removed backends {shown(recent)} (recent.pt {MADE})" in said
    assert f"in use, left alone: mapped {shown(used)} (used.pt {MADE})" in said
    assert used.content() is not None
    assert main(["cache", "clear", "weights"]) == 0
    assert list((home / "weights").iterdir()) == []
    lease.release()


def test_clear_has_the_names_of_list_in_the_order_of_list(home, capsys):
    for number, (kind, label) in enumerate([("mapped", "b"), ("backends", "a"), ("backends", "c"), ("mapped", "d")]):
        made(home, kind, label, days=number + 1)
    assert main(["cache", "list"]) == 0
    listed = [line.split()[:2] for line in capsys.readouterr().out.splitlines() if line.startswith(KINDS)]
    assert [kind for kind, _ in listed] == ["backends", "backends", "mapped", "mapped", "weights"]
    assert main(["cache", "clear", "mapped", "backends", "weights"]) == 0
    removed = [line.replace(",", "").split()[1:3] for line in capsys.readouterr().out.splitlines()[:-1]]
    assert [name for _, name in removed[:4]] == [name for _, name in listed[:4]]
    assert removed[4][1].startswith(listed[4][1][:10])


def test_an_unknown_kind_is_refused(home, capsys):
    assert main(["cache", "clear", "models"]) == 2
    assert "there are backends, mapped, weights" in capsys.readouterr().err


def test_nothing_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["cache", "list"]) == 0
    assert capsys.readouterr().out == f"0 in {tmp_path}/.cache/farm, 0.0 MiB\n"
    assert main(["cache", "clear"]) == 0
    assert not (tmp_path / ".cache").exists()
    monkeypatch.setattr("farm.models.cache.root", lambda: None)
    assert main(["cache", "list"]) == 0
    assert capsys.readouterr().out.endswith("nothing is kept: this user has no home folder\n")


def test_a_wide_terminal_shows_more():
    entry = cache_eviction.EntryInfo(
        "mapped", Entry.of(cache_eviction.Path("x"), "a", 1).folder, {"weights": "w" * 60}, 1, 0.0, False
    )
    assert "w" * 60 in list(table([entry], 0.0, 200))[1]
