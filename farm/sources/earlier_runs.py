"""What earlier runs into this directory committed, against what is there now. Used in the lister's thread.

An image that an earlier run labelled, or gave up on, and that was not listed, or could not be examined, is looked at
once more when the source has come to its end. Only where its file is not there (ENOENT, ENOTDIR) has it vanished, and
gets a row that says `gone`. From any other error, a folder that cannot be listed or a disk that is not mounted as it
was, nothing follows: the row stays as it is, with its label file, the run says so and does not end with 0.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from itertools import islice

from farm.core.key_set import ABSENT, KeySet, item_key, path_keys
from farm.core.marks import RUN_FILE
from farm.core.mounts import Mounts, Move, carried_along, move_of, remembered
from farm.machine.filenames import here, kept
from farm.machine.mount_points import holds_nothing, mounted
from farm.sources.base import Source, is_gone
from farm.storage.run_store import MOUNTS, RunStore

VANISHED_AT_ONCE = 2048  # rows made at a time: what a part has by default
NOTHING_KNOWN = "the folder cannot be listed"


class EarlierRuns:
    """Rows that the sessions before this one have committed: which of their images are still there.

    Call `begin` before the source is listed, `have_rows` and `vanished` meanwhile, `end` afterwards.
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self.has_rows = store.history.has_earlier_rows
        self._paths: KeySet | None = None
        self._before: Mounts = {}
        self._last_whole = store.session
        self._at_begin: Mounts = {}
        self._elsewhere: set[Move] | None = None
        self._lost: set[Move] = set()
        self._left: Counter[str] = Counter()
        self._first_left: dict[str, str] = {}
        self._root = os.sep

    def begin(self, root: str) -> None:
        """Remember what is mounted, before anything is listed, in case this run does not come to its end.

        `root`: of the source. Where it was another, disks below it have moved with it.
        """
        said, self._at_begin = self._store.mounts(), mounted()
        self._root = os.path.realpath(root)
        if isinstance(said.get("points"), dict) and isinstance(said.get("session"), int):
            points = {here(point): here(device) for point, device in said["points"].items()}
            self._before = carried_along(points, here(str(said.get("root") or kept(self._root))), self._root)
            self._last_whole = said["session"]
        self._remember({**self._at_begin, **self._before})

    def have_rows(self, paths: list[str]) -> list[bool]:
        """Which of these paths, whose files are not there, an earlier run has committed.

        The paths in the parts are read only once a path is asked for that is not already known to be gone.
        """
        known = self._store.history.gone.contains([item_key(path, *ABSENT) for path in paths])
        if self._paths is None and not all(known):
            self._paths = self._store.history.path_keys()
        return known if self._paths is None else self._paths.contains(path_keys(paths))

    def vanished(self, known: KeySet, sent: KeySet, source: Source) -> Iterator[list[str]]:
        """Paths whose files are gone, some at a time, of the images that have rows and that nobody has met.

        `known`: keys that the listing was compared with. `sent`: keys of the paths that this run labels anyway.
        """
        unmet = known.never_met()
        paths = self._store.history.unmet_paths(unmet, known)
        while portion := list(islice(paths, VANISHED_AT_ONCE)):
            handled = sent.contains(path_keys(portion))
            missing = [p for p, done in zip(portion, handled, strict=True) if not done and self._is_missing(p, source)]
            now = mounted()  # after the files: a disk may have gone meanwhile
            yield [path for path in missing if not self._is_lost(os.path.join(source.root, path), now, source, unmet)]

    def end(self, source: Source) -> None:
        """`vanished` has gone through all that has rows: remember what is mounted, say what was left as it was."""
        if not source.is_part:
            if not self._lost:
                self._last_whole = self._store.session
            self._remember(remembered(mounted(), self._lost))
        source.left += self._left.total()
        for reason, count in self._left.items():
            source.note(
                f"{count:,} images of earlier runs cannot be looked at, {self._first_left[reason]!r} first ({reason}): "
                f"their rows and labels stay as they are; run again when they can"
            )

    def _is_missing(self, path: str, source: Source) -> bool:
        file = os.path.join(source.root, path)
        if not source.knows_of(file):
            self._leave(NOTHING_KNOWN, path)
            return False
        try:
            os.stat(file)
        except OSError as error:
            if is_gone(error):
                return True
            self._leave(error.strerror or str(error), path)
        except ValueError:  # a NUL: no file has such a name
            return True
        return False

    def _is_lost(self, file: str, now: Mounts, source: Source, unmet: KeySet) -> bool:
        """Is it the disk that is gone, as far as one can tell?"""
        move = move_of(os.path.realpath(file), self._before, now)
        if move.before == move.now:
            if move.now.point == os.sep or not holds_nothing(move.now.point):
                return False
            self._leave(f"{move.now.point} is mounted and holds nothing", file)
            return True
        if self._elsewhere is None:
            self._elsewhere = self._moves(source, unmet)
        if move in self._elsewhere:
            return False
        self._lost.add(move)
        record = f"{MOUNTS!r} from {self._store.path / RUN_FILE}"
        self._leave(f"{move.before.point} is not mounted as it was; where that is meant, remove {record}", file)
        return True

    def _moves(self, source: Source, unmet: KeySet) -> set[Move]:
        """Where the images have moved to that were found again, of those labelled when nothing was lost yet."""
        found: set[Move] = set()
        last: str | None = None
        for path in () if source.is_part else self._store.history.met_paths(unmet, self._last_whole):
            folder = os.path.dirname(path)
            if folder != last:  # rows of a folder follow each other
                found.add(move_of(os.path.realpath(os.path.join(source.root, folder)), self._before, self._at_begin))
                last = folder
        return found

    def _remember(self, mounts: Mounts) -> None:
        """`session`: the last one in which no disk was lost."""
        points = {kept(point): kept(device) for point, device in mounts.items()}
        self._store.remember_mounts({"session": self._last_whole, "root": kept(self._root), "points": points})

    def _leave(self, reason: str, path: str) -> None:
        self._left[reason] += 1
        self._first_left.setdefault(reason, path)
