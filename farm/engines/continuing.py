"""Whether a run may go on with the work in its directory, and why not. Reads; changes nothing.

Runs in the calling process. The rules are those of farm.core.continuation; here they are given this run and its source.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from farm.core.continuation import BACKEND, CONVERSION, SOURCE, SOURCE_ROOT
from farm.engines.base import Prepared
from farm.engines.fingerprint import fingerprint_of
from farm.engines.known_backend import backend_of, with_known_backend
from farm.errors import RunMismatchError
from farm.machine.filenames import kept
from farm.models.conversion.executables import Executable
from farm.sources.moved_source import look_for_images
from farm.storage.run_store import RunStore

Allowed = tuple[frozenset[str], str]
"""Words of `accept` that hold for this run, and what was found of a source that has moved, in words."""


def check(prepared: Prepared, executable: Executable, store: RunStore, allowed: Allowed) -> None:
    """Raises RunMismatchError where the directory holds work that this run, so executed, would not go on with."""
    store.check(fingerprint_of(prepared, executable), prepared.implied, prepared.resolved, *allowed)


def allowed_differences(prepared: Prepared, store: RunStore, before: Mapping[str, Any]) -> Allowed:
    """What may differ from `before`, by the config, or because the source was found again at another place; what was
    found there, in words."""
    accepted, root = frozenset(prepared.config.accept), prepared.source.root
    if not before or before.get(SOURCE_ROOT) == kept(root) or SOURCE in accepted:
        return accepted, ""
    found = look_for_images(store, root)
    return (accepted | {SOURCE}) if found.is_the_same else accepted, found.in_words()


def refusal(prepared: Prepared, store: RunStore) -> str:
    """Why `run` would not go on with the work in the directory, as far as that can be said before the source is looked
    into; nothing where it would. Reads; changes nothing."""
    before = store.fingerprint()
    model = with_known_backend(prepared, before.get(BACKEND))
    backend = backend_of(model, prepared.device, many=False)
    if before.get(BACKEND) == backend_of(model, prepared.device, many=True):
        backend = before[BACKEND]
    expected = Executable(str(model.weights), backend, conversion=before.get(CONVERSION))
    try:
        check(prepared, expected, store, allowed_differences(prepared, store, before))
    except RunMismatchError as error:
        return str(error)
    return ""
