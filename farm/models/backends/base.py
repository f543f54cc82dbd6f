"""What farm knows of a way to execute a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any


def _unlimited(threads: int, precision: str) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True, slots=True)
class Backend:
    """One backend, and all that the choice, the conversion and the workers go by.

    `suffixes`: how names of weights end that it runs. `packages`: modules that it needs beside torch and ultralytics.
    `install`: what a user types to get them. `cuda_build`: the distribution of the same modules that runs on CUDA,
    where the usual one does not. `export`: arguments of Ultralytics' export of a .pt, with dynamic shapes, and
    `exported`: the name that what it makes has in the cache. `is_engine`: an export is built for the GPUs of this
    machine, one image size and a largest batch. `limited(threads, precision)`: networks that this process loads
    meanwhile compute like that. It is for runtimes that Ultralytics starts with settings of its own.
    """

    name: str
    precisions: tuple[str, ...]
    suffixes: tuple[str, ...]
    packages: tuple[str, ...] = ()
    install: str = ""
    on_cpu: bool = True
    on_cuda: bool = False
    cuda_build: str = ""
    export: Mapping[str, Any] = field(default_factory=dict)
    exported: str = ""
    is_engine: bool = False
    limited: Callable[[int, str], AbstractContextManager[None]] = _unlimited
