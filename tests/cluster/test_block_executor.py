"""What an actor does with a block, without Ray: a part and a result, however often it is asked."""

import threading
import time

import pyarrow.parquet as pq
import pytest

from farm.cluster import blocks
from farm.cluster.block_executor import HOLD_AT_END_S, BlockExecutor, BlockExecutorSpec
from farm.cluster.blocks import Blocks, pack
from farm.cluster.worker_host import WorkerHostSpec
from farm.config.sections import LimitsConfig, ModelConfig
from farm.core.items import Item
from farm.core.placement import Placement
from farm.core.schema import from_ipc
from farm.errors import ModelError, OutputError
from farm.storage.run_store import RunStore
from farm.storage.session import blocks_dir
from farm.supervisor.worker_template import WorkerTemplate
from tests.support.harness import POISON, pictures, rows, wait_for

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def run(tmp_path):
    """A run directory with its folder of blocks, images of which number 3 is bad, and executors of it."""
    source = pictures(tmp_path / "images", 10, poisoned=(3,))
    store = RunStore.open(tmp_path / "run")
    folder = Blocks(blocks_dir(store.path, store.session))
    made = []

    def executor(weights=None):
        host = WorkerHostSpec(
            index=0,
            placement=Placement(0, (), "cpu", 1, 1, 1),
            template=WorkerTemplate(
                model=ModelConfig(
                    factory="farm.models.fake:make", args={"boxes": 2, "pixels": True, "raise_on": POISON}
                ),
                root=str(source),
                max_pixels=LimitsConfig().max_pixels,
                environment={},
                host_silence_s=60.0,
            ),
            limits=LimitsConfig(attempts=1),
            recycle_after=None,
            method="forkserver",
            prefix="",
        )
        made.append(BlockExecutor(BlockExecutorSpec(host, str(store.path), store.session, weights, "digest")))
        return made[-1]

    yield store, folder, executor
    for one in made:
        one.close()
    folder.close()
    store.close()


ITEMS = pack([Item(n, b"%016d" % n, f"{n:05d}.png") for n in range(10)])


def test_a_block_becomes_a_part_of_its_number_and_a_result(run):
    store, _, executor = run
    result = executor().label_block(7, ITEMS)
    assert (result.error, result.number, result.items, result.ok, result.detections) == (None, 7, 10, 9, 18)
    assert from_ipc(result.failed)["path"].to_pylist() == ["00003.png"]
    assert (result.task, result.names) == ("detect", {0: "thing", 1: "other"})
    assert [part.name for part in store.parts()] == ["0001-000007.parquet"]
    assert pq.read_schema(store.parts()[0]).metadata[b"farm.weights_digest"] == b"digest"


def test_a_block_that_has_its_part_is_not_labelled_again(run):
    store, _, executor = run
    first = executor().label_block(1, ITEMS)
    written = store.parts()[0].stat().st_mtime_ns
    again = executor().label_block(1, ITEMS)
    assert (again.items, again.ok, again.detections) == (10, 9, 18)
    assert from_ipc(again.failed).to_pylist() == from_ipc(first.failed).to_pylist()
    assert again.index == 1
    assert store.parts()[0].stat().st_mtime_ns == written
    assert len(rows(store.path)) == 10


def test_a_stopped_run_leaves_blocks_alone(run):
    store, folder, executor = run
    one = executor()
    folder.stop()
    result = one.label_block(1, ITEMS)
    assert (result.items, result.error) == (0, None)
    assert not store.parts()


def test_an_actor_of_a_dead_driver_cannot_commit_any_more(run, monkeypatch):
    """The next session takes the folder away; a part that is on its way then never arrives."""
    store, _, executor = run
    one = executor()
    assert one.label_block(1, ITEMS).error is None
    monkeypatch.setattr(blocks, "is_stopped", lambda folder: False)  # it had looked just before
    store.close()
    later = RunStore.open(store.path)
    blocks_of_another = Blocks(blocks_dir(later.path, later.session))
    assert isinstance(one.label_block(2, ITEMS).error, OutputError)
    assert [part.name for part in store.parts()] == ["0001-000001.parquet"]
    blocks_of_another.close()
    later.close()


def test_an_actor_whose_worker_cannot_start_says_so_and_takes_no_block(run, tmp_path):
    _, folder, executor = run
    one = executor(str(tmp_path / "none.pt"))
    waiting = threading.Thread(target=one.join, daemon=True)
    waiting.start()
    assert wait_for(lambda: folder.given_up(), 30)
    ((number, (_, error)),) = folder.given_up().items()
    assert (number, type(error)) == (0, ModelError)
    assert "none.pt do not exist on" in str(error)
    assert waiting.is_alive(), "no block comes before join returns"
    executor().join()
    assert len(folder.given_up()) == 1, "one that can labels"
    folder.stop()
    waiting.join(10)
    assert not waiting.is_alive(), "it leaves when the run ends"


def test_blocks_are_refused_at_leisure(run, tmp_path, monkeypatch):
    """Whoever answers at once that it cannot label is given every block."""
    _, folder, executor = run
    held = []
    one = executor(str(tmp_path / "none.pt"))
    monkeypatch.setattr(time, "sleep", held.append)
    monkeypatch.setattr(time, "monotonic", lambda: sum(held))
    assert isinstance(one.label_block(1, ITEMS).error, ModelError)
    first = sum(held)
    assert isinstance(one.label_block(2, ITEMS).error, ModelError)
    assert sum(held) - first == pytest.approx(2 * first, abs=0.2)
    folder.end()
    one._refused, before = 20, sum(held)
    one.label_block(3, ITEMS)
    assert sum(held) - before == pytest.approx(HOLD_AT_END_S, abs=0.2)


def test_every_node_must_have_the_weights_of_the_driver(run, tmp_path):
    _, _, executor = run
    (tmp_path / "other.pt").write_bytes(b"other")
    for weights, says in (
        (tmp_path / "none.pt", "do not exist on"),
        (tmp_path / "other.pt", "not those of the driver"),
    ):
        error = executor(str(weights)).label_block(1, ITEMS).error
        assert isinstance(error, ModelError)
        assert says in str(error)
