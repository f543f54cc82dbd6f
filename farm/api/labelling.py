"""`run` labels what a config says and returns a Summary; `retry` tries its failed images again.

Runs in the caller's process, which becomes the supervisor's.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from farm import engines, exports
from farm.api.exporting import export_all
from farm.api.summarising import summarise
from farm.config.loading import as_config, validate
from farm.config.sections import PATH_KEYS, FarmConfig
from farm.core.key_set import KeySet
from farm.core.run_file import config_of, output_of
from farm.core.summary import Summary
from farm.engines.backend_choice import choose_backend
from farm.engines.base import Hooks, Runnable
from farm.errors import SourceError
from farm.machine import interrupts, shortage
from farm.machine.filenames import here, with_names
from farm.models.conversion.executables import CONVERT_TIMEOUT_S
from farm.sources.base import Entry, Source, first_entry_or_raise
from farm.sources.failed_images import FailedImages
from farm.storage.run_store import RUN_FILE, SUMMARY_FILE, RunStore


@shortage.named()
def run(
    config: str | Path | Mapping[str, Any] | FarmConfig,
    overrides: Iterable[str] = (),
    hooks: Hooks | None = None,
    stdin: BinaryIO | None = None,
    source: Source | None = None,
    convert_timeout_s: float = CONVERT_TIMEOUT_S,
) -> Summary:
    """Label every image of the source that the run directory does not hold yet, export, and return a summary.

    - `config`: the path of a YAML file, a mapping of the same shape, or a FarmConfig
    - `overrides`: texts such as `workers.count=4`, which replace keys of the config
    - `hooks`: functions of yours that are called while the run goes on
    - `stdin`: the binary stream that is read where `source.path` is `-`
    - `source`: an object that lists images, in place of `source.path`
    - `convert_timeout_s`: how long the conversion of a model may take

    Returns when everything is committed, or when `hooks` have stopped the run. Raises FarmError if it cannot go on.
    What was committed by then stays, and the same call continues.
    """
    began_s = time.monotonic()
    config = as_config(config, overrides)
    with interrupts.raised_once():
        return _run(config, hooks or Hooks(), stdin, source, began_s, convert_timeout_s)


def _run(
    config: FarmConfig, hooks: Hooks, stdin: BinaryIO | None, source: Source | None, began_s: float,
    convert_timeout_s: float,
) -> Summary:  # fmt: skip
    exports.refuse_foreign(config.output.dir, config.output.exports)
    prepared = engines.load(config.engine).prepare(config, stdin, source)
    if prepared.source.notice:
        hooks.on_note(prepared.source.notice)
    entries = first_entry_or_raise(prepared.source)  # before the run directory is made: without images there is none
    store = RunStore.open(prepared.config.output.dir)
    try:
        runnable, entries = choose_backend(prepared, store, hooks.on_note, convert_timeout_s, entries)
        return _label_and_export(runnable, store, entries, hooks, None, began_s)
    finally:
        store.close()


@shortage.named()
def retry(run_dir: str | Path, hooks: Hooks | None = None) -> Summary:
    """Try the failed images of a run again, with the config it was made with; the newer rows win.

    Raises OutputError where `run_dir` is no run, SourceError where none of its images has failed.
    """
    with interrupts.raised_once():
        return _retry(run_dir, hooks or Hooks(), time.monotonic())


def _retry(run_dir: str | Path, hooks: Hooks, began_s: float) -> Summary:
    view = RunStore.view(run_dir)
    described, file = view.describe(), str(view.path / RUN_FILE)
    values, root = config_of(described, file)
    values, root = with_names(values, PATH_KEYS, here), here(root)
    config = validate({**values, "output": {**output_of(described), "dir": str(run_dir)}}, file)
    exports.refuse_foreign(run_dir, config.output.exports)
    store = RunStore.open(run_dir)
    try:
        source = FailedImages(f"failed images of {run_dir}", root, store.history.failed_paths)
        if not source.count():
            raise SourceError(f"nothing to retry: no image of {run_dir} has failed")
        if source.has_moved():
            raise SourceError(
                f"the source of {run_dir} is not at {root} any more; `farm run` with the place where it is now goes on "
                f"with it, and remembers the place"
            )
        prepared = engines.load(config.engine).prepare(config, source=source)
        runnable, entries = choose_backend(prepared, store, hooks.on_note)
        return _label_and_export(runnable, store, entries, hooks, KeySet(), began_s)
    finally:
        store.close()


def _label_and_export(
    runnable: Runnable, store: RunStore, entries: Iterator[Entry], hooks: Hooks, known: KeySet | None, began_s: float
) -> Summary:
    """The part that `run` and `retry` share: label, export, summarise."""
    config = runnable.prepared.config
    try:
        outcome = engines.load(config.engine).run(runnable, store, entries, hooks, known)
    finally:
        runnable.executable.release()
    finished = outcome.signal is None
    reports = export_all(store, config.output.exports) if finished else {}
    summary = summarise(store, runnable, outcome, reports, time.monotonic() - began_s)
    store.write_json(SUMMARY_FILE, summary.to_dict())
    return summary
