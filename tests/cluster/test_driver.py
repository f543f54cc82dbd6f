"""The driver with a pipeline of its own kind: what comes back, what is put again, what ends the run."""

import signal

import pyarrow as pa
import pytest

from farm.cluster.block_result import BlockResult
from farm.cluster.blocks import follow, give_up, unpack
from farm.cluster.driver import Driver
from farm.config.loading import validate
from farm.core.job import Job
from farm.core.schema import STATUS_OK, failed_batch, part_metadata, part_schema, to_ipc
from farm.engines.base import Hooks
from farm.engines.preparation import prepare
from farm.errors import ModelError, TooManyFailures, WorkerError
from farm.sources import earlier_runs, first_entry_or_raise
from farm.sources.base import item_key
from farm.storage.part_writer import PartWriter
from farm.storage.parts import read_part
from farm.storage.run_store import RunStore
from farm.supervisor.lister import Lister
from tests.support.harness import pictures

pytestmark = pytest.mark.timeout(60)


class FakePipeline:
    """Answers blocks in its own thread as told, without labelling anything; `faults` are raised first, one a call."""

    def __init__(self, faults=(), result=None):
        self.faults = list(faults)
        self.calls = []
        self.done = []
        self.result = result or (
            lambda number, items: BlockResult(number, items=len(items), ok=len(items), task="detect")
        )

    def results(self, blocks, open_blocks):
        self.calls.append(open_blocks)
        for number, data in follow(blocks.folder, open_blocks):
            if self.faults and len(self.done) >= len(self.calls):
                raise self.faults.pop(0)
            self.done.append(number)
            yield self.result(number, unpack(data))

    def abandon(self):
        pass


@pytest.fixture
def drive(tmp_path):
    opened = []

    def start(pipeline, count=100, hooks=None, notes=None, **sections):
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
        known = store.history.committed_keys()
        make = lambda earlier: Lister(prepared.source, entries, known, lambda: None, earlier)  # noqa: E731
        return Driver(job, store, make, pipeline, hooks.on_snapshot, None, [].append if notes is None else notes.append)

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
    pipeline.results = lambda blocks, open_blocks: _broken()
    with pytest.raises(WorkerError, match="RuntimeError: no cluster"):
        drive(pipeline).run()


def _broken():
    raise RuntimeError("no cluster")
    yield


def test_an_error_in_a_result_is_the_run_s_own(drive):
    with pytest.raises(ModelError, match="not those of the driver"):
        drive(
            FakePipeline(result=lambda number, items: BlockResult(number, error=ModelError("not those of the driver")))
        ).run()


def answers(broken, error="the device is gone"):
    """Workers 0 and 1 in turn; those in `broken` refuse what they get, and say why."""

    def answer(number, items):
        if (worker := number % 2) in broken:
            return BlockResult(number, index=worker, host="that one", error=ModelError(error))
        return BlockResult(number, index=worker, items=len(items), ok=len(items), task="detect")

    return answer


def test_an_actor_that_cannot_label_is_gone_on_without(drive):
    """What it refused is given to the others, and the user is told once."""
    broken, notes = {1}, []
    pipeline = FakePipeline(result=answers(broken))
    follow_on = pipeline.results
    pipeline.results = lambda blocks, open_blocks: (
        broken.clear() if pipeline.calls else None,
        follow_on(blocks, open_blocks),
    )[1]
    outcome = drive(pipeline, notes=notes).run()
    assert (outcome.committed, outcome.remaining) == (100, 0)
    assert len(pipeline.calls) == 2
    assert notes == ["going on without worker 1 on that one: the device is gone"]


def test_actors_that_all_fail_end_the_run_with_their_error(drive):
    pipeline = FakePipeline(result=answers({0, 1}))
    with pytest.raises(ModelError, match="the device is gone"):
        drive(pipeline).run()
    assert len(pipeline.calls) == 1, "no second try where nobody is left"


def test_an_actor_that_takes_no_block_is_known_by_what_it_wrote(drive, tmp_path):
    notes = []
    driver = drive(FakePipeline(), notes=notes)
    (folder,) = (tmp_path / "run" / "blocks").iterdir()
    give_up(folder, 7, "node-7", ModelError("weights are not there"))
    driver._look_for_lost(1.0)
    driver._look_for_lost(2.0)
    assert notes == ["going on without worker 7 on node-7: weights are not there"]
    give_up(folder, 8, "node-8", ModelError("nor here"))
    with pytest.raises(ModelError, match="nor here"):
        driver._look_for_lost(3.0)
        driver.run()


def test_an_outage_while_lost_actors_are_looked_for_ends_nothing(drive, monkeypatch):
    """As of a bucket: it is asked again."""
    driver, asked = drive(FakePipeline()), []

    def given_up():
        asked.append(1)
        raise OSError(5, "SlowDown")

    monkeypatch.setattr(driver._blocks, "given_up", given_up)
    monkeypatch.setattr("farm.cluster.driver.LOST_CHECK_S", 0.0)
    assert driver.run().committed == 100
    assert asked


def test_too_many_failures_end_the_run(drive):
    def failing(number, items):
        error = {"stage": "decode", "type": "Bad", "message": "bad"}
        rows = failed_batch(
            "detect", [key for key, _ in items], [path for _, path in items], [error] * len(items), attempts=1, worker=0
        )
        columns = pa.Table.from_batches([rows]).select(["status", "boxes", "error", "path"]).to_batches()[0]
        return BlockResult(number, items=len(items), task="detect", failed=to_ipc(columns).to_pybytes())

    with pytest.raises(TooManyFailures, match="most often Bad at decode"):
        drive(FakePipeline(result=failing), limits={"max_failed": 5}).run()


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
    monkeypatch.setattr(earlier_runs, "VANISHED_AT_ONCE", 3)
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
