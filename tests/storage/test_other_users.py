"""Two users of one machine: /tmp and /dev/shm are both's, and nothing that one puts there moves the other's files."""

import json
import os
import secrets
import stat
import tempfile
import traceback
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy.ma
import pytest

from farm import Farm, attach
from farm.api import export
from farm.core.schema import failed_batch, to_ipc
from farm.errors import NotRunningError, OutputError
from farm.exports.label_tree import LabelTree
from farm.ipc import shared_memory
from farm.ipc.broadcast import Broadcast
from farm.ipc.broadcast_layout import SUFFIX
from farm.ipc.shared_memory import SHARED_MEMORY, leftovers
from farm.library.spool import Spool
from farm.machine.processes import myself
from farm.storage import folders, scratch
from farm.storage.part_writer import PartWriter
from farm.storage.run_names import prefix_of
from farm.storage.run_store import RunStore
from farm.storage.scratch import OWNER
from tests.storage.rows import METADATA, labelled

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users"),
]

STRANGER, VICTIM = 65_534, 12_345
PRECIOUS = b"years of work"


def as_user(uid, work, gid=None):
    """Run `work` in a process of that user's, to its end; in a group of its own without `gid`."""
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setresgid(*[gid or uid] * 3)
            os.setresuid(uid, uid, uid)
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.fixture
def shared(tmp_path, monkeypatch):  # the tests' own folder first: it lies where temporary files do
    """A place as /tmp is, which everybody may write to and nobody remove another's files from."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o1777)
        monkeypatch.setattr(tempfile, "tempdir", name)
        monkeypatch.setattr("farm.storage.scratch.SHORT_PLACES", (), raising=False)
        yield Path(name)


@pytest.fixture
def precious(tmp_path):
    path = tmp_path / "precious"
    path.write_bytes(PRECIOUS)
    yield path
    assert path.read_bytes() == PRECIOUS


@pytest.fixture
def given():
    """Names that somebody gives in shared memory."""
    names = []
    yield lambda name: names.append(SHARED_MEMORY / name) or names[-1]
    for path in names:
        path.unlink(missing_ok=True) if not path.is_dir() or path.is_symlink() else path.rmdir()


def dead():
    return json.dumps(asdict(replace(myself(), pid=2**22 + 1)))


@pytest.mark.parametrize("name", [".alive", OWNER])
def test_a_file_in_anothers_folder_is_not_written_to(shared, precious, name):
    def trap():
        folder = shared / "farm-library-trap"
        folder.mkdir()
        (folder / name).symlink_to(precious)

    as_user(STRANGER, trap)
    with Farm(model={"factory": "farm.models.fake:make"}, workers=1):
        assert precious.read_bytes() == PRECIOUS


def test_folders_of_others_are_not_removed(shared):
    def leave():
        folder = shared / "farm-tune-left"
        folder.mkdir(0o700)
        (folder / OWNER).write_text(dead())

    as_user(STRANGER, leave)
    scratch.sweep()
    assert (shared / "farm-tune-left").is_dir()
    as_user(STRANGER, scratch.sweep)
    assert not (shared / "farm-tune-left").exists()


def test_a_folder_that_others_may_write_to_is_not_removed(shared, tmp_path):
    folder = shared / "farm-tune-open"
    folder.mkdir()
    (folder / OWNER).write_text(dead())
    os.chmod(folder, 0o777)
    scratch.sweep()
    assert folder.is_dir()


def test_a_link_of_anothers_leads_nowhere(shared, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir(0o700)
    (folder / OWNER).write_text(dead())
    as_user(STRANGER, lambda: (shared / "farm-tune-link").symlink_to(folder))
    scratch.sweep()
    assert folder.is_dir()


@pytest.mark.parametrize("links", ["symlink", "hardlink"])
def test_a_lock_that_is_a_link_is_refused(precious, tmp_path, links):
    """In a run directory that a group shares."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    if links == "symlink":
        (run_dir / ".lock").symlink_to(precious)
    else:
        (run_dir / ".lock").hardlink_to(precious)
    with pytest.raises(OutputError, match="cannot be written"):
        RunStore.open(run_dir)


def test_two_users_of_a_group_continue_each_others_run(tmp_path, shared):
    """In a folder that hands its group on, with a umask that leaves the group its rights: the umask decides."""
    run_dir, group = shared / "team" / "run", 100
    run_dir.parent.mkdir()
    os.chown(run_dir.parent, -1, group)
    os.chmod(run_dir.parent, 0o2775)

    def work(user):
        os.umask(0o002)
        store = RunStore.open(run_dir)
        PartWriter(store.parts_dir, store.session).commit([labelled(f"{user}/a.jpg", stamp=user)], METADATA)
        store.write_json("run.json", {"source_root": "/images", "task": "detect"})
        folders.append(run_dir / "lines", b"line")
        export(store, "yolo")
        tree = LabelTree(run_dir / "other")
        tree.write("a/b.txt", "text")
        tree.swap()
        store.close()

    for user in (STRANGER, VICTIM):
        as_user(user, lambda user=user: work(user), group)
        files = [path for path in run_dir.rglob("*") if not path.is_symlink()]
        assert [path for path in files if not path.stat().st_mode & stat.S_IWGRP] == []
    assert len(RunStore.view(run_dir).parts()) == 2


def test_the_file_that_a_group_may_not_write_is_named(shared):
    run_dir = shared / "run"
    as_user(STRANGER, lambda: RunStore.open(run_dir).close())

    def refused():
        with pytest.raises(OutputError, match=rf"denied: {run_dir} is user .*'s .*umask 002") as refusal:
            RunStore.open(run_dir)
        assert RunStore.refusal(run_dir) == str(refusal.value), "and it can be known without writing"

    as_user(VICTIM, refused)


def test_a_link_into_a_folder_that_may_not_be_searched_is_refused_in_words(shared):
    inner = shared / "secret" / "inner"
    inner.mkdir(parents=True)
    os.chmod(inner.parent, 0o700)
    (shared / "link").symlink_to(inner)

    def refused():
        for name in ("link", "link/run"):
            with pytest.raises(OutputError, match="Permission denied"):
                RunStore.open(shared / name)
            assert "Permission denied" in RunStore.refusal(shared / name)

    as_user(STRANGER, refused)


def test_a_lock_that_may_only_be_read_is_one(shared):
    """As earlier versions made it, whatever the umask."""
    run_dir = shared / "run"
    as_user(STRANGER, lambda: RunStore.open(run_dir).close())
    for path in (run_dir, run_dir / "parts"):
        os.chmod(path, 0o777)
    os.chmod(run_dir / ".lock", 0o644)
    as_user(VICTIM, lambda: RunStore.open(run_dir).close())


def test_a_lock_that_a_backup_has_linked_is_one(tmp_path):
    RunStore.open(tmp_path / "run").close()
    (tmp_path / "backup").hardlink_to(tmp_path / "run" / ".lock")
    RunStore.open(tmp_path / "run").close()


def test_a_file_that_is_written_whole_follows_no_link(precious, tmp_path):
    (tmp_path / f".run.json.{os.getpid()}").symlink_to(precious)
    folders.write_whole(tmp_path / "run.json", b"{}")
    assert (tmp_path / "run.json").read_bytes() == b"{}"


def test_a_line_is_not_appended_to_what_a_link_leads_to(precious, tmp_path):
    (tmp_path / "hand").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic link"):
        folders.append(tmp_path / "hand", b"line\n")


def test_names_in_shared_memory_that_another_has_given_are_left_alone(tmp_path, given):
    prefix = prefix_of(tmp_path)
    path = given(f"{prefix}theirs")
    as_user(STRANGER, path.touch)
    shared_memory.sweep(prefix)
    assert path.exists()


def test_names_in_shared_memory_that_another_has_given_stop_nobody(tmp_path, given):
    os.chmod(tmp_path, 0o777)
    prefix = prefix_of(tmp_path)
    as_user(STRANGER, given(f"{prefix}theirs").touch)
    as_user(VICTIM, lambda: shared_memory.sweep(prefix))


def test_a_folder_of_anothers_in_shared_memory_is_no_spool(shared, given):
    name = f"spool-test-{secrets.token_hex(4)}"
    as_user(STRANGER, given(name).mkdir)
    spool = Spool(name, shared / "fallback", 10**6)
    path = Path(spool.put(np.zeros((4, 4, 3), np.uint8), 1)[1])
    assert path.stat().st_uid == path.parent.stat().st_uid == os.geteuid()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    spool.close()


def test_a_segment_of_anothers_is_not_attached_to(given):
    name = f"farm-test-{secrets.token_hex(4)}"
    path = given(name)
    as_user(STRANGER, lambda: path.write_bytes(bytes(64)))
    with pytest.raises(PermissionError, match="another user"):
        shared_memory.attach(name)


def test_results_of_another_are_not_those_of_a_run(tmp_path, given):
    prefix = prefix_of(tmp_path)
    path = given(f"{prefix}forged{SUFFIX}")
    row = failed_batch("detect", [bytes(16)], ["forged.jpg"], [{"stage": "read", "type": "E", "message": "m"}],
                       attempts=1, worker=0)  # fmt: skip
    real = f"farm-test-{secrets.token_hex(4)}"
    broadcast = Broadcast.create(real)
    try:
        broadcast.publish(to_ipc(row), 1)
        path.write_bytes((SHARED_MEMORY / real).read_bytes())
    finally:
        broadcast.close()
    assert not leftovers(real)
    with attach(tmp_path) as follower:
        assert follower.take() is not None, "as long as it is the user's own"
    os.chown(path, STRANGER, STRANGER)
    with pytest.raises(NotRunningError, match="another user"):
        attach(tmp_path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(NotRunningError):
        attach(tmp_path)
