"""The core is pure: no module of it can touch a disk, a process, a thread, the network or a clock.

What a module imports is read from its text, and so is what it takes of `os`. Modules of other packages that the core
imports are held to the same.
"""

import ast
from pathlib import Path

import pytest

import farm.core

ROOT = Path(farm.core.__file__).parents[1]
CORE = sorted((ROOT / "core").glob("*.py"))
IMPURE = frozenset(
    (
        "asyncio", "concurrent", "contextvars", "ctypes", "datetime", "fcntl", "glob", "http", "importlib", "io",
        "logging", "mmap", "multiprocessing", "pathlib", "platform", "psutil", "queue", "random", "resource", "secrets",
        "select", "selectors", "shutil", "signal", "socket", "sqlite3", "subprocess", "tempfile", "threading", "time",
        "urllib", "weakref",
    )
)  # fmt: skip
OF_OS = frozenset(("path", "sep", "strerror"))
OF_OS_PATH = frozenset(("basename", "dirname", "isabs", "join", "normpath", "split", "splitext"))
BUILTINS = frozenset(("input", "open", "print"))
PLAIN = ("farm.config.", "farm.errors")  # data, whose own tests say so


def imported(tree):
    """Full names, of `from x import y` both x and x.y."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def dotted(node):
    """`os.path.join` of an attribute; nothing of what is no plain name."""
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def troubles(text):
    """What of a module's text is not pure, in words."""
    tree = ast.parse(text)
    found = {f"imports {name}" for name in imported(tree) if name.partition(".")[0] in IMPURE}
    found |= {f"imports {name}" for name in imported(tree) if name.startswith(("os.", "io."))}
    for node in ast.walk(tree):
        name = dotted(node)
        if name in BUILTINS or name.startswith("sys.std"):
            found.add(f"uses {name}")
        if name.startswith("os.path."):
            found |= {f"uses {name}"} - {f"uses os.path.{each}" for each in OF_OS_PATH}
        elif name.startswith("os."):
            found |= {f"uses {name}"} - {f"uses os.{each}" for each in OF_OS}
    return found


def file_of(module):
    """Of a module of farm; None for names that are none, such as those of functions."""
    path = ROOT.parent / Path(*module.split(".")).with_suffix(".py")
    return path if path.exists() else None


def reached():
    """The core's modules, and those of other packages that they import, by name."""
    waiting, found = [f"farm.core.{path.stem}" for path in CORE if path.stem != "__init__"], {}
    while waiting:
        module = waiting.pop()
        if module in found or module.startswith(PLAIN) or (file := file_of(module)) is None:
            continue
        found[module] = file
        waiting += [name for name in imported(ast.parse(file.read_text())) if name.startswith("farm.")]
    return found


REACHED = reached()


@pytest.mark.parametrize("module", sorted(REACHED))
def test_a_module_of_the_core_does_no_io(module):
    assert not troubles(REACHED[module].read_text()), f"{module} is no decision: it belongs above the core, or below it"


def test_all_of_the_core_is_looked_at_and_little_else():
    assert len([module for module in REACHED if module.startswith("farm.core.")]) == len(CORE) - 1 > 20
    assert sorted(module for module in REACHED if not module.startswith("farm.core.")) == [
        "farm.machine.filenames", "farm.machine.hardware",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "import threading",
        "from time import monotonic",
        "from os import stat",
        "import os\ndef f(p): return os.path.exists(p)",
        "import os\nos.environ['A']",
        "def f(p):\n    import psutil",
        "def f(p):\n    with open(p) as file:\n        return file",
        "import os.path, multiprocessing.connection",
    ],
)
def test_what_is_not_pure_is_seen(text):
    assert troubles(text)


@pytest.mark.parametrize("text", ["import os\ndef f(p): return os.path.dirname(p) + os.sep", "import re, json, heapq"])
def test_what_is_pure_passes(text):
    assert not troubles(text)
