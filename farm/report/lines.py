"""Lines that fit a width without breaking what is copied from them: words, paths, `key=value`, tables. Pure.

prose_lines()    a sentence
command_lines()  a command, which can be pasted as it stands
table_lines()    a table: all columns at once where they fit, else a block a row; no head and no cell is cut
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Collection, Iterator, Sequence

INDENT = "  "
GAP = "  "  # between columns
NARROWEST = 12  # of a column that gives way: less is no use to a reader


def prose_lines(text: str, width: int, indent: str = INDENT) -> list[str]:
    """The text broken at its spaces. A word that is longer than the width stays whole."""
    found = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False, subsequent_indent=indent)
    return found.wrap(text) or [""]


def command_lines(command: str, width: int | None) -> list[str]:
    """The command, indented, in lines of `width` that end in a backslash; None: in one line."""
    try:
        words = [shlex.quote(word) for word in shlex.split(command)]
    except ValueError:  # no command of a shell
        words = command.split(" ")
    lines = [INDENT + words[0]] if words else [""]
    for word in words[1:]:
        if width is None or len(f"{lines[-1]} {word} \\") <= width:
            lines[-1] += f" {word}"
        else:
            lines[-1] += " \\"
            lines.append(f"{INDENT}{INDENT}{word}")
    return lines


def table_lines(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
    right: Collection[str] = (),
    gives_way: Sequence[str] = (),
) -> list[str]:
    """A head and a line a row, none longer than `width`. Cells of `gives_way`, the first before the next, are broken
    over several lines where need be; where that is not enough each row is a block of `title  cell` lines.

    `right`: titles of columns of numbers.
    """
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for title in gives_way:
        at = titles.index(title)
        excess = sum(widths) + len(GAP) * (len(titles) - 1) - width
        if excess > 0:
            widths[at] = max(min(widths[at], NARROWEST), len(title), widths[at] - excess)
    if sum(widths) + len(GAP) * (len(titles) - 1) > width:
        return list(_blocks(titles, rows, width))
    lines = []
    for row in (titles, *rows):
        cells = [_broken(cell, size) for cell, size in zip(row, widths, strict=True)]
        for n in range(max(map(len, cells))):
            shown = [cell[n] if n < len(cell) else "" for cell in cells]
            placed = zip(titles, shown, widths, strict=True)
            lines.append(GAP.join(c.rjust(w) if t in right else c.ljust(w) for t, c, w in placed).rstrip())
    return lines


def _blocks(titles: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    indent = max(map(len, titles)) + len(GAP)
    for number, row in enumerate(rows):
        if number:
            yield ""
        for title, cell in zip(titles, row, strict=True):
            first, *rest = _broken(cell, max(NARROWEST, width - indent))
            yield f"{title:<{indent}}{first}".rstrip()
            yield from (f"{'':<{indent}}{line}" for line in rest)


def _broken(cell: str, width: int) -> list[str]:
    """The cell in lines, broken at spaces and commas, or within a word that is too long: nothing is cut off."""
    if len(cell) <= width:
        return [cell]
    return textwrap.wrap(re.sub(r",(?=\S)", ", ", cell), width, break_on_hyphens=False)
