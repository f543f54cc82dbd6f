"""What a file system may lack, and how farm does without. Used by every process that writes to a disk.

    locks               Lustre without flock, NFS without lockd   signs of life in a file (directory_lock.py)
    fsync               of folders: SMB, some of FUSE             what a power cut takes is labelled again
    rename over a file  some of FUSE                              the old file is moved aside first, and comes back
    links               exFAT, SMB                                labels without a dataset around them
    case                exFAT, SMB, macOS                         of two labels that differ in it one is written
    names               `:` and `?` on exFAT, long ones           a warning that names the image

Where that is safe farm goes on, and the run says once what is missing and what it costs (`lacks`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import shutil
from pathlib import Path

UNSUPPORTED = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOTTY})
NO_LOCKS = UNSUPPORTED | {errno.ENOLCK}
NO_REPLACE = UNSUPPORTED | {errno.EEXIST}
NO_FOLDER_FSYNC = UNSUPPORTED | {errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR}  # or one cannot be opened
NO_LINKS = UNSUPPORTED | {errno.EPERM, errno.EACCES}
NO_RIGHT = (errno.EACCES, errno.EPERM)
ASIDE = ".farm-aside"  # ends the name of a file whose successor is about to take its name


def fsync(descriptor: int) -> bool:
    """Have the file survive a power cut. False where its file system cannot promise that; raises OSError."""
    return _fsync(descriptor, UNSUPPORTED)


def fsync_dir(path: Path) -> bool:
    """Have a rename in the folder survive a power cut. False where its file system cannot promise that."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in NO_FOLDER_FSYNC:
            raise
        return False
    try:
        return _fsync(descriptor, NO_FOLDER_FSYNC)
    finally:
        os.close(descriptor)


def fsync_path(path: Path) -> bool:
    """Make a file or a folder survive a power cut from now on. False where its file system cannot promise that."""
    if path.is_dir():
        return fsync_dir(path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return fsync(descriptor)
    finally:
        os.close(descriptor)


def _fsync(descriptor: int, missing: frozenset[int]) -> bool:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in missing:
            raise
        return False
    return True


def replace(old: Path, new: Path) -> bool:
    """Give `old` the name `new`, which another file may have. False where that took two steps.

    A crash between the two leaves nothing under the name; `put_back` mends that.
    """
    try:
        os.replace(old, new)
    except OSError as error:
        if error.errno not in NO_REPLACE or not os.path.lexists(new):
            raise
    else:
        return True
    aside = new.with_name(f".{new.name}{ASIDE}")
    aside.unlink(missing_ok=True)
    os.rename(new, aside)
    try:
        os.rename(old, new)
    except OSError:
        os.rename(aside, new)
        raise
    aside.unlink()
    return False


def put_back(folder: Path) -> None:
    """Finish or undo what `replace` had begun in the folder when it was killed."""
    for name in os.listdir(folder):
        if name.startswith(".") and name.endswith(ASIDE):
            final = folder / name[1 : -len(ASIDE)]
            if os.path.lexists(final):
                (folder / name).unlink(missing_ok=True)
            else:
                os.rename(folder / name, final)


def has_room(folder: Path, wanted: int) -> bool:
    """Are so many bytes free? Where a file system says nothing of its size, they are."""
    usage = shutil.disk_usage(folder)
    return usage.total == 0 or usage.free >= wanted


def has_links(folder: Path, name: str) -> bool:
    """Can there be symbolic links in the folder? `name` is free there."""
    try:
        os.symlink(os.curdir, folder / name)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return False
    (folder / name).unlink()
    return True


def folds_case(path: Path) -> bool:
    """Does the file system take `A` and `a` for one name? `path` is there, and has letters in its name."""
    try:
        return path.name.swapcase() != path.name and path.with_name(path.name.swapcase()).samefile(path)
    except OSError:
        return False


def lacks(folder: Path, names: tuple[str, str]) -> list[str]:
    """What file systems of run directories have, and this one has not: each with what it costs, in words.

    `names` are free there. Raises OSError where nothing can be written.
    """
    old, new = (folder / name for name in names)
    found = []
    try:
        for path in (old, new):
            with open(path, "xb") as file:
                file.write(b"is there room?")
                file.flush()
                kept = fsync(file.fileno())
        if not (kept and fsync_dir(folder)):
            what = "folders" if kept else "files"
            found.append(
                f"the file system of {folder} cannot flush {what} (fsync): a power cut may take what was committed "
                f"last; the same command labels that again"
            )
        if not replace(old, new):
            found.append(
                f"the file system of {folder} cannot rename over a file: whoever reads run.json in the wrong instant "
                f"finds none"
            )
    finally:
        for path in (old, new):
            path.unlink(missing_ok=True)
    return found


def in_words(error: OSError, place: Path) -> str:
    """Why `place`, or which other file, was refused; whose it is, where that is the reason."""
    reason = error.strerror or str(error)
    named = error.filename if error.filename2 is None else error.filename2
    if not isinstance(named, (str, bytes, os.PathLike)):
        return reason
    path = Path(os.fsdecode(named))
    if error.errno in NO_RIGHT and not os.path.lexists(path):
        path = path.parent  # it could not be made there
    whose = _whose(path) if error.errno in NO_RIGHT else ""
    return f"{reason}: {path}{whose}" if whose or path != place else reason


def _whose(path: Path) -> str:
    """Who may write a file or folder that this user may not, and what would let a group."""
    with contextlib.suppress(OSError):
        status = path.stat()
        if status.st_uid == os.geteuid():
            return ""
        owner = str(status.st_uid)
        with contextlib.suppress(KeyError):
            owner = pwd.getpwuid(status.st_uid).pw_name
        return f" is user {owner}'s (for a group: umask 002 before `farm run`, and `chmod -R g+w` for what is there)"
    return ""
