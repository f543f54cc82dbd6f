"""An export of a run that has been exported before: nothing, a little or everything, and always what all would be."""

import errno
import os
import re
import shutil
from pathlib import Path

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings

from farm import exports
from farm.core.schema import STATUS_FAILED, STATUS_OK, part_metadata, path_columns
from farm.errors import OutputError
from farm.exports import record, update
from farm.exports.base import ExportRequest
from farm.exports.writing import Writing
from farm.storage import filesystem
from farm.storage.part_writer import PartWriter
from farm.storage.run_store import RunStore

from .conftest import BOX, BOX_LINE, NAMES, make_rows

MADE = ("labels", "images.txt", "data.yaml", ".links", "images")
OUTSIDE = {**BOX, "x2": 300.0}
ELSEWHERE = {**BOX, "class_id": 0}
FOUND = {"nothing": [], "a box": [BOX], "another box": [ELSEWHERE], "outside": [OUTSIDE, BOX]}


class Run:
    """A run directory whose sessions are made up."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.sessions = 0
        self.folder.mkdir()
        (self.folder / "parts").mkdir()

    def commit(self, *paths):
        """One session: images with a box each; or, with a mapping, what was found in each, or its status."""
        found = paths[0] if isinstance(paths[0], dict) else {path: [BOX] for path in paths}
        rows = make_rows(list(found))
        told = {
            "status": [what if isinstance(what, str) else STATUS_OK for what in found.values()],
            "boxes": [None if isinstance(what, str) else what for what in found.values()],
        }
        columns = [pa.array(told[f.name], f.type) if f.name in told else rows[f.name] for f in rows.schema]
        self.sessions += 1
        writer = PartWriter(self.folder / "parts", self.sessions)
        writer.commit([pa.record_batch(columns, schema=rows.schema)], part_metadata("detect", NAMES, "digest"))

    def export(self, anew=False, folder=None, **options):
        store = RunStore.view(self.folder)
        folder = Path(folder or self.folder)
        folder.mkdir(exist_ok=True)
        options = {"save_conf": False, "names": NAMES, **options}
        request = ExportRequest(folder, "/source", "detect", parts=store.stamps(), anew=anew, **options)
        return exports.load("yolo")(request, store.history.batches)

    def labels(self):
        return {str(p.relative_to(self.folder / "labels")): p for p in (self.folder / "labels").rglob("*.txt")}


def seen(folder):
    """What lies there: text of files, targets of links; no times."""
    found = {}
    for name in MADE:
        for path in [folder / name, *(folder / name).rglob("*")]:
            if path.is_symlink():
                found[str(path.relative_to(folder))] = os.readlink(path)
            elif path.is_file():
                found[str(path.relative_to(folder))] = path.read_text(errors="surrogateescape")
    return found


def assert_as_all(run, report, **options):
    """Labels, lists, counts and warnings are those of a new export of everything."""
    other = run.folder.with_name("all")
    shutil.rmtree(other, ignore_errors=True)
    everything = run.export(anew=True, folder=other, **options)
    assert seen(run.folder) == seen(other)
    assert (report.files, report.images) == (everything.files, everything.images)
    warnings = [words for words in report.warnings if ".edited-" not in words]  # of what somebody did to the old ones
    assert list(map(without_example, warnings)) == list(map(without_example, everything.warnings))


def without_example(warning):
    """Which image is named does not matter."""
    return re.sub(r" \(labels/.*?\)", "", warning)


def stamps(run):
    """Everything that was written, with its times and inodes."""
    paths = [p for name in (*MADE, ".yolo-export") for p in [run.folder / name, *(run.folder / name).rglob("*")]]
    return {p: (p.lstat().st_ino, p.lstat().st_mtime_ns) for p in paths if os.path.lexists(p) and not p.is_dir()}


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


@pytest.fixture
def always_little(monkeypatch):
    """However much is new."""
    monkeypatch.setattr(update, "LITTLE", 0)


def test_nothing_new_writes_nothing(run):
    run.commit("a/x.jpg", "y.jpg", "y.png", "images/z.jpg")
    first, before = run.export(), stamps(run)
    again = run.export()
    assert stamps(run) == before
    assert again == first, "the same warnings too"


def test_by_hand_everything_is_written(run):
    run.commit("x.jpg")
    run.export()
    before = stamps(run)
    run.export(anew=True)
    assert not set(stamps(run).values()) & set(before.values())


def test_a_little_new_writes_a_little(run):
    for number in range(8):
        run.commit(*(f"{number}/{image:02d}.jpg" for image in range(20)))
    run.export()
    before = stamps(run)
    run.commit(
        {"0/00.jpg": [ELSEWHERE], "0/01.jpg": STATUS_FAILED, "0/02.jpg": [], "0/03.jpg": "gone", "new/x.jpg": [BOX]}
    )
    report = run.export()
    kept = {
        p
        for p, stamp in stamps(run).items()
        if before.get(p) == stamp and p.suffix == ".txt" and p.name != "images.txt"
    }
    assert len(kept) == 8 * 20 - 4
    assert (report.files, report.images) == (8 * 20 - 3 + 1, 8 * 20 - 2 + 1)
    assert_as_all(run, report)
    assert run.export() == report


@pytest.mark.parametrize(
    "meddle",
    [
        lambda run: run.labels()["a/x.txt"].unlink(),
        lambda run: shutil.rmtree(run.folder / "labels" / "a"),
        lambda run: run.labels()["a/x.txt"].write_text(BOX_LINE.replace("1", "2", 1)),
        lambda run: (run.folder / "labels" / "classes.txt").touch(),
        lambda run: (run.folder / "labels" / "link.txt").symlink_to("y.txt"),
        lambda run: (run.folder / "labels").rename(run.folder / "elsewhere"),
        lambda run: (run.folder / "images.txt").unlink(),
        lambda run: (run.folder / "images.txt").write_text("./images/y.jpg\n"),
        lambda run: (run.folder / "data.yaml").write_text("# Labels made by farm.\nnames: [mine]\n"),
        lambda run: (run.folder / "images").unlink(),
        lambda run: next((run.folder / ".links" / "labels").iterdir()).unlink(),
        lambda run: (run.folder / ".yolo-export").write_text("{}"),
        lambda run: (run.folder / ".yolo-export").write_text('{"parts": 7'),
        lambda run: (run.folder / ".yolo-export").unlink(),
        lambda run: next((run.folder / "parts").iterdir()).unlink(),
    ],
)
@pytest.mark.parametrize("new", [False, True])
def test_what_somebody_changed_is_written_again(run, meddle, new, always_little):
    run.commit("b.jpg")
    run.commit("a/x.jpg", "y.jpg", "images/z.jpg")
    run.export()
    meddle(run)
    if new:
        run.commit("new.jpg")
    assert_as_all(run, run.export())


def test_labels_that_somebody_has_corrected_are_kept_beside_the_new_ones(run):
    """Labels are what the parts give; but a day of corrections is not thrown away for it."""
    run.commit("a/x.jpg", "y.jpg")
    first = run.export()
    mine = BOX_LINE.replace("1", "2", 1)
    run.labels()["a/x.txt"].write_text(mine)
    (run.folder / "labels" / "README.md").write_text("corrected on Tuesday")
    for number in (1, 2):
        report = run.export()
        kept = run.folder / f"labels.edited-{number}"
        assert report.warnings[-1].count(str(kept)) == 1
        assert (kept / "a/x.txt").read_text() == mine
        assert run.labels()["a/x.txt"].read_text() != mine and not (run.folder / "labels" / "README.md").exists()
        assert run.export() == first, "said once"
        run.labels()["a/x.txt"].write_text(mine)
    assert (run.folder / "labels.edited-1" / "README.md").read_text() == "corrected on Tuesday"


def test_labels_that_an_update_began_to_change_were_edited_by_nobody(run):
    """It finds that it cannot go on (a.txt is a folder) when it has written the label of the image before."""
    for number in range(8):
        run.commit(*(f"{number}/{image:02d}.jpg" for image in range(20)))
    run.commit("a.txt/x.jpg")
    run.export()
    run.commit("0/new.jpg", "a.jpg")
    report = run.export()
    assert not any("edited" in words for words in report.warnings)
    assert not (run.folder / "labels.edited-1").exists()
    assert_as_all(run, report)


def test_labels_of_an_export_that_failed_at_its_end_were_edited_by_nobody(run, monkeypatch):
    run.commit("a.jpg", "b.jpg")
    run.export()
    run.commit("c.jpg", "d.jpg")

    def full(writing, listed):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as no_room:
        no_room.setattr(Writing, "publish_list", full)
        with pytest.raises(OutputError, match="No space left"):
            run.export()
    assert_as_all(run, run.export())
    assert not (run.folder / "labels.edited-1").exists()


@pytest.mark.parametrize("options", [{"save_conf": True}, {"names": {0: "renamed", 1: "dog", 2: "two words"}}])
def test_another_export_than_before_writes_everything(run, options, always_little):
    run.commit("x.jpg")
    run.export()
    run.commit("y.jpg")
    assert_as_all(run, run.export(**options), **options)


def test_a_link_images_that_became_a_folder_changes_the_list(run):
    run.commit("x.jpg")
    run.export()
    (run.folder / "images").unlink()
    (run.folder / "images").mkdir()
    run.export()
    assert (run.folder / "images.txt").read_text() == "./.links/images/00000/x.jpg\n"


def test_caches_of_ultralytics_are_no_change(run):
    run.commit("a/x.jpg", "images/z.jpg")
    run.export()
    before = stamps(run)
    for place in ("labels/a.cache", "labels.cache", ".links/labels/00000.cache"):
        (run.folder / place).touch()
    run.export()
    assert {p: s for p, s in stamps(run).items() if p.suffix != ".cache"} == before


def test_a_moved_run_is_still_whole(run, tmp_path):
    run.commit("a/x.jpg")
    run.export()
    before = list(stamps(run).values())
    run.folder = run.folder.rename(tmp_path / "moved")
    run.export()
    assert list(stamps(run).values()) == before


PATHS = (
    "a/x.jpg",
    "a/x.png",
    "./a/x.jpg",
    "b/y.jpg",
    "images/z.jpg",
    "images/z.png",
    "y.jpg",
    "y.txt/x.jpg",
    "p.gif",
    "n" * 252 + ".jpg",
)
WHAT = st.sampled_from([*FOUND, STATUS_FAILED, "gone"])
SESSIONS = st.lists(st.dictionaries(st.sampled_from(PATHS), WHAT, min_size=1, max_size=4), min_size=1, max_size=5)


@example(sessions=[{"y.txt/x.jpg": "a box"}, {"y.jpg": "nothing"}], skipped=set())  # a folder where a label might be
@given(sessions=SESSIONS, skipped=st.sets(st.integers(1, 4)))
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_session_after_session_it_is_what_all_would_be(sessions, skipped, always_little, tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("some") / "run")
    for number, session in enumerate(sessions):
        run.commit({path: FOUND.get(what, what) for path, what in session.items()})
        if number not in skipped:
            assert_as_all(run, run.export())
    assert_as_all(run, run.export())


def test_a_record_does_not_make_labels_farms(run):
    run.commit("x.jpg")
    run.export()
    shutil.rmtree(run.folder / "labels")
    (run.folder / "data.yaml").unlink()
    (run.folder / "labels").mkdir()
    (run.folder / "labels" / "truth.txt").touch()
    with pytest.raises(OutputError, match=r"labels and images\.txt that farm did not write"):
        run.export()
    assert os.listdir(run.folder / "labels") == ["truth.txt"]


def test_classifications_are_updated_too(tmp_path, always_little):
    """They have neither a list nor a data.yaml."""
    run = Run(tmp_path / "run")

    def commit(session, **found):
        rows = make_rows([f"{name}.jpg" for name in found], "classify", boxes=[], probs=list(found.values()))
        PartWriter(run.folder / "parts", session).commit([rows], part_metadata("classify", NAMES, "digest"))
        store = RunStore.view(run.folder)
        request = ExportRequest(run.folder, "/source", "classify", NAMES, False, parts=store.stamps(), anew=False)
        return exports.load("yolo")(request, store.history.batches)

    commit(1, x=[0.125, 0.5, 0.25], y=[1.0, 0.0, 0.0])
    before = run.labels()["y.txt"].stat()
    report = commit(2, x=[0.5, 0.25, 0.125], z=[0.0, 1.0, 0.0])
    assert (report.files, report.images) == (3, 3)
    assert run.labels()["x.txt"].read_text().splitlines()[0] == "0.50 cat"
    assert run.labels()["y.txt"].stat() == before
    run.labels()["y.txt"].unlink()
    assert commit(3, w=[1.0, 0.0, 0.0]).files == 4
    assert sorted(os.listdir(run.folder)) == [".yolo-export", "labels", "labels.edited-1", "parts"]


def test_another_farm_writes_everything(run, monkeypatch):
    """Also where none is installed, as in a checkout."""
    run.commit("x.jpg")
    run.export()
    before = stamps(run)
    monkeypatch.setattr(record, "VERSION", "another")
    run.export()
    assert not set(stamps(run).values()) & set(before.values())


@pytest.mark.parametrize("number", sorted(filesystem.NO_REPLACE))
def test_where_no_file_takes_the_name_of_another_all_is_written(run, always_little, monkeypatch, number):
    run.commit("a/x.jpg", "y.jpg")
    run.export()
    run.commit({"a/x.jpg": [ELSEWHERE]})
    replace = os.replace

    def lacking(old, new):
        if os.path.lexists(new):
            raise OSError(number, os.strerror(number))
        replace(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lacking)
        report = run.export()
    assert_as_all(run, report)


class Dead(BaseException):
    """As SIGKILL: nothing that is done with files happens any more."""


CALLS = ("replace", "rename", "unlink", "rmdir", "symlink", "fsync", "mkdir")


def dying(monkeypatch, after):
    """Die before the call of that number."""
    left = [after]

    def wrap(call):
        def limited(*args, **more):
            if left[0] <= 0:
                raise Dead
            left[0] -= 1
            return call(*args, **more)

        return limited

    for name in CALLS:
        monkeypatch.setattr(os, name, wrap(getattr(os, name)))
    return left


def test_a_death_at_any_instant(run, always_little, tmp_path):
    """Listed images have their labels, old or new, and the next export puts everything right."""
    run.commit("a/x.jpg", "b.jpg", "c/gone.jpg", "images/z.jpg")
    run.export()
    old = seen(run.folder)
    run.commit({"a/x.jpg": [ELSEWHERE], "c/gone.jpg": "gone", "images/z.jpg": STATUS_FAILED, "d/new.jpg": [BOX]})
    deaths, died = 0, True
    while died:
        trial = Run(tmp_path / f"trial {deaths}")
        shutil.copytree(run.folder, trial.folder, symlinks=True, dirs_exist_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            dying(patch, deaths)
            try:
                trial.export()
                died = False
            except Dead:
                deaths += 1
        now = seen(trial.folder)
        lines = {"./images/a/x.jpg": "labels/a/x.txt", "./images/b.jpg": "labels/b.txt", "./images/c/gone.jpg": "labels/c/gone.txt",
                 "./.links/images/00000/z.jpg": "labels/images/z.txt", "./images/d/new.jpg": "labels/d/new.txt"}  # fmt: skip
        for line in now["images.txt"].split():
            texts = {old.get(lines[line]), "0" + BOX_LINE[1:] if "a/x" in line else BOX_LINE}
            assert now.get(lines[line]) in texts, line
        assert_as_all(trial, trial.export())
        shutil.rmtree(tmp_path / "all")
    assert deaths > 10
    assert record.read(run.folder) is not None


def test_the_record_vouches_for_nothing_while_labels_change(run, always_little, monkeypatch):
    run.commit("x.jpg")
    run.export()
    run.commit("y.jpg")
    monkeypatch.setattr(update.LabelChanges, "write", lambda *_: (_ for _ in ()).throw(Dead))
    with pytest.raises(Dead):
        run.export()
    assert record.read(run.folder) is None
    assert (run.folder / ".yolo-export").exists(), "labels/ is still known as farm's"


def test_names_that_are_not_utf8(run, always_little):
    bad = os.fsdecode(b"caf\xe9/\xff.jpg")
    assert path_columns([bad])[1][0].as_py()
    run.commit("x.jpg")
    run.export()
    run.commit(bad)
    assert_as_all(run, run.export())
    run.commit({bad: STATUS_FAILED})
    assert_as_all(run, run.export())
