"""Whose fault is it? Real files on a real disk, with errors that the tests make up."""

import errno
import os

import pytest

from farm.core.read_errors import MACHINE
from farm.images import place_check
from farm.images.place_check import PlaceCheck, identity_of


@pytest.fixture
def files(tmp_path):
    for name in ("known.jpg", "other.jpg"):
        (tmp_path / name).write_bytes(b"x" * 100)
    return str(tmp_path / "known.jpg"), str(tmp_path / "other.jpg")


@pytest.fixture
def known(files, tmp_path):
    good = PlaceCheck(str(tmp_path), identity_of(str(tmp_path)), None)
    good.was_read(files[0], os.stat(files[0]).st_dev)
    return good


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_it_is_the_file_where_another_of_its_disk_can_be_read(known, files, number):
    assert not known.is_place_at_fault(files[1], number)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EACCES])
def test_it_may_be_the_place_where_no_other_can_be_read(files, tmp_path, monkeypatch, known, number):
    assert PlaceCheck(str(tmp_path), None, None).is_place_at_fault(files[1], number), "nothing was read yet"
    assert known.is_place_at_fault(files[0], number), "no other is known than this one"

    def refuse(path):
        raise OSError(number, "so")

    monkeypatch.setattr(place_check, "_read_a_little", refuse)
    assert known.is_place_at_fault(files[1], number)


def test_another_disk_says_nothing(files, tmp_path):
    good = PlaceCheck(str(tmp_path), None, None)
    good.was_read(files[0], os.stat(files[0]).st_dev + 1)
    assert good.is_place_at_fault(files[1], errno.EIO)


def test_an_image_of_an_earlier_run_is_as_good(files, tmp_path):
    assert not PlaceCheck(str(tmp_path), None, files[0]).is_place_at_fault(files[1], errno.EIO)
    assert PlaceCheck(str(tmp_path), None, str(tmp_path / "no.jpg")).is_place_at_fault(files[1], errno.EIO)


def test_a_mode_that_denies_is_the_file_s_own(tmp_path):
    good = PlaceCheck(str(tmp_path), None, None)
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"x")
    secret.chmod(0)
    assert not good.is_place_at_fault(str(secret), errno.EACCES)
    secret.chmod(0o600)
    assert good.is_place_at_fault(str(secret), errno.EACCES), "a server or a policy denies what the mode allows"


def test_a_folder_whose_mode_denies_is_no_lost_place(tmp_path, monkeypatch):
    """Below it nothing can be examined; the first folder that can be is asked. Root may look anywhere, so it is told."""
    image = tmp_path / "closed" / "sub" / "a.jpg"
    image.parent.mkdir(parents=True)
    closed, real = str(tmp_path / "closed"), os.stat

    def denied(path, *args, **options):
        if str(path).startswith(closed + "/"):
            raise PermissionError(errno.EACCES, "so", path)
        return real(path, *args, **options)

    monkeypatch.setattr(os, "stat", denied)
    good = PlaceCheck(str(tmp_path), None, None)
    for mode, to_blame in ((0o444, False), (0o600, False), (0o111, True), (0o755, True)):
        os.chmod(closed, mode)
        assert good.is_place_at_fault(str(image), errno.EACCES) is to_blame, oct(mode)


@pytest.mark.parametrize("number", sorted(MACHINE))
def test_the_machine_is_never_the_file_s_fault(known, files, number):
    assert known.is_place_at_fault(files[1], number)


def test_a_file_that_is_gone_is_gone(known, files, tmp_path):
    assert not known.is_place_at_fault(str(tmp_path / "no.jpg"), errno.ENOENT)
    os.unlink(files[0])
    assert not known.is_place_at_fault(files[0], errno.ENOENT), "a program may remove what was labelled"
    assert not PlaceCheck(str(tmp_path), identity_of(str(tmp_path)), None).is_place_at_fault(files[0], errno.ENOENT)


def test_all_is_gone_where_the_root_is_another(known, files, tmp_path):
    before = identity_of(str(tmp_path))
    tmp_path.rename(tmp_path.with_name("away"))
    tmp_path.mkdir()
    assert identity_of(str(tmp_path)) != before
    assert known.is_place_at_fault(files[1], errno.ENOENT)
    assert PlaceCheck(str(tmp_path), before, None).is_place_at_fault(files[1], errno.ENOENT)
    tmp_path.rmdir()
    assert known.is_place_at_fault(files[1], errno.ENOENT)


def test_all_is_gone_where_the_file_system_has_left_a_folder_below(known, tmp_path):
    """A bare mount point: what was read lay on a file system that its path leads to no more."""
    known.was_read(str(tmp_path / "disk" / "a.jpg"), os.stat(tmp_path).st_dev + 1)
    (tmp_path / "disk").mkdir()
    assert known.is_place_at_fault(str(tmp_path / "disk" / "b.jpg"), errno.ENOENT)
    (tmp_path / "disk" / "a.jpg").write_bytes(b"x")
    assert not known.is_place_at_fault(str(tmp_path / "disk" / "b.jpg"), errno.ENOENT), "mounted again"


def test_a_link_that_is_removed_is_no_disk_that_has_left(tmp_path, monkeypatch):
    """The links lie on one file system and the images on another; a program may remove what was labelled."""
    real, disk = os.stat, str(tmp_path / "disk")

    def stat(path, *args, **options):
        status = real(path, *args, **options)
        if not os.path.realpath(path).startswith(disk):
            return status
        return os.stat_result([*status[:2], status.st_dev + 1, *status[3:]])

    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.jpg").write_bytes(b"x")
    (tmp_path / "a.jpg").symlink_to(tmp_path / "disk" / "a.jpg")
    monkeypatch.setattr(os, "stat", stat)
    good = PlaceCheck(str(tmp_path), None, None)
    good.was_read(str(tmp_path / "a.jpg"), os.stat(tmp_path / "a.jpg").st_dev)
    os.unlink(tmp_path / "a.jpg")
    assert not good.is_place_at_fault(str(tmp_path / "b.jpg"), errno.ENOENT)
    monkeypatch.setattr(os, "stat", real)  # without the disk, what is left of its path is the folder's file system
    (tmp_path / "disk" / "a.jpg").unlink()
    assert good.is_place_at_fault(str(tmp_path / "b.jpg"), errno.ENOENT)


@pytest.mark.parametrize("number", [errno.ELOOP, errno.ENAMETOOLONG, errno.EOVERFLOW])
def test_what_no_place_does_is_the_file_s(tmp_path, number):
    assert not PlaceCheck(str(tmp_path), None, None).is_place_at_fault(str(tmp_path / "a"), number)
