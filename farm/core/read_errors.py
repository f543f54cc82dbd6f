"""Whose error is it that a file cannot be read: its own, its place's, or the machine's? Pure: no I/O, no clock.

    FILE      another attempt cannot help: there is no such file, or nobody may read it
    PLACE     a mount, a server or a disk that does not answer; of a single file it may be a bad sector
    MACHINE   descriptors or memory have run out
    others    nobody knows: the file is tried again, and each attempt counts

DENIED and GONE are a file's errors that a place may have, too: an expired ticket denies everything, and below an
unmounted disk everything is gone. Which it is, `farm.images.place_check` finds out.
"""

from __future__ import annotations

import errno
import os

from farm.machine.filenames import kept


def _numbers(*names: str) -> frozenset[int]:
    """Those that this system has."""
    return frozenset(getattr(errno, name) for name in names if hasattr(errno, name))


GONE = _numbers("ENOENT", "ENOTDIR")
DENIED = _numbers("EACCES", "EPERM")
FILE = GONE | DENIED | _numbers("ELOOP", "ENAMETOOLONG", "EISDIR")
PLACE = _numbers(
    "EIO", "ENXIO", "ENODEV", "ENODATA", "EUCLEAN", "EBADMSG", "EREMOTEIO",  # a disk, or what stands for one
    "ESTALE", "ENOTCONN", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENETRESET",
    "ECONNRESET", "ECONNABORTED", "ECONNREFUSED", "EPIPE", "ESHUTDOWN", "ENOLINK", "ECOMM", "EPROTO",
    "ENOKEY", "EKEYEXPIRED", "EKEYREVOKED", "EKEYREJECTED",  # a ticket
)  # fmt: skip
MACHINE = _numbers("EMFILE", "ENFILE", "ENOMEM", "ENOBUFS", "EAGAIN")
SPECIAL = _numbers("ENXIO", "ENODEV")  # of a socket or a device, too
NO_ANSWER = errno.ETIMEDOUT  # what stands for a read that never returned


def named(number: int) -> str:
    """`ESTALE (Stale file handle)`."""
    return f"{errno.errorcode.get(number, number)} ({os.strerror(number)})"


def looked_in(number: int | None, path: str, root: str, elsewhere: str | None) -> str:
    """What a failed row adds of a file that is not there: where it was looked for, and blanks that do not show.

    The same words for all such files of a run, but for blanks: a summary tells failures apart by them.
    """
    if number not in GONE:
        return ""
    places = [f" below {kept(root)!r}", f"nor below the working directory {kept(elsewhere)!r}" if elsewhere else ""]
    looked = "" if os.path.isabs(path) else ", ".join(filter(None, places))
    name = kept(path)
    blanks = "" if name == name.strip() else f"; white space at its ends is part of the name {name!r}"
    return looked + blanks


def said(error: OSError) -> str:
    """What a failed row says of it: the number's name where a place may be behind it."""
    if error.errno is None or error.errno in FILE:
        return error.strerror or str(error)
    return named(error.errno)
