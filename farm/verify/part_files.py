"""Files in parts/: each must be a whole part, and all of one model."""

from __future__ import annotations

from pathlib import Path

from farm.errors import PartError, UnreadablePartError
from farm.storage import folders
from farm.storage.parts import PART_NAME, TEMPORARY_PREFIX, TORN_SUFFIX, open_part, read_part
from farm.storage.run_store import RunStore


def problems_of_files(store: RunStore) -> tuple[list[str], list[str]]:
    """Torn and foreign files; parts of other weights or another task."""
    problems: list[str] = []
    notes: list[str] = []
    kinds: dict[tuple[bytes | None, bytes | None], str] = {}
    names = sorted(folders.names_in(store.parts_dir))
    whole = folders.read_ahead((store.parts_dir / name for name in names if PART_NAME.match(name)), _opened)
    for name in names:
        if name.startswith(TEMPORARY_PREFIX):
            notes.append(f"parts/{name!r}: a commit that did not finish; the next run removes it")
        elif name.endswith(TORN_SUFFIX):
            notes.append(f"parts/{name!r}: a torn part that was set aside; its images were labelled again")
        elif not PART_NAME.match(name):
            problems.append(f"parts/{name!r} is foreign: no part has such a name")
        else:
            metadata = next(whole)[1]
            if isinstance(metadata, PartError):
                problems.append(str(metadata))
            else:
                kinds.setdefault((metadata.get(b"farm.task"), metadata.get(b"farm.weights_digest")), name)
    if len(kinds) > 1:
        problems.append(f"parts of different models: {', '.join(sorted(kinds.values()))} begin with another each")
    return problems, notes


def _opened(part: Path) -> dict[bytes, bytes] | PartError:
    """The metadata of a part that is whole. Raises UnreadablePartError: nobody knows whether it is."""
    try:
        file = open_part(part)
        read_part(part, None, file)  # all of it: damage shows by the checksums of its pages
        return file.schema_arrow.metadata or {}
    except UnreadablePartError:
        raise
    except PartError as error:
        return error
