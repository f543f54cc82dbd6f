"""Which row of a path is the newest, against the plain way of finding it."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.core.schema import PATH_COLUMNS, path_columns
from farm.storage import newest_rows

NAMES = [
    "a.jpg",
    "b.jpg",
    "sub/a.jpg",
    "ü.jpg",
    "\udcff.jpg",
    "\udcfe.jpg",
    "�.jpg",
]  # the last is how the two before are shown


def table(paths):
    return pa.table(dict(zip(PATH_COLUMNS, path_columns(paths), strict=True)))


@given(st.lists(st.lists(st.sampled_from(NAMES), max_size=5), max_size=5))
@pytest.mark.parametrize("collide", [False, True])
def test_the_last_row_of_each_path_is_the_newest(collide, sessions):
    tables = {f"{number}": table(paths) for number, paths in enumerate(sessions)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(newest_rows, "read_part", lambda part, columns: tables[part].select(columns))
        patch.setattr(newest_rows.folders, "is_remote", lambda path: False)
        if collide:  # the quick hash alone tells nothing
            patch.setattr("builtins.hash", lambda name: 7)
        hashes = [newest_rows.quick_hashes(part) for part in tables.values()]
        keep = newest_rows.newest_rows(list(tables), hashes).tolist()
    rows = [path for paths in sessions for path in paths]
    assert [path for path, kept in zip(rows, keep, strict=True) if kept] == [
        path for at, path in enumerate(rows) if path not in rows[at + 1 :]
    ]
