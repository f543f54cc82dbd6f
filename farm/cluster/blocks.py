"""Blocks: the items of a Ray run on their way from the lister to the tasks, as files in the run directory.

    driver     Blocks: put, given_up, stop, close
    read task  follow: every block as it comes, the same ones in the same order however often it is run
    actors     take_index, is_stopped, give_up; their parts are written here before they are renamed into parts/

Where the run directory is remote, the blocks themselves lie on the driver's disk, where the read task runs too, and
only what actors see and write is in the run directory.

A block is what one task labels. It becomes one part of the same number. Its items are fixed when its file is written.
So a task may be run again, by another actor, even while the first still lives: the part it writes has the same name
and the same rows. Ten million paths are on this disk, and never in a process.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from farm import errors
from farm.core.items import Item
from farm.core.schema import KEY_BYTES
from farm.errors import FarmError
from farm.machine.filenames import from_bytes, to_bytes
from farm.storage import folders
from farm.storage.scratch import Scratch

SUFFIX = ".arrow"
END, STOP = "end", "stop"
GIVEN_UP = "given-up-"  # and the index of the actor's worker
POLL_S = 0.02  # between looks for the next block: an actor waits no longer for it, and a disk answers as often
FIRST_ITEMS = 16  # in the first blocks; what a block takes then decides
SCHEMA = pa.schema([("key", pa.binary(KEY_BYTES)), ("path", pa.binary())])


class Blocks:
    """The driver's side of the folder. Owns it: `close` removes it with all that is in it."""

    def __init__(self, shared: Path) -> None:
        """`shared`: the folder that actors see. `folder` is where the blocks are."""
        self._shared = shared
        self._scratch = Scratch("blocks") if folders.is_remote(shared) else None
        self.folder = self._scratch.path if self._scratch else shared
        self.count = 0
        folders.make_folder(shared)

    def put(self, items: Sequence[Item]) -> int:
        """The next block, there as a whole or not at all. Returns its number, counted from 1."""
        self.count += 1
        temporary = self.folder / f".{self.count}"
        temporary.write_bytes(pack(items))
        temporary.rename(self.folder / _name(self.count))
        return self.count

    def skip(self) -> int:
        """A number that no task gets, for a part that the driver writes itself. Only after `end`."""
        self.count += 1
        return self.count

    def given_up(self) -> dict[int, tuple[str, FarmError]]:
        """Actors whose worker cannot start, by its index: their host, and why."""
        found = {}
        for name in folders.names_in(self._shared):
            if name.startswith(GIVEN_UP):
                said = json.loads(folders.read(self._shared / name))
                kind = getattr(errors, said["type"])
                found[int(name.removeprefix(GIVEN_UP))] = said["host"], kind(said["message"])
        return found

    def end(self) -> None:
        """No block comes any more."""
        (self.folder / END).touch()

    def stop(self) -> None:
        """Actors leave blocks alone that they have not begun."""
        (self.folder / STOP).touch()
        self.end()
        if folders.is_remote(self._shared):
            with contextlib.suppress(OSError):  # then they label what they have in hand
                folders.write_whole(self._shared / STOP, b"stop")

    def close(self) -> None:
        if self._scratch:
            self._scratch.close()
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            if folders.is_remote(self._shared):
                folders.remove(self._shared)
            else:
                self._shared.parent.rmdir()  # of all sessions; the next run removes what others left in it


@dataclass(frozen=True, slots=True)
class OpenBlocks:
    """Which blocks are still to be labelled: from number `first` on, without those in `done`."""

    first: int = 1
    done: frozenset[int] = frozenset()


def follow(folder: Path, open_blocks: OpenBlocks) -> Iterator[tuple[int, bytes]]:
    """Number and packed items of every block to do, until the last; waits for those that are not there yet."""
    for number in itertools.count(open_blocks.first):
        while number not in open_blocks.done:
            if is_stopped(folder):
                return
            ended = (folder / END).exists()  # asked first: what was put before it is there
            try:
                yield number, (folder / _name(number)).read_bytes()
                break
            except FileNotFoundError:
                if ended:
                    return
                time.sleep(POLL_S)


def is_stopped(folder: Path) -> bool:
    """Whether the run is stopped. `folder`: of the blocks, or the one that actors see."""
    return folders.is_there(folder / STOP) or not (folders.is_remote(folder) or folder.exists())


def take_index(folder: Path) -> int:
    """The lowest index that no other actor of the run has. From now on it is the caller's."""
    for index in itertools.count():
        with contextlib.suppress(FileExistsError):
            folders.create(folder / f"worker-{index}")
            return index
    raise AssertionError("itertools.count does not end")


def is_ended(folder: Path) -> bool:
    """Every block is there that will be, as far as can be seen from here: not where the run directory is remote."""
    return is_stopped(folder) or (not folders.is_remote(folder) and (folder / END).exists())


def give_up(folder: Path, index: int, host: str, error: FarmError) -> Path:
    """An actor says that its worker cannot start. Returns the file, which is there as long as the run goes on."""
    path = folder / f"{GIVEN_UP}{index}"
    said = {"host": host, "type": type(error).__name__, "message": str(error)}
    folders.write_whole(path, json.dumps(said).encode())
    return path


def pack(items: Sequence[Item]) -> bytes:
    """Keys and paths as an Arrow stream; paths in bytes, since not every name is UTF-8."""
    columns = [pa.array([item.key for item in items], SCHEMA.field("key").type)]
    columns.append(pa.array([to_bytes(item.path) for item in items], pa.binary()))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_batch(pa.record_batch(columns, schema=SCHEMA))
    return sink.getvalue().to_pybytes()


def unpack(data: bytes) -> list[tuple[bytes, str]]:
    """(key, path) of `pack`."""
    with pa.ipc.open_stream(data) as reader:
        batch = reader.read_next_batch()
    return list(zip(batch["key"].to_pylist(), map(from_bytes, batch["path"].to_pylist()), strict=True))


def block_items(before: int, took_s: float, target_s: float, limit: int) -> int:
    """Size of the next blocks, given that one of `before` items took so long and should take about `target_s`."""
    size = before * 2 if took_s < target_s / 2 else before // 2 if took_s > target_s * 2 else before
    return max(1, min(limit, size))


def _name(number: int) -> str:
    return f"{number:06d}{SUFFIX}"
