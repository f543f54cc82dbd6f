"""OpenVINO networks that were compiled for one shape, kept on disk beside their model: the next worker reads them.

Compiling for a shape takes a worker as long as ten or twenty images; reading what another worker, or an earlier run,
has compiled takes as long as three. Files lie in the model's entry of the cache and go with it. Each is named for all
that it depends on (the model, OpenVINO, the processor, the settings, the shape), and begins with its own digest: what
is not whole is compiled anew. Runs in workers.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from farm.models.backends.processor import identity
from farm.models.cache import COMPILED, Entry, digest_of
from farm.storage.atomic_write import write_whole

KEPT_BYTES = 256 << 20  # on disk, for all shapes of a model together; one of yolo11n takes 4 to 10 MiB
DIGEST_BYTES = hashlib.sha256().digest_size
NAME_DIGITS = 16


class KeptNetworks:
    """Those of one model with one setting."""

    def __init__(self, folder: Path, depends_on: Any) -> None:
        """`depends_on`: all that a network depends on but its shape, which JSON can hold."""
        self._folder = folder
        self._depends_on = depends_on

    @staticmethod
    def beside(model: Path, settings: Any) -> KeptNetworks | None:
        """Those of a model that lies in an entry of the cache; None for another, whose folder is the user's."""
        manifest = Entry(model.parent).manifest()
        if manifest.get("name") != model.name or "digest" not in manifest:
            return None
        return KeptNetworks(model.parent, [manifest["digest"], identity(), settings])

    def read(self, shape: Sequence[int]) -> bytes | None:
        """The network for batches of this shape, if there is one and it is whole."""
        path = self._path(shape)
        with contextlib.suppress(OSError):
            kept = path.read_bytes()
            if hashlib.sha256(kept[DIGEST_BYTES:]).digest() == kept[:DIGEST_BYTES]:
                os.utime(path)
                return kept[DIGEST_BYTES:]
        return None

    def write(self, shape: Sequence[int], network: bytes) -> None:
        """Keep it, as far as there is room; those that were used longest ago make room."""
        with contextlib.suppress(OSError):
            if self._has_room(DIGEST_BYTES + len(network)):
                write_whole(self._path(shape), hashlib.sha256(network).digest() + network)

    def _path(self, shape: Sequence[int]) -> Path:
        name = "x".join(map(str, shape))
        return self._folder / f"{name}-{digest_of([self._depends_on, list(shape)])[:NAME_DIGITS]}{COMPILED}"

    def _has_room(self, size: int) -> bool:
        kept = sorted(self._folder.glob(f"*{COMPILED}"), key=lambda path: path.stat().st_mtime)
        room = KEPT_BYTES - sum(path.stat().st_size for path in kept) - size
        while room < 0 and kept:
            oldest = kept.pop(0)
            room += oldest.stat().st_size
            oldest.unlink()
        return room >= 0
