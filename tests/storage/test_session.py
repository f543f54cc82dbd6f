"""Sessions have numbers of their own, and begin without what a dead commit left."""

from farm.storage.part_writer import PartWriter
from farm.storage.parts import part_number
from farm.storage.run_store import RunStore
from tests.storage.rows import METADATA, rows


def test_sessions_are_numbered_and_parts_sorted_by_number(tmp_path):
    for session in range(1, 4):
        store = RunStore.open(tmp_path / "run")
        assert store.session == session
        writer = PartWriter(store.parts_dir, store.session)
        for n in range(2):
            writer.commit([rows(f"{session}-{n}.jpg")], METADATA)
        store.close()
    names = [part.name for part in RunStore.view(tmp_path / "run").parts()]
    assert names == [f"{s:04d}-{n:06d}.parquet" for s in (1, 2, 3) for n in (1, 2)]
    assert part_number(names[1], 1) == 2
    assert part_number(names[1], 2) == 0


def test_temporary_files_of_a_dead_commit_are_swept(tmp_path):
    store = RunStore.open(tmp_path / "run")
    store.close()
    torn = store.parts_dir / ".0001-000001.parquet.123"
    torn.write_bytes(b"PAR1 half")
    RunStore.open(tmp_path / "run").close()
    assert not torn.exists()
