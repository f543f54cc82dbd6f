"""A file system that lacks something, for a command and all its children: this folder comes first on PYTHONPATH.

FARM_LACKS names what is missing, with the error that it gives: `flock=ENOSYS symlink=EPERM`. Only below FARM_LACKS_AT.
It stands in for mounts that no test machine has: Lustre without flock, SMB, FUSE, vfat.
"""

import errno
import fcntl
import os
import stat

LACKS = dict(word.split("=") for word in os.environ.get("FARM_LACKS", "").split())
PLACE = os.environ.get("FARM_LACKS_AT", "/")
REFUSED = ":?"  # in names, as vfat has it


def lies_there(file, dir_fd=None):
    """Is the file, given by name, descriptor or object, below the place?"""
    try:
        number = file if isinstance(file, int) else file.fileno()
    except AttributeError:
        return os.path.abspath(os.fsdecode(file)).startswith(PLACE)
    return os.readlink(f"/proc/self/fd/{number}").startswith(PLACE)


def refuse(name, applies):
    """An error of this kind in place of the call, where `applies` says so of its arguments."""
    number = getattr(errno, LACKS[name])

    def call(real):
        def instead(*args, **kwargs):
            if applies(*args, **kwargs):
                raise OSError(number, os.strerror(number), args[0] if isinstance(args[0], str) else None)
            return real(*args, **kwargs)

        return instead

    return call


def is_folder(file):
    return stat.S_ISDIR(os.fstat(file if isinstance(file, int) else file.fileno()).st_mode)


KINDS = {
    "flock": (fcntl, "flock", lambda file, how: lies_there(file)),
    "lockf": (fcntl, "lockf", lambda file, *how: lies_there(file)),
    "fsync_folder": (os, "fsync", lambda file: lies_there(file) and is_folder(file)),
    "fsync": (os, "fsync", lies_there),
    "open_folder": (os, "open", lambda path, flags, *a, **k: bool(flags & os.O_DIRECTORY) and lies_there(path)),
    "symlink": (os, "symlink", lambda target, link, **k: lies_there(link)),
    "replace": (os, "replace", lambda old, new, **k: lies_there(new) and os.path.lexists(new)),
    "utime": (os, "utime", lambda path, *a, **k: lies_there(path)),
    "chmod": (os, "chmod", lambda path, *a, **k: True),  # wherever: also for sockets in temporary folders
    "mkdir": (os, "mkdir", lambda path, *a, **k: lies_there(path)),
    "names": (os, "open", lambda path, *a, **k: lies_there(path) and bool(set(REFUSED) & set(os.fsdecode(path)))),
}

for kind in LACKS:
    module, name, applies = KINDS[kind]
    setattr(module, name, refuse(kind, applies)(getattr(module, name)))
