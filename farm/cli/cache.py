"""`farm cache`: what farm keeps on this machine between runs, and how to be rid of it."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from farm.models.cache_eviction import EntryInfo

KINDS = ("backends", "mapped", "weights")  # as in farm.models.cache_eviction, which `farm --help` does not import
TITLES = ("kind", "entry", "made of", "size", "last used")
ORDER = "by kind, the last used first"
DAY_S = 86400.0


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="list | clear", required=True)
    kept = actions.add_parser("list", help="what is kept, made of what, how large, and when it was used last")
    kept.set_defaults(prints=True)
    clear = actions.add_parser("clear", help="remove what nobody uses at this moment")
    clear.add_argument("kinds", nargs="*", metavar="KIND", help="backends, mapped, weights (default: backends, mapped)")
    clear.add_argument(
        "--older-than", type=float, default=0.0, metavar="DAYS", help="only what was not used for so long"
    )
    parser.epilog = (
        "backends: converted models and how they agree; mapped: weights as workers share them; weights: downloads, "
        "which are cleared only by name. What has not been used for 30 days goes by itself, and the longest unused "
        "where backends and mapped take more than 10 GiB."
    )


def execute(args: argparse.Namespace) -> int:
    from farm.errors import EXIT_DONE
    from farm.models import cache

    root = cache.root()
    if root is None:
        print("nothing is kept: this user has no home folder")
    elif args.action == "list":
        _list(root)
    else:
        _clear(root, _checked(args.kinds), args.older_than)
    return EXIT_DONE


def _checked(kinds: Sequence[str]) -> Sequence[str]:
    """The kinds to clear. Raises ConfigError for an unknown one."""
    from farm.errors import ConfigError
    from farm.models.cache_eviction import MADE

    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"farm cache knows no kind {kind}; there are {', '.join(KINDS)}")
    return list(dict.fromkeys(kinds)) or MADE


def _list(root: Path) -> None:
    from farm.models.cache_eviction import found

    kept = found(root)
    for line in table(kept, time.time(), shutil.get_terminal_size().columns):
        print(line)
    order = f"; {ORDER}" if len(kept) > 1 else ""
    print(f"{len(kept)} in {root}, {in_bytes(sum(entry.size for entry in kept))}{order}")


def _clear(root: Path, kinds: Sequence[str], days: float) -> None:
    from farm.models.cache_eviction import found, remove

    wanted = [entry for entry in found(root, kinds) if time.time() - entry.used_s >= days * DAY_S]
    removed: list[EntryInfo] = []
    left: list[EntryInfo] = []
    for entry in wanted:
        try:
            (removed if remove(entry) else left).append(entry)
        except OSError as error:
            print(f"{entry.path} cannot be removed: {error.strerror}")
    for entry in removed:
        print(f"removed {_in_words(entry)}, {in_bytes(entry.size)}")
    for entry in left:
        print(f"in use, left alone: {_in_words(entry)}")
    print(f"{len(removed)} removed, {in_bytes(sum(entry.size for entry in removed))}")


def table(kept: Sequence[EntryInfo], now_s: float, columns: int) -> Iterator[str]:
    """A line for each, under a head, none longer than `columns`. Pure."""
    from farm.report.lines import table_lines

    if not kept:
        return
    rows = []
    for entry in kept:
        used = "in use" if entry.in_use else _ago(now_s - entry.used_s)
        rows.append([entry.kind, _name(entry), _made_of(entry), in_bytes(entry.size), used])
    yield from table_lines(TITLES, rows, columns, right=["size"], gives_way=["made of", "entry"])


def _name(entry: EntryInfo) -> str:
    """The one name that `list` and `clear` have for it: of what farm makes, the digest of what it was made from."""
    return entry.path.name if entry.kind == "weights" else entry.path.name.rpartition("-")[2]


def _made_of(entry: EntryInfo) -> str:
    return " ".join(str(entry.about[key]) for key in ("weights", "made") if key in entry.about) or "by an earlier farm"


def _in_words(entry: EntryInfo) -> str:
    made = "" if entry.kind == "weights" else f" ({_made_of(entry)})"
    return f"{entry.kind} {_name(entry)}{made}"


def _ago(seconds: float) -> str:
    days = int(seconds / DAY_S)
    return "today" if days < 1 else "a day ago" if days == 1 else f"{days} d ago"


def in_bytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB" if count < 2**30 else f"{count / 2**30:,.1f} GiB"
