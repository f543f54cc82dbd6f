"""The library's front: `run` labels what a config says and returns a Summary. The command line calls it too.

Runs in the caller's process, which becomes the supervisor's.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from farm import engines, exports
from farm.config.sections import PATH_KEYS, FarmConfig, expanded, from_mapping, load, validate
from farm.core.counters import Counters, counted_columns
from farm.core.job import Outcome
from farm.core.key_set import KeySet
from farm.core.marks import RUN_FILE
from farm.core.run_file import config_of, output_of
from farm.core.schema import names_of, task_of
from farm.core.summary import Summary
from farm.engines import backend_choice
from farm.engines.local import Hooks, Prepared
from farm.errors import EXIT_DONE, EXIT_QUARANTINED, ConfigError, OutputError, SourceError
from farm.exports.base import ExportReport, ExportRequest
from farm.machine import interrupts, shortage
from farm.machine.filenames import here, with_names
from farm.models.backends import faster
from farm.models.converted_weights import CONVERT_TIMEOUT_S
from farm.report.bottleneck import Crew, bottleneck
from farm.sources.base import Entry, Source, first_entry_or_raise
from farm.sources.failed_images import FailedImages
from farm.storage import folders
from farm.storage.run_store import SUMMARY_FILE, RunStore

EXIT_SIGNAL = 128  # plus the signal's number, as shells have it


@shortage.named()
def run(
    config: str | Path | Mapping[str, Any] | FarmConfig,
    overrides: Iterable[str] = (),
    hooks: Hooks | None = None,
    stdin: BinaryIO | None = None,
    source: Source | None = None,
    convert_timeout_s: float = CONVERT_TIMEOUT_S,
) -> Summary:
    """Label every image of the source that the run directory does not hold yet; export; say how it went.

    `config` is a YAML file's path, a mapping of the same shape, or a FarmConfig; `overrides` are `section.key=value`.
    `stdin` is read where `source.path` is `-`; a `source` object lists items of your own instead of `source.path`.
    A model that is to be converted first has `convert_timeout_s`. Returns when everything is committed, or when `hooks`
    stopped it. Raises FarmError where it cannot go on: what was committed by then stays, and the same call continues.
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
    entries = first_entry_or_raise(prepared.source)  # before there is a run directory: of no images nothing is left
    store = RunStore.open(prepared.config.output.dir)
    try:
        return _label(prepared, store, hooks, None, began_s, convert_timeout_s, entries)
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
        return _label(prepared, store, hooks, KeySet(), began_s)
    finally:
        store.close()


def _label(
    prepared: Prepared, store: RunStore, hooks: Hooks, known: KeySet | None, began_s: float,
    convert_timeout_s: float = CONVERT_TIMEOUT_S, entries: Iterator[Entry] | None = None,
) -> Summary:  # fmt: skip
    """The part that `run` and `retry` share: label, export, summarise. `entries`: of the source, if it is open yet."""
    prepared, entries = backend_choice.settle(prepared, store, hooks.on_note, convert_timeout_s, entries)
    try:
        outcome = engines.load(prepared.config.engine).run(prepared, store, entries, hooks, known)
    finally:
        prepared.executable.release()
    finished = outcome.signal is None
    reports = export_all(store, prepared.config.output.exports) if finished else {}
    summary = summarise(store, prepared, outcome, reports, time.monotonic() - began_s)
    store.write_json(SUMMARY_FILE, summary.to_dict())
    return summary


def as_config(config: str | Path | Mapping[str, Any] | FarmConfig, overrides: Iterable[str] = ()) -> FarmConfig:
    """The config in any of the forms that `run` takes, with the overrides applied. Raises ConfigError."""
    if isinstance(overrides, str):
        raise ConfigError(f"overrides are a list, of strings such as workers.count=4: write [{overrides!r}]")
    overrides = list(overrides)
    if isinstance(config, FarmConfig):
        return from_mapping(config.model_dump(), overrides) if overrides else config
    if isinstance(config, Mapping):
        return from_mapping(config, overrides)
    if not isinstance(config, (str, Path)):
        raise ConfigError(f"a {type(config).__name__} is no config; give a YAML file's path, a mapping or a FarmConfig")
    return load(expanded(config), overrides)


def export_all(store: RunStore, formats: Sequence[str]) -> dict[str, ExportReport]:
    """Project the committed parts into each of the formats."""
    return {name: export(store, name, anew=False) for name in formats} if store.parts() else {}


def export(
    store: RunStore, name: str, save_conf: bool | None = None, to: str | Path | None = None, anew: bool = True
) -> ExportReport:
    """Project the committed parts into one format, in the run directory, or in the folder `to`.

    Without `anew` what an earlier export has written and is still there as it was is not written again. `save_conf`
    defaults to what the run was configured with. Raises OutputError where the folder cannot be written.
    """
    write = exports.load(name)
    if to is None and folders.is_remote(store.path):
        raise OutputError(f"{store.path} is no folder of this machine; say where the export goes: --to FOLDER")
    folder = folders.folder_of(to) if to is not None else store.path
    if folders.is_remote(folder):
        raise OutputError(f"{to}: exports are written to a folder of this machine; copy it afterwards")
    try:
        folders.make_folder(folder)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror}; choose another folder") from None
    described = store.describe()
    output, schema = output_of(described), store.history.schema()
    request = ExportRequest(
        folder=folder,
        source_root=here(described.get("source_root") or "/"),
        task=described.get("task") or task_of(schema) or "detect",
        names=names_of(schema),
        save_conf=bool(output.get("save_conf")) if save_conf is None else save_conf,
        clip=bool(output.get("clip")),
        kpt_shape=_kpt_shape(described.get("kpt_shape")),
        parts=None if folders.is_remote(store.path) else store.stamps(),
        anew=anew,
    )
    return write(request, store.history.batches)


def _kpt_shape(said: Any) -> tuple[int, int] | None:
    """As run.json has it: nothing of what is no pose run, or was begun before that was written down."""
    if isinstance(said, list) and len(said) == 2 and all(isinstance(number, int) for number in said):
        return said[0], said[1]
    return None


def summarise(
    store: RunStore, prepared: Prepared, outcome: Outcome, reports: Mapping[str, ExportReport], wall_s: float
) -> Summary:
    """Counts from the parts, which are the only truth; rates from this session."""
    tally, schema = Counters(), store.history.schema()
    for batch in store.history.batches(counted_columns(schema)):
        tally.add(batch)
    warnings = [*store.problems, *prepared.source.problems]
    if outcome.repeated:
        were = "1 image was" if outcome.repeated == 1 else f"{outcome.repeated:,} images were"
        warnings.append(f"{were} listed more than once; each was labelled once")
    warnings += [warning for report in reports.values() for warning in report.warnings]
    agreement = prepared.executable.agreement
    return Summary(
        run_dir=str(store.path),
        listed=tally.ok + tally.failed + tally.gone + (outcome.remaining or 0),
        ok=tally.ok,
        failed=tally.failed,
        gone=tally.gone,
        skipped=tally.ok + tally.failed + tally.gone - outcome.committed,
        detections=tally.detections,
        images_per_s=outcome.committed / outcome.labelling_s if outcome.labelling_s else 0.0,
        wall_s=wall_s,
        restarts=outcome.restarts,
        exit_code=_exit_code(outcome, tally, prepared.source),
        interrupted=_signal_name(outcome.signal),
        remaining=outcome.remaining,
        left=prepared.source.left,
        labelling_s=outcome.labelling_s,
        task=task_of(schema),
        classes=len(tally.classes),
        failures=tally.failures(),
        stage_s=outcome.stage_s,
        backend=prepared.executable.backend,
        precision=prepared.config.model.precision,
        agreement=asdict(agreement) if agreement else None,
        bottleneck=_bottleneck(prepared, outcome),
        starts=outcome.starts,
        exports={name: report.path for name, report in reports.items()},
        warnings=tuple(warnings),
        left_out=prepared.source.left_out.counts(),
    )


def _bottleneck(prepared: Prepared, outcome: Outcome) -> str:
    devices = {placement.device for placement in prepared.placements} - {"cpu"}
    crew = Crew(len(prepared.placements), prepared.placements[0].decoders, len(devices), outcome.labelling_s)
    model, backend = prepared.config.model, prepared.executable.backend
    return bottleneck(outcome.stage_s, crew, model.factory or backend, faster(model, backend, prepared.device))


def _exit_code(outcome: Outcome, tally: Counters, source: Source) -> int:
    if outcome.signal is not None:
        return EXIT_SIGNAL + outcome.signal
    return EXIT_QUARANTINED if tally.failed or not source.is_complete else EXIT_DONE


def _signal_name(number: int | None) -> str | None:
    return None if number is None else signal.Signals(number).name
