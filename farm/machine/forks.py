"""What a fork of this process must not keep. Used by every process whose descriptors others watch or wait for.

A fork has all descriptors of its parent for as long as it lives: a lock that the parent let go is held on, the end of
a pipe never comes. So what farm opens is closed in a child at the moment of the fork, by a hook that Python calls. A
program is asked for nothing, and its own descriptors are left alone.

A fork does not have its parent's other threads. A lock that one of them held is free there, and temporary changes are
undone. While one of them imports, a fork waits. So a child can have a farm of its own, whatever its parent's was doing.
"""

from __future__ import annotations

import contextlib
import operator
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from typing import Any, TypeVar

Opened = TypeVar("Opened")

_opened: weakref.WeakKeyDictionary[Any, Callable[[Any], None]] = weakref.WeakKeyDictionary()
_opening = threading.RLock()  # held while something is opened and noted down, so that no fork falls in between


def keep_from_forks(opened: Opened, close: Callable[[Any], None] = operator.methodcaller("close")) -> Opened:
    """Close it in every child that this process forks from now on. `close` must do no more than that."""
    with _opening:
        _opened[opened] = close
    return opened


def lock_of_each_process() -> threading.Lock:
    """A lock that is free in every child, whoever held it in the parent."""
    lock = threading.Lock()
    os.register_at_fork(after_in_child=lock._at_fork_reinit)  # type: ignore[attr-defined]  # as the library of Python does
    return lock


@contextlib.contextmanager
def undone(undo: Callable[[], None]) -> Iterator[None]:
    """The whole process is changed meanwhile: `undo` is called at the end, and in a child that is forked before it."""
    keep_from_forks(undo, operator.call)
    try:
        yield
    finally:
        with _opening:
            if _opened.pop(undo, None) is not None:
                undo()


@contextlib.contextmanager
def no_fork() -> Iterator[None]:
    """Another thread that forks meanwhile waits. For moments only."""
    with _opening:
        yield


def _close_in_child() -> None:
    for opened, close in list(_opened.items()):
        with contextlib.suppress(Exception):  # a view that somebody still holds; what is closed already
            close(opened)
    _opened.clear()
    with contextlib.suppress(AttributeError):  # of another Python
        _forget_fork_server()
    with contextlib.suppress(AttributeError):
        resource_tracker._resource_tracker._lock._at_fork_reinit()  # type: ignore[attr-defined]
    _opening.release()


def _forget_fork_server() -> None:
    """It is the parent's: multiprocessing would wait for it as for a child, and keep it when the parent has ended."""
    module: Any = sys.modules.get("multiprocessing.forkserver")
    if module is None:
        return
    server, preload = module._forkserver, module._forkserver._preload_modules
    if server._forkserver_alive_fd is not None:
        with contextlib.suppress(OSError):
            os.close(server._forkserver_alive_fd)
    server.__init__()
    server.set_forkserver_preload(preload)


os.register_at_fork(before=_opening.acquire, after_in_child=_close_in_child, after_in_parent=_opening.release)
