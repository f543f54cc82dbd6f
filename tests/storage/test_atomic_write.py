"""Files that appear whole or not at all."""

import os

from farm.storage import folders


def test_what_is_being_written_is_not_swept(tmp_path, monkeypatch):
    """By an export, which needs no lock."""
    replace = os.replace

    def sweep_first(temporary, path):
        folders.sweep_temporaries(tmp_path)
        replace(temporary, path)

    monkeypatch.setattr(os, "replace", sweep_first)
    folders.write_whole(tmp_path / "data.yaml", b"whole")
    assert os.listdir(tmp_path) == ["data.yaml"]
