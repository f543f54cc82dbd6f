"""The label tree: what gets a file, whose file it is, and that nothing but farm's own files is ever replaced."""

import errno
import os
import tracemalloc

import pytest

from farm.errors import OutputError, RunLockedError
from farm.exports import export_lock, label_tree, writing
from farm.exports.base import WARNINGS_SHOWN
from farm.exports.label_tree import LabelTree

from .conftest import BOX, BOX_LINE

LINE = BOX_LINE.encode()


def test_labels_mirror_the_source(rows, export, labels):
    report = export(
        rows(["x.jpg", "a/b/y.jpeg", "a/b.c/z.w.png"]),
        rows(["empty.jpg"], boxes=[]),
        rows(["bad.jpg"], status="failed"),
    )
    assert labels() == {"x.txt": LINE, "a/b/y.txt": LINE, "a/b.c/z.w.txt": LINE}
    assert (report.files, report.images, report.warnings) == (3, 4, ())


def test_a_second_export_replaces_the_first(rows, export, labels, tmp_path):
    export(rows(["x.jpg", "a/y.jpg", "b/z.jpg"]))
    (tmp_path / "run" / "labels.cache").write_text("Ultralytics' cache")
    export(rows(["x.jpg", "new.jpg"]), save_conf=True)
    assert labels() == {"x.txt": LINE[:-1] + b" 0.5\n", "new.txt": LINE[:-1] + b" 0.5\n"}
    assert sorted(os.listdir(tmp_path / "run")) == ["data.yaml", "images", "images.txt", "labels"]


def test_what_a_dead_export_left_is_removed(rows, export, labels, tmp_path):
    export(rows(["x.jpg"]))
    run = tmp_path / "run"
    for name in ("labels.tmp-1/x", "labels.old-1/y", ".links.tmp-1/z", "labels.old-try/mine"):
        (run / name).mkdir(parents=True)
    (run / ".images.txt.tmp").write_text("half a li")
    export(rows(["y.jpg"]))
    assert sorted(os.listdir(run)) == ["data.yaml", "images", "images.txt", "labels", "labels.old-try"]
    assert list(labels()) == ["y.txt"]


def test_a_tree_that_was_moved_away_by_a_crash_comes_back(rows, export, labels, tmp_path, monkeypatch):
    export(rows(["x.jpg"]))
    (tmp_path / "run" / "labels").rename(tmp_path / "run" / "labels.old-1")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LabelTree, "write", full)
    with pytest.raises(OutputError, match=r"No space left on device.*farm export"):
        export(rows(["y.jpg"]))
    assert list(labels()) == ["x.txt"]


def test_a_full_disk_leaves_the_old_labels(rows, export, labels, monkeypatch):
    export(rows(["x.jpg"]))
    write = os.write
    space = [100]

    def short(descriptor, data):
        if not space[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = min(space[0], len(data))
        space[0] -= taken
        return write(descriptor, bytes(data)[:taken])

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(OutputError, match="No space left on device"):
        export(rows([f"{n}.jpg" for n in range(50)]))
    monkeypatch.undo()
    assert labels() == {"x.txt": LINE}


def test_labels_that_farm_did_not_write_are_left_alone(rows, export, tmp_path):
    truth = tmp_path / "run" / "labels" / "x.txt"
    truth.parent.mkdir(parents=True)
    truth.write_text("0 0.5 0.5 1 1\n")
    (tmp_path / "run" / "data.yaml").write_text("names: [mine]\n")
    with pytest.raises(OutputError, match=r"labels and data.yaml that farm did not write"):
        export(rows(["x.jpg"]))
    assert truth.read_text() == "0 0.5 0.5 1 1\n"
    assert (tmp_path / "run" / "data.yaml").read_text() == "names: [mine]\n"


def test_a_crash_before_the_list_is_no_reason_to_refuse(rows, export, labels, tmp_path):
    export(rows(["x.jpg"]))
    (tmp_path / "run" / "images.txt").unlink()
    export(rows(["y.jpg"]))
    assert list(labels()) == ["y.txt"]


def test_one_export_at_a_time(rows, export, tmp_path):
    export(rows(["x.jpg"]))
    with export_lock.hold(tmp_path / "run"), pytest.raises(RunLockedError, match="another process"):
        export(rows(["x.jpg"]))


@pytest.mark.parametrize("kind", ["link", "dangling", "file"])
def test_labels_may_have_become_something_else(rows, export, labels, tmp_path, kind):
    export(rows(["x.jpg"]))
    folder, elsewhere = tmp_path / "run" / "labels", tmp_path / "elsewhere"
    folder.rename(elsewhere)
    if kind == "file":
        folder.write_text("")
    else:
        folder.symlink_to(elsewhere if kind == "link" else "nowhere")
    for name in ("y.jpg", "z.jpg"):
        export(rows([name]))
    assert list(labels()) == ["z.txt"]
    assert not folder.is_symlink()
    assert os.listdir(elsewhere) == ["x.txt"]


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("../../x.jpg", "top/x.txt"),
        ("/etc/../abs/x.jpg", "abs/x.txt"),
        ("/top/mid/source/a/x.jpg", "a/x.txt"),
        ("../source/x.jpg", "x.txt"),
        ("../source2/x.jpg", "top/mid/source2/x.txt"),
        ("./a//b/../x.jpg", "a/x.txt"),
        ("../../../../../../x.jpg", "x.txt"),
        ("a\nb.jpg", "a\nb.txt"),
        (".jpg", ".jpg.txt"),
        ("no extension", "no extension.txt"),
    ],
)
def test_labels_stay_inside_their_folder(rows, export, labels, path, label):
    report = export(rows([path]), source="/top/mid/source")
    assert labels() == {label: LINE}
    assert report.warnings == () or "not listed" in report.warnings[0]


def test_a_link_in_the_old_tree_is_not_followed(rows, export, labels, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    export(rows(["a/x.jpg"]))
    (tmp_path / "run" / "labels" / "b").symlink_to(outside)
    export(rows(["a/x.jpg", "b/y.jpg"]))
    assert set(labels()) == {"a/x.txt", "b/y.txt"}
    assert not list(outside.iterdir())


def test_names_that_are_not_utf8_keep_their_bytes(rows, export, tmp_path):
    report = export(rows([os.fsdecode(b"caf\xe9/\xff.jpg"), "é.jpg"]))
    folder = os.fsencode(tmp_path / "run" / "labels")
    assert sorted(os.listdir(folder)) == [b"caf\xe9", "é.txt".encode()]
    assert os.listdir(folder + b"/caf\xe9") == [b"\xff.txt"]
    assert "1 images are labelled but not listed" in report.warnings[0]
    assert (tmp_path / "run" / "images.txt").read_text() == "./images/é.jpg\n"


@pytest.mark.parametrize("name", ["x" * 253 + ".j", "a\0b.jpg", "y.txt/x.jpg"])
def test_a_name_the_file_system_refuses_is_a_warning(rows, export, labels, name, tmp_path):
    report = export(rows(["y.jpg", name, "z.jpg"]))
    assert set(labels()) == {"y.txt", "z.txt"}
    assert report.warnings[0].startswith(f"no label file for {name!r}")
    assert (tmp_path / "run" / "images.txt").read_text() == "./images/y.jpg\n./images/z.jpg\n"


def test_a_name_of_250_bytes_has_its_label(rows, export, labels):
    name = "x" * 250
    assert export(rows([f"{name}.jpg"])).warnings == ()
    assert set(labels()) == {f"{name}.txt"}


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOENT, errno.EINVAL])
def test_a_name_that_only_this_file_system_refuses_is_a_warning(rows, export, labels, monkeypatch, number):
    """SMB and exFAT, of `:`. They say so in several ways, which may also mean that nothing can be written at all."""
    real, refused = os.open, [":"]

    def refuse(path, *args, **kwargs):
        if refused[0] in str(path) and "labels" in str(path):
            raise OSError(number, os.strerror(number), path)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    report = export(rows(["a.jpg", "12:30.jpg", "b.jpg"]))
    assert set(labels()) == {"a.txt", "b.txt"}
    assert report.warnings[0] == f"no label file for '12:30.jpg': {os.strerror(number)}"
    refused[0] = "labels"
    if number != errno.EINVAL:
        with pytest.raises(OutputError, match=os.strerror(number)):
            export(rows(["a.jpg"]))


def test_without_links_there_are_labels_and_no_dataset(rows, export, labels, monkeypatch, tmp_path):
    def refused(*names, **kwargs):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refused)
    for name in ("x.jpg", "y.jpg"):
        report = export(rows([name]))
        assert "no symbolic links" in report.warnings[0]
    assert set(labels()) == {"y.txt"}
    assert not (tmp_path / "run" / "data.yaml").exists()


def test_a_tree_in_a_layer_below_an_overlay_is_replaced(rows, export, labels, monkeypatch):
    """As in a container whose image holds the run directory: folders of the image cannot be renamed."""
    export(rows(["x.jpg"]))
    rename = os.rename

    def refuse(old, new):
        if os.fspath(old).endswith("labels"):
            raise OSError(errno.EXDEV, "Invalid cross-device link", old, None, new)
        rename(old, new)

    monkeypatch.setattr(os, "rename", refuse)
    export(rows(["y.jpg"]))
    assert list(labels()) == ["y.txt"]


def test_where_names_have_no_case_the_smallest_keeps_its_label(rows, export, labels, monkeypatch, tmp_path):
    """As on a disk that takes X for x; `files` is what it would show."""
    real, files = os.open, {}

    def fold(path, flags, *args, **kwargs):
        if ".txt" in str(path) and files.setdefault(str(path).casefold(), path) != path:
            raise OSError(errno.EEXIST, "File exists", path)
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", fold)
    monkeypatch.setattr(LabelTree, "folds_case", lambda self: True, raising=False)
    report = export(rows(["a/x.jpg", "A/X.jpg", "b.jpg"]))
    assert set(labels()) == {"A/X.txt", "b.txt"}
    assert report.warnings == ("'a/x.jpg' would share labels/a/x.txt with 'A/X.jpg', which keeps it",)


@pytest.mark.parametrize("order", [["a/x.png", "a/x.jpg", "a/x.webp"], ["a/x.webp", "a/x.jpg", "a/x.png"]])
def test_of_images_with_one_label_file_the_smallest_keeps_it(rows, export, labels, order, tmp_path):
    classes = {"a/x.jpg": 0, "a/x.png": 1, "a/x.webp": 2}
    batches = [rows([path], boxes=[{**BOX, "class_id": classes[path]}]) for path in order]
    report = export(*batches, rows(["b/x.jpg"]))
    assert labels() == {"a/x.txt": b"0" + LINE[1:], "b/x.txt": LINE}
    assert (report.files, report.images) == (2, 2)
    assert report.warnings == ("'a/x.png', 'a/x.webp' would share labels/a/x.txt with 'a/x.jpg', which keeps it",)
    assert sorted((tmp_path / "run" / "images.txt").read_text().split()) == ["./images/a/x.jpg", "./images/b/x.jpg"]


def test_the_winner_keeps_the_label_even_where_it_shows_nothing(rows, export, labels):
    """A label file of the other would be read as the winner's."""
    export(rows(["x.jpg"], boxes=[]), rows(["x.png"]))
    assert labels() == {}


def test_a_failed_image_contests_nothing(rows, export, labels):
    report = export(rows(["x.jpg"], status="failed"), rows(["x.png"]))
    assert (labels(), report.warnings) == ({"x.txt": LINE}, ())


def test_an_image_listed_twice_keeps_its_label(rows, export, labels):
    export(rows(["x.jpg", "./x.jpg"]), rows(["x.jpg"]))
    assert labels() == {"x.txt": LINE}


def test_warnings_are_few_whatever_happens(rows, export, labels):
    pairs = [f"{n:03d}.{ending}" for n in range(100) for ending in ("jpg", "dng")]
    report = export(rows(pairs))
    assert len(report.warnings) == WARNINGS_SHOWN + 1
    assert report.warnings[0] == "'000.jpg' would share labels/000.txt with '000.dng', which keeps it"
    assert report.warnings[-1] == "and 80 more of these"
    assert len(labels()) == 100


@pytest.mark.parametrize("path", ["{b}/{n:06d}.jpg", "a folder of its own {b} {n:06d}/x.jpg"])
def test_memory_does_not_grow_with_images(rows, export, path, monkeypatch):
    monkeypatch.setattr(label_tree, "FOLDERS_KEPT", 100)
    monkeypatch.setattr(label_tree, "_write", lambda *_: os.stat("."))
    monkeypatch.setattr(os, "makedirs", lambda *_, **__: None)
    peaks = []
    for batches in (4, 16):
        some = [rows([path.format(b=b, n=n) for n in range(1000)]) for b in range(batches)]
        tracemalloc.start()
        export(*some)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 12_000 * 60, "bytes: the hashes, while they are sorted"


def test_large_batches_are_formatted_in_pieces(rows, export, labels, monkeypatch):
    monkeypatch.setattr(writing, "ROWS_AT_ONCE", 3)
    export(rows([f"{n}.jpg" for n in range(10)]))
    assert set(labels().values()) == {LINE}
    assert len(labels()) == 10


def test_a_classification_run_gets_labels_only(rows, export, labels, tmp_path):
    export(rows(["old.jpg"], "classify", probs=[[1.0]], boxes=[]), task="classify")
    report = export(rows(["a/x.jpg"], "classify", probs=[[0.125, 0.5, 0.25]], boxes=[]), task="classify")
    assert labels() == {"a/x.txt": b"0.50 dog\n0.25 two words\n0.12 cat\n"}
    assert sorted(os.listdir(tmp_path / "run")) == [".yolo-export", "labels"]
    assert report.images == 1


@pytest.mark.parametrize("more", [0, 2])
def test_images_that_ultralytics_would_leave_out_are_counted(rows, export, labels, more):
    inside = {"class_id": 1, "confidence": 0.5, "cx": 50, "cy": 50, "w": 20, "h": 10, "angle": 0.3}
    outside = {**inside, "cx": 104}
    images = ["in.jpg", *(f"out{number}.jpg" for number in range(more))]
    obb = [[inside], *([[inside, outside]] * more)]
    report = export(rows(images, "obb", boxes=[], obb=obb), task="obb")
    assert len(labels()) == 1 + more, "labels stay as they are"
    said = f"Ultralytics will call {more} of {1 + more} images corrupt and leave them out (labels/'out0.txt': "
    assert [warning.startswith(said) for warning in report.warnings] == [True] * bool(more)
    clipped = export(rows(images, "obb", boxes=[], obb=obb), task="obb", clip=True)
    assert not clipped.warnings
    assert all(0 <= float(number) <= 1 for text in labels().values() for number in text.split())


def test_images_too_small_for_ultralytics_are_counted_too(rows, export):
    report = export(rows(["x.jpg", "y.jpg", "z.jpg"], width=[100, 9, 100], height=[100, 100, None], boxes=[]))
    assert "call 1 of 3 images corrupt and leave them out (labels/'y.txt': a side" in report.warnings[0]


def test_what_ultralytics_does_not_open_is_not_judged(rows, export):
    outside = [{**BOX, "x2": 400.0}]
    assert export(rows(["x.jpg"], boxes=outside)).warnings
    assert not export(rows(["x.jpg"], boxes=outside), save_conf=True).warnings
