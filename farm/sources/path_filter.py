"""What of a source is wanted: not what `source.exclude` names, and not what farm made. In the supervisor's process.

Patterns are those of a .gitignore, relative to the source's root: one without a slash stands for a name in any folder,
one with a slash begins at the root, one that ends with a slash is for folders, `**` is any number of folders. A folder
that is left out is not entered.

What is left out is counted, so that nobody wonders where the `.heic` files went.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from farm.errors import SourceError
from farm.machine.filenames import here
from farm.sources.made_by_farm import made_by_farm

NO_EXTENSION, OTHER = "without extension", "of other kinds"
EXCLUDED, MADE = "excluded", "made by farm"
MAX_KINDS = 50  # extensions told apart: names that end with a number must not fill memory
SHOWN_KINDS = 8


class LeftOut:
    """How many files were seen and not listed, by extension; how many files and folders are excluded, or farm's."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def file(self, name: str) -> None:
        """One that has no image's extension."""
        _, dot, extension = name.rpartition(".")
        kind = f".{extension.lower()}" if dot and extension else NO_EXTENSION
        self._counts[kind if kind in self._counts or len(self._counts) < MAX_KINDS else OTHER] += 1

    def excluded(self) -> None:
        self._counts[EXCLUDED] += 1

    def made(self, folders: int) -> None:
        self._counts[MADE] += folders

    def counts(self) -> dict[str, int]:
        """How many were left out, by kind, the most frequent first."""
        return {kind: count for kind, count in sorted(self._counts.items(), key=lambda one: (-one[1], one[0])) if count}


def in_words(counts: dict[str, int]) -> str:
    """`12 .txt, 3 .csv, 2 folders that farm made`; nothing where nothing was left out."""
    kinds = [(kind, count) for kind, count in counts.items() if kind not in (EXCLUDED, MADE)]
    words = [f"{count:,} {kind}" for kind, count in kinds[:SHOWN_KINDS]]
    if rest := sum(count for _, count in kinds[SHOWN_KINDS:]):
        words.append(f"{rest:,} {OTHER}")
    if excluded := counts.get(EXCLUDED):
        words.append(f"{excluded:,} by source.exclude")
    if made := counts.get(MADE):
        words.append(f"{made:,} {'folder' if made == 1 else 'folders'} that farm made")
    return ", ".join(words)


class PathFilter:
    """Which files and folders are wanted. Paths are relative to the folder that is listed, which lies at `prefix` below
    the source's root (with a slash at its end)."""

    def __init__(self, patterns: Sequence[str] = (), prefix: str = "") -> None:
        """Raises SourceError for what is no pattern."""
        self._patterns = tuple(patterns)
        self._prefix = prefix
        self._unwanted = re.compile("|".join(map(_regex, patterns)), re.DOTALL) if patterns else None

    def below(self, prefix: str) -> PathFilter:
        """The same filter, for a folder below."""
        return PathFilter(self._patterns, self._prefix + prefix) if self._patterns else self

    @property
    def takes_all(self) -> bool:
        """Is every file wanted?"""
        return self._unwanted is None

    def wants(self, path: str) -> bool:
        """A file."""
        return self._unwanted is None or not self._unwanted.fullmatch(self._prefix + path)

    def folders(self, folder: str, prefix: str, names: Sequence[str], left_out: LeftOut | None = None) -> Sequence[str]:
        """Those of the folders in `folder` that are wanted; the others are counted in `left_out`."""
        made = made_by_farm(folder, names)
        if not made and self._unwanted is None:
            return names
        wanted = []
        for name in names:
            if name in made:
                continue
            if self.wants(f"{prefix}{name}/"):
                wanted.append(name)
            elif left_out is not None:
                left_out.excluded()
        if left_out is not None:
            left_out.made(len(made))
        return wanted


def _regex(pattern: str) -> str:
    """A regular expression of paths below the root that the pattern leaves out, and of folders, which end with `/`."""
    parts = [part for part in here(pattern).split("/") if part not in ("", ".")]
    if not parts or pattern.startswith("!") or ".." in parts:
        raise SourceError(
            f"source.exclude: {pattern!r} names nothing to leave out; give patterns such as '*.png', 'thumbs/' or "
            f"'2019/**/*_mask.jpg', relative to the source's root"
        )
    last = parts.pop()
    anchored = "/" in pattern.rstrip("/")
    regex = "" if anchored else "(?:.*/)?"
    regex += "".join("(?:.*/)?" if part == "**" else f"{_part(part, pattern)}/" for part in parts)
    if last == "**":
        return regex + ".*"
    return regex + _part(last, pattern) + ("/.*" if pattern.endswith("/") else "(?:/.*)?")


_PIECES = re.compile(r"\\.|\[!?\]?[^\]]*\]|.", re.DOTALL)  # an escaped sign, a set of signs, any sign


def _part(part: str, pattern: str) -> str:
    """One name of a pattern."""
    regex = "".join(map(_piece, _PIECES.findall(part)))
    try:
        re.compile(regex)
    except re.error as error:
        raise SourceError(f"source.exclude: {pattern!r} is no pattern: {error}") from None
    return regex


def _piece(piece: str) -> str:
    if piece == "*":
        return "[^/]*"
    if piece == "?":
        return "[^/]"
    if piece.startswith("\\") and len(piece) > 1:
        return re.escape(piece[1])
    if piece.startswith("[") and len(piece) > 1:
        signs = piece[1:-1].replace("\\", "\\\\").replace("[", "\\[").replace("&&", "&\\&").replace("||", "|\\|")
        return f"(?!/)[^{signs[1:]}]" if signs.startswith(("!", "^")) else f"[{signs}]"
    return re.escape(piece)
