"""The Summary of a run: counts from its parts, rates from this session, and its exit code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from farm.core.counters import Counters, counted_columns
from farm.core.job import Outcome
from farm.core.schema import task_of
from farm.core.summary import Summary
from farm.engines.base import Runnable
from farm.errors import EXIT_DONE, EXIT_QUARANTINED
from farm.exports.base import ExportReport
from farm.machine.exit_reasons import signal_name
from farm.models.backends import faster
from farm.report.bottleneck import Crew, bottleneck
from farm.sources.base import Source
from farm.storage.run_store import RunStore

EXIT_SIGNAL = 128  # plus the signal's number, as shells have it


def summarise(
    store: RunStore, runnable: Runnable, outcome: Outcome, reports: Mapping[str, ExportReport], wall_s: float
) -> Summary:
    """Counts from the parts, which are the only truth; rates from this session."""
    prepared, executable = runnable.prepared, runnable.executable
    counts, schema = Counters(), store.history.schema()
    for batch in store.history.batches(counted_columns(schema)):
        counts.add(batch)
    warnings = [*store.problems, *prepared.source.problems, *outcome.notes]
    if outcome.repeated:
        were = "1 image was" if outcome.repeated == 1 else f"{outcome.repeated:,} images were"
        warnings.append(f"{were} listed more than once; each was labelled once")
    warnings += [warning for report in reports.values() for warning in report.warnings]
    agreement = executable.agreement
    return Summary(
        run_dir=str(store.path),
        listed=counts.ok + counts.failed + counts.gone + (outcome.remaining or 0),
        ok=counts.ok,
        failed=counts.failed,
        gone=counts.gone,
        skipped=counts.ok + counts.failed + counts.gone - outcome.committed,
        detections=counts.detections,
        images_per_s=outcome.committed / outcome.labelling_s if outcome.labelling_s else 0.0,
        wall_s=wall_s,
        restarts=outcome.restarts,
        exit_code=_exit_code(outcome, counts, prepared.source),
        interrupted=None if outcome.signal is None else signal_name(outcome.signal),
        remaining=outcome.remaining,
        left=prepared.source.left,
        labelling_s=outcome.labelling_s,
        task=task_of(schema),
        classes=len(counts.classes),
        failures=counts.failures(),
        stage_s=outcome.stage_s,
        backend=executable.backend,
        precision=prepared.config.model.precision,
        agreement=asdict(agreement) if agreement else None,
        bottleneck=_bottleneck(runnable, outcome),
        starts=outcome.starts,
        exports={name: report.path for name, report in reports.items()},
        warnings=tuple(warnings),
        left_out=prepared.source.left_out.counts(),
        devices=outcome.devices,
    )


def _bottleneck(runnable: Runnable, outcome: Outcome) -> str:
    prepared, backend = runnable.prepared, runnable.executable.backend
    devices = {placement.device for placement in prepared.placements} - {"cpu"}
    known = [use.busy for use in outcome.devices if use.busy is not None]
    busy = sum(known) / len(known) if known else None
    crew = Crew(
        len(prepared.placements),
        prepared.placements[0].decoders,
        len(devices),
        outcome.labelling_s,
        busy,
        prepared.config.model.decode,
    )
    model = prepared.config.model
    return bottleneck(outcome.stage_s, crew, model.factory or backend, faster(model, backend, prepared.device))


def _exit_code(outcome: Outcome, counts: Counters, source: Source) -> int:
    if outcome.signal is not None:
        return EXIT_SIGNAL + outcome.signal
    return EXIT_QUARANTINED if counts.failed or not source.is_complete else EXIT_DONE
