"""The driver with a pipeline of its own kind: what comes back, what is put again, what ends the run."""

import signal

import pyarrow as pa
import pytest

from farm import earlier
from farm.blocks import follow, unpack
from farm.config import validate
from farm.driver import Driver
from farm.engines.local import Hooks, prepare
from farm.errors import ModelError, TooManyFailures, WorkerError
from farm.labeller import Receipt
from farm.lister import Lister
from farm.parts import read_part
from farm.schema import STATUS_OK, failed_batch, part_metadata, part_schema, to_ipc
from farm.sources import first_entry_or_raise
from farm.sources.base import item_key
from farm.store import PartWriter, RunStore
from farm.supervisor import Job
from tests.faults.harness import pictures

pytestmark = pytest.mark.timeout(60)


class FakePipeline:
    """Answers blocks in its own thread as told, without labelling anything; `faults` are raised first, one a call."""

    def __init__(self, faults=(), receipt=None):
        self.faults = list(faults)
        self.calls = []
        self.done = []
        self.receipt = receipt or (
            lambda number, items: Receipt(number, items=len(items), ok=len(items), task="detect")
        )

    def receipts(self, blocks, todo):
        self.calls.append(todo)
        for number, data in follow(blocks.folder, todo):
            if self.faults and len(self.done) >= len(self.calls):
                raise self.faults.pop(0)
            self.done.append(number)
            yield self.receipt(number, unpack(data))

    def abandon(self):
        pass


@pytest.fixture
def drive(tmp_path):
    opened = []

    def start(pipeline, count=100, hooks=None, **sections):
        values = {
            "source": str(pictures(tmp_path / "images", count)),
            "model": {"factory": "farm.models.fake:make"},
            "output": str(tmp_path / "run"),
            "workers": {"count": 2, "devices": "cpu"},
            "commit": {"images": 10},
        }
        prepared = prepare(validate(values | sections))
        store = RunStore.open(tmp_path / "run")
        opened.append(store)
        task = "detect" if store.parts() else None
        job = Job(prepared.config, prepared.placements, prepared.source.root, "x", {}, task, {}, lambda *about: None)
        entries = first_entry_or_raise(prepared.source)
        hooks = hooks or Hooks()
        known = store.committed_keys()
        make = lambda earlier: Lister(prepared.source, entries, known, lambda: None, earlier)  # noqa: E731
        return Driver(job, store, make, pipeline, hooks.on_snapshot, None)

    yield start
    for store in opened:
        store.close()


def test_every_block_is_answered_once(drive, tmp_path):
    pipeline = FakePipeline()
    outcome = drive(pipeline).run()
    assert (outcome.committed, outcome.remaining, outcome.signal) == (100, 0, None)
    assert pipeline.done == list(range(1, len(pipeline.done) + 1))
    assert not (tmp_path / "run" / "blocks").exists()


def test_a_pipeline_that_breaks_is_started_again_with_what_is_left(drive):
    pipeline = FakePipeline([RuntimeError("lost a node"), RuntimeError("and another")])
    outcome = drive(pipeline).run()
    assert outcome.committed == 100
    assert sorted(pipeline.done) == sorted(set(pipeline.done)), "a block was given twice"
    assert len(pipeline.calls) == 3


def test_a_pipeline_that_only_breaks_ends_the_run(drive):
    pipeline = FakePipeline()
    pipeline.receipts = lambda blocks, todo: _broken()
    with pytest.raises(WorkerError, match="RuntimeError: no cluster"):
        drive(pipeline).run()


def _broken():
    raise RuntimeError("no cluster")
    yield


def test_an_error_in_a_receipt_is_the_run_s_own(drive):
    with pytest.raises(ModelError, match="not those of the driver"):
        drive(
            FakePipeline(receipt=lambda number, items: Receipt(number, error=ModelError("not those of the driver")))
        ).run()


def test_too_many_failures_end_the_run(drive):
    def failing(number, items):
        error = {"stage": "decode", "type": "Bad", "message": "bad"}
        rows = failed_batch(
            "detect", [key for key, _ in items], [path for _, path in items], [error] * len(items), attempts=1, worker=0
        )
        columns = pa.Table.from_batches([rows]).select(["status", "boxes", "error", "path"]).to_batches()[0]
        return Receipt(number, items=len(items), task="detect", failed=to_ipc(columns).to_pybytes())

    with pytest.raises(TooManyFailures, match="most often Bad at decode"):
        drive(FakePipeline(receipt=failing), limits={"max_failed": 5}).run()


def test_an_interrupt_says_what_is_left(drive):
    driver = None

    def look(snapshot):
        if snapshot.committed >= 10:
            driver.interrupt(signal.SIGTERM)

    driver = drive(FakePipeline(), count=3000, hooks=Hooks(on_snapshot=look))
    outcome = driver.run()
    assert outcome.signal == signal.SIGTERM
    assert 10 <= outcome.committed < 3000
    assert outcome.remaining is None or outcome.remaining + outcome.committed == 3000


def test_what_has_vanished_becomes_rows_in_portions(drive, tmp_path, monkeypatch):
    monkeypatch.setattr(earlier, "VANISHED_AT_ONCE", 3)
    gone = [f"gone{number:02d}.png" for number in range(20)]
    values = {
        "key": [item_key(path, 1, 1) for path in gone], "path": gone, "status": [STATUS_OK] * 20,
        "task": ["detect"] * 20, "attempts": [1] * 20, "worker": [0] * 20,
    }  # fmt: skip
    schema = part_schema("detect")
    rows = pa.record_batch([pa.array(values.get(f.name, [None] * 20), f.type) for f in schema], schema=schema)
    store = RunStore.open(tmp_path / "run")
    PartWriter(store.parts_dir, 1).commit([rows], part_metadata("detect", {}, "x"))
    store.close()
    outcome = drive(FakePipeline(), count=5).run()
    assert (outcome.committed, outcome.remaining) == (5 + 20, 0)
    parts = [read_part(part, None) for part in RunStore.view(tmp_path / "run").parts()[1:]]
    assert [len(part) for part in parts] == [3] * 6 + [2]
    assert [path for part in parts for path in part["path"].to_pylist()] == gone
    assert {error["stage"] for part in parts for error in part["error"].to_pylist()} == {"list"}
