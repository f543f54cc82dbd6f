"""A factory by its name, package.module:function: where its module lies, and the function.

`folder_for` and `check` run in the supervisor's process, and import nothing; `find` runs in the worker. A module that
lies beside the config file that names it, or in the working directory, is told to the workers as `model.factory_dir`.
Where none is told, Python's own path is searched, then the working directory.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from farm.errors import ModelError
from farm.machine.working_directory import working_directory_if_any

OWN = "farm"  # which is here already, wherever a checkout of it lies
SCRIPT = "__main__"
SHOWN_CHARS = 300


def folder_with(factory: str, folders: Iterable[str | Path]) -> str | None:
    """The first of the folders that the factory's module lies in. Nothing is imported, parent packages neither."""
    module = factory.partition(":")[0]
    if module.partition(".")[0] == OWN:
        return None
    return next((str(folder) for folder in folders if _lies_in(module, str(folder))), None)


def folder_for(factory: str, folders: Sequence[str]) -> str | None:
    """The folder to look in first. If none has the module, the first one, so that the error can name it."""
    nowhere = not _is_on_path(factory.partition(":")[0].partition(".")[0])
    return folder_with(factory, folders) or (folders[0] if nowhere else None)


def check(factory: str, folder: str | None) -> None:
    """Raises ModelError where a worker of this machine would not find the module. `folder`: where it should lie."""
    module = factory.partition(":")[0]
    top = module.partition(".")[0]
    if top == SCRIPT:
        raise ModelError(f"model.factory {factory}: workers do not run your script; put it into a module")
    if not (folder_with(factory, _tried(folder)) or _is_on_path(top)):
        raise ModelError(_not_found(factory, module, folder))


def find(factory: str, folder: str | None) -> Callable[..., Any]:
    """The function, imported. Raises ModelError that says where it was looked for, or what its module lacks."""
    check(factory, folder)
    module_name, _, name = factory.partition(":")
    first = folder_with(factory, [folder] if folder else [])
    if first is None and not _is_on_path(module_name.partition(".")[0]):
        first = folder_with(factory, _tried(folder))
    if first is not None and first not in sys.path:
        sys.path.insert(0, first)  # and stays: what the module imports later may lie beside it
    try:
        module = import_module(module_name)
    except (ImportError, AttributeError, SyntaxError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise ModelError(_not_found(factory, error.name, folder)) from None
        text = " ".join(str(error).split())[:SHOWN_CHARS]
        raise ModelError(f"model.factory {factory} cannot be imported: {type(error).__name__}: {text}") from None
    if not hasattr(module, name):
        near = difflib.get_close_matches(name, dir(module), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ModelError(f"model.factory {factory}: {getattr(module, '__file__', module_name)} has no {name}{hint}")
    found: Callable[..., Any] = getattr(module, name)
    return found


def _tried(folder: str | None) -> Iterator[str]:
    """Folders beside those of Python's path, in their order."""
    yield from filter(None, (folder, working_directory_if_any()))


def _not_found(factory: str, module: str, folder: str | None) -> str:
    folders = ", ".join(dict.fromkeys(_tried(folder)))
    return (
        f"model.factory {factory}: there is no module {module} in {folders}, or on Python's path; put it beside the "
        f"config file that names it, or say where it lies (model.factory_dir)"
    )


def _is_on_path(top: str) -> bool:
    try:
        return find_spec(top) is not None
    except (ImportError, ValueError, AttributeError):  # a module that is here, and does not say where from
        return top in sys.modules


def _lies_in(module: str, folder: str) -> bool:
    """Is there a file of this module, or of the package that it is in, below the folder?"""
    folders: Iterable[str] = [folder]
    names = module.split(".")
    for depth in range(1, len(names) + 1):
        spec: ModuleSpec | None = PathFinder.find_spec(".".join(names[:depth]), list(folders))
        if spec is None:
            return False
        folders = spec.submodule_search_locations or []
    return spec is not None and spec.loader is not None  # a folder that is no package has none
