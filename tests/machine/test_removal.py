"""Removing a file, a folder, a link, and nothing."""

from __future__ import annotations

import shutil

import pytest

from farm.machine.removal import remove


def test_a_file_a_folder_and_nothing(tmp_path):
    folder = tmp_path / "folder"
    (folder / "inside").mkdir(parents=True)
    (folder / "inside" / "file").touch()
    remove(folder)
    assert not folder.exists()
    (tmp_path / "file").touch()
    remove(tmp_path / "file")
    remove(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_a_link_goes_and_not_what_it_leads_to(tmp_path):
    (folder := tmp_path / "folder").mkdir()
    (link := tmp_path / "link").symlink_to(folder)
    remove(link)
    assert folder.is_dir() and not link.is_symlink()


def test_what_cannot_be_removed_of_a_folder_is_left_where_that_is_asked_for(tmp_path, monkeypatch):
    def refuse(path, ignore_errors):
        if not ignore_errors:
            raise PermissionError(path)

    monkeypatch.setattr(shutil, "rmtree", refuse)
    remove(tmp_path, ignore_errors=True)
    with pytest.raises(PermissionError):
        remove(tmp_path)
