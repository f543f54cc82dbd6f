"""The place that the images lie in stumbles, for a while or for good: no image pays for it, and the run can go on."""

import errno
import os
import signal
import threading
import time
from dataclasses import replace

import pytest

import farm
from farm import Farm
from farm.api import Hooks
from farm.config.sections import SourceConfig
from farm.core.outages import RetryPolicy
from farm.errors import SourceLostError
from farm.sources import open_source
from farm.verify import verify
from tests.faults import stumbling
from tests.support.harness import POISON, config, pictures, rows, start, wait_for

pytestmark = pytest.mark.timeout(120)
RETRY_POLICY = RetryPolicy(give_up_s=60.0, first_pause_s=0.05, longest_pause_s=0.4)
COUNT = 300


@pytest.fixture
def mount(tmp_path):
    """The folder of images as a mount. `fails(what)` from now on; `fails(None)` no more."""
    yield Mount(pictures(tmp_path / "images", COUNT), tmp_path / "flag", tmp_path)
    stumbling.restore()


class Mount:
    def __init__(self, folder, flag, tmp_path):
        self.folder, self.flag, self._tmp_path = folder, flag, tmp_path
        self.damage([])
        self.hang([])

    def damage(self, names):
        (self._tmp_path / "bad").write_text(" ".join(names))

    def hang(self, names):
        (self._tmp_path / "stuck").write_text(" ".join(names))

    def fails(self, what):
        if what is None:
            self.flag.unlink(missing_ok=True)
        else:
            temporary = self.flag.with_suffix(".new")
            temporary.write_text(str(what))
            temporary.rename(self.flag)

    def values(self, run_dir, **sections):
        values = config(self.folder, run_dir, **{"limits": {"attempts": 3}, **sections})
        files = {"folder": str(self.folder), "flag": str(self.flag)}
        files |= {name: str(self._tmp_path / name) for name in ("bad", "stuck")}
        args = {**files, "boxes": 2, "pixels": True, "sleep_ms": 5}
        return values | {"model": {"factory": "tests.faults.stumbling:make", "args": args}}

    def run(self, retry_policy=RETRY_POLICY, observe=lambda snapshot, running: None, run_dir=None, **options):
        source = open_source(SourceConfig(path=str(self.folder)))
        source.retry_policy = retry_policy
        running = []
        hooks = Hooks(running.append, lambda snapshot: observe(snapshot, running[0]))
        return farm.run(self.values(run_dir or self._tmp_path / "run", **options), hooks=hooks, source=source)

    def stumble(self, what, seconds, after=40):
        """Let the mount fail once, after some images. What is returned keeps in `notes` what the view said."""

        def observe(snapshot, running):
            observe.notes.append(snapshot.note)
            if snapshot.done >= after and not observe.began_s:
                observe.began_s = time.monotonic()
                self.fails(what)
            elif observe.began_s and time.monotonic() > observe.began_s + seconds:
                self.fails(None)

        observe.began_s, observe.notes = 0.0, []
        return observe


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ESTALE, "process"), (errno.EIO, "thread"), (errno.EACCES, "process"), (errno.EMFILE, "process")],
)
def test_a_mount_that_stumbles_for_a_while_costs_no_image(mount, tmp_path, number, kind):
    observe = mount.stumble(number, 1)
    summary = mount.run(observe=observe, workers={"kind": kind})
    assert observe.began_s
    assert (summary.ok, summary.failed, summary.restarts, summary.exit_code) == (COUNT, 0, 0, 0)
    assert not verify(tmp_path / "run").problems
    name = errno.errorcode[number]
    assert any(f"({name}); waiting, " in note for note in observe.notes)


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_a_mount_that_stays_away_ends_the_run_and_the_same_command_continues(mount, tmp_path, kind):
    with pytest.raises(SourceLostError) as ended:
        mount.run(replace(RETRY_POLICY, give_up_s=1.0), mount.stumble(errno.ENOTCONN, 100), workers={"kind": kind})
    assert ended.value.exit_code == 1
    name = f"ENOTCONN ({os.strerror(errno.ENOTCONN)})"
    assert f"reading {mount.folder} fails with {name} for" in str(ended.value)
    assert str(ended.value).endswith("mend it and run the same command to continue")
    labelled = rows(tmp_path / "run")
    assert 0 < len(labelled) < COUNT
    assert {status for _, status, _ in labelled} == {"ok"}
    mount.fails(None)
    summary = mount.run(workers={"kind": kind})
    assert (summary.ok, summary.failed, summary.skipped) == (COUNT, 0, len(labelled))
    assert len(rows(tmp_path / "run")) == COUNT


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_a_file_on_a_bad_sector_fails_alone(mount, kind):
    mount.damage(["00013.png"])
    summary = mount.run(workers={"kind": kind})
    assert (summary.ok, summary.failed, summary.exit_code) == (COUNT - 1, 1, 3)
    (failure,) = summary.failures
    assert (failure.stage, failure.example) == ("read", "00013.png")
    assert failure.message == f"EIO ({os.strerror(errno.EIO)})"


def test_many_files_on_a_bad_disk_fail_and_the_run_ends(mount, tmp_path):
    """More in a row than make a trouble, at the beginning and at the end; the second session has nothing but these."""
    bad = [f"{number:05d}.png" for number in (*range(20), *range(COUNT - 20, COUNT))]

    def interrupt(snapshot, running):
        if snapshot.ok >= COUNT - 60:
            running.interrupt(signal.SIGINT)

    mount.damage(bad)
    mount.run(observe=interrupt)
    summary = mount.run()
    assert (summary.ok, summary.failed, summary.exit_code) == (COUNT - 40, 40, 3)
    assert {status for path, status, _ in rows(tmp_path / "run") if path in bad} == {"failed"}


def test_what_cannot_be_read_comes_first_and_the_run_ends_nevertheless(mount):
    """Far more than probes in their order would get past before patience ends."""
    mount.damage([f"{number:05d}.png" for number in range(200)])
    summary = mount.run(replace(RETRY_POLICY, give_up_s=6.0, first_pause_s=0.2), limits={"attempts": 1})
    assert (summary.ok, summary.failed, summary.exit_code) == (COUNT - 200, 200, 3)


def test_bad_files_are_all_that_is_left(mount, tmp_path):
    """Nothing is read in this session; that others could be is known from the last one."""
    bad = [f"{number:05d}.png" for number in range(12)]
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for name in bad:
        (mount.folder / name).rename(hidden / name)
    try:
        assert mount.run().ok == COUNT - 12
    finally:
        for name in bad:
            (hidden / name).rename(mount.folder / name)
    mount.damage(bad)
    summary = mount.run()
    assert (summary.ok, summary.failed, summary.skipped) == (COUNT - 12, 12, COUNT - 12)


def test_a_disk_that_is_unmounted_and_mounted_again(mount, tmp_path):
    """Everything is gone at once, and the root is another folder: not one image has vanished."""
    away = mount.folder.with_name("away")

    def observe(snapshot, running):
        if snapshot.done >= 40 and not observe.began_s:
            observe.began_s = time.monotonic()
            mount.folder.rename(away)
            mount.folder.mkdir()
        elif away.exists() and time.monotonic() > observe.began_s + 1:
            mount.folder.rmdir()
            away.rename(mount.folder)

    observe.began_s = 0.0
    summary = mount.run(observe=observe)
    assert observe.began_s and not away.exists()
    assert (summary.ok, summary.failed) == (COUNT, 0)


def test_a_mount_that_hangs_costs_workers_and_no_image(mount):
    """They are killed at their deadline, again and again; images that they never came back from are tried again."""
    observe = mount.stumble("hang", 4)
    limits = {"attempts": 1, "item_timeout_s": 0.8, "max_restarts": 2}
    summary = mount.run(observe=observe, limits=limits, workers={"count": 2})
    assert observe.began_s and summary.restarts == 0
    assert (summary.ok, summary.failed) == (COUNT, 0)


def test_images_that_hang_in_preparing_are_no_lost_mount(tmp_path):
    """More than make a trouble, and nothing else to read between them: each fails, and the run goes on to its end."""
    folder = pictures(tmp_path / "images", 40, poisoned=tuple(range(10)))
    limits = {"attempts": 2, "item_timeout_s": 1}
    values = config(folder, tmp_path / "run", limits=limits, workers={"count": 4})
    source = open_source(SourceConfig(path=str(folder)))
    source.retry_policy = replace(RETRY_POLICY, give_up_s=2.0)
    model = {"factory": "tests.faults.hanging:make", "args": {"hang_on": POISON}}
    summary = farm.run(values | {"model": model}, source=source)
    assert (summary.ok, summary.failed, summary.exit_code) == (30, 10, 3)
    assert {(failure.type, failure.stage) for failure in summary.failures} == {("Timeout", "decode")}


def test_an_image_that_is_never_read_says_so(mount, tmp_path):
    """One that hangs alone, with others read in between, is charged; the row says that it was being read."""
    mount.hang(["00007.png"])
    summary = mount.run(limits={"attempts": 1, "item_timeout_s": 1})
    assert (summary.ok, summary.failed) == (COUNT - 1, 1)
    (failure,) = summary.failures
    assert (failure.type, failure.stage, failure.example) == ("Timeout", "read", "00007.png")


def test_ctrl_c_while_it_waits_ends_at_once_and_can_be_continued(mount, tmp_path):
    process = start(mount.values(tmp_path / "run", commit={"images": 4}), tmp_path)
    try:
        assert wait_for(lambda: list((tmp_path / "run" / "parts").glob("0*")), 60)
        mount.fails(errno.ESTALE)
        time.sleep(2)
        began = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, out + err
    assert time.monotonic() - began < 20
    assert "To continue:\n" in out
    mount.fails(None)
    summary = mount.run()
    assert (summary.ok, summary.failed) == (COUNT, 0)


def test_images_of_a_program_wait_and_fail_only_when_it_lasts(mount, monkeypatch):
    """A Farm has no run to continue: what it was given fails, and it goes on with what can be read."""
    monkeypatch.setattr("farm.library.feed.Feed.retry_policy", replace(RETRY_POLICY, give_up_s=1.5, ends_run=False))
    model = mount.values("unused")["model"]
    paths = sorted(map(str, mount.folder.iterdir()))
    with Farm(model=model, workers={"count": 2, "devices": "cpu"}) as one:
        assert all(result.status == "ok" for result in one.map(paths[:50]))
        mount.fails(errno.ESTALE)
        threading.Timer(0.7, lambda: mount.fails(None)).start()
        assert all(result.status == "ok" for result in one.map(paths[50:100]))
        mount.fails(errno.ESTALE)
        failed = list(one.map(paths[100:120]))
        assert {result.error["message"] for result in failed} == {f"ESTALE ({os.strerror(errno.ESTALE)})"}
        assert len(failed) == 20
        mount.fails(None)
        assert all(result.status == "ok" for result in one.map(paths[100:150]))
