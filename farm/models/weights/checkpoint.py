"""What a PyTorch checkpoint says of itself, read on the supervisor's side: without torch, and without running anything.

A .pt is a zip archive whose `data.pkl` describes its objects, or, as torch wrote it before 1.6, a row of pickles. What
they would make is put together by inert_pickle.py.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from farm.models.weights.inert_pickle import BROKEN, Inert, PickleMachine

PICKLE_BYTES = 64 << 20  # more is not looked at; the largest of Ultralytics' own describe themselves in 1 MiB
ZIP_BEGINS = b"PK\x03\x04"
MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")  # torch.serialization.MAGIC_NUMBER, the first of the pickles
MAGIC_WITHIN = 32  # bytes of the file
PICKLES_BEFORE = 3  # the object: that number, the version of the format, the sizes of the machine's types
LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip's entry: signature, lengths of name and of extra field
DESCRIPTION, CONSTANTS = "data.pkl", "constants.pkl"  # in the archive; the second in TorchScript's alone


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`root`: what torch.load would return; `names`: every class and function that is needed for it."""

    root: Any
    names: frozenset[str]
    is_script: bool = False

    @property
    def model(self) -> Any:
        """What Ultralytics takes for the model, an Inert if it is one."""
        if isinstance(self.root, dict):
            return self.root.get("ema") or self.root.get("model")
        children = (self.root.modules or {}) if isinstance(self.root, Inert) else {}
        return children.get("model")

    @property
    def classes(self) -> Any:
        """What the model calls what it finds, by number; None where it does not say."""
        state = self.model.state if isinstance(self.model, Inert) else None
        return state.get("names") if isinstance(state, dict) else None


def read(path: str | Path) -> Checkpoint | None:
    """What the file says; None where that cannot be told: it is no checkpoint, or one of an unusual kind."""
    try:
        with open(path, "rb") as file:
            begins = file.read(len(ZIP_BEGINS))
            file.seek(0)
            if begins == ZIP_BEGINS:
                return _read_archive(file)
            return _read_pickles(io.BytesIO(file.read(PICKLE_BYTES)))
    except (OSError, MemoryError, zipfile.BadZipFile, NotImplementedError, *BROKEN):
        return None


def _read_archive(file: BinaryIO) -> Checkpoint | None:
    entries = zipfile.ZipFile(file).infolist()
    if any(entry.filename.rpartition("/")[2] == CONSTANTS for entry in entries):
        return Checkpoint(None, frozenset(), is_script=True)
    described = [entry for entry in entries if entry.filename.rpartition("/")[2] == DESCRIPTION]
    if len(described) != 1 or described[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return None
    (entry,) = described
    file.seek(entry.header_offset)  # not by zipfile, which insists on checksums that torch may leave out
    _, name, extra = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
    file.seek(name + extra, io.SEEK_CUR)
    if entry.file_size > PICKLE_BYTES:
        return None
    content = file.read(min(entry.compress_size, PICKLE_BYTES))
    if entry.compress_type == zipfile.ZIP_DEFLATED:  # as other programs pack an archive anew, and torch reads it
        content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, PICKLE_BYTES)
    machine = PickleMachine()
    return Checkpoint(machine.run(io.BytesIO(content)), frozenset(machine.names))


def _read_pickles(data: io.BytesIO) -> Checkpoint | None:
    if MAGIC not in data.getvalue()[:MAGIC_WITHIN]:
        return None
    machine = PickleMachine()
    for _ in range(PICKLES_BEFORE):
        machine.run(data)
    machine.names.clear()
    return Checkpoint(machine.run(data), frozenset(machine.names))
