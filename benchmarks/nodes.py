"""How many nodes one driver can keep busy: a simulation, from what its parts were measured to cost here.

Measured: the real driver with its real lister and block files, against a pipeline that answers every block at once;
the reading of parts at a resume; a durable commit. Given: what Ray Data handed out (55 blocks a second on two cores,
with `farm run` on a local Ray), 150 kB an image, and what a shared file system gives. Computed: for so many nodes of 16
CPU workers at 20 images/s each, or of 2 GPUs at 1,000, which of them is the first that is more than busy.

    python -m benchmarks.nodes
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.overhead import Numbers
from benchmarks.record import parser, report
from benchmarks.resume import make
from farm.cluster.block_result import BlockResult
from farm.cluster.blocks import Blocks, OpenBlocks, follow, unpack
from farm.cluster.driver import Driver
from farm.config.loading import validate
from farm.core.key_set import KeySet
from farm.engines.backend_choice import choose_backend_unseen
from farm.engines.preparation import prepare
from farm.engines.starting import job_of
from farm.storage.run_store import RunStore
from farm.supervisor.lister import Lister

RAY_BLOCKS_PER_S = 55.0  # as measured; a driver of its own machine would do better
IMAGE_BYTES = 150_000
READ_BYTES_PER_S = 10e9  # of a good shared file system
COMMITS_PER_S = 200.0  # fsync and rename in one folder, over the network
CPU_NODE, GPU_NODE = 16 * 20.0, 2 * 1000.0  # images/s
NODES = (1, 16, 64, 256)
COLLECTION = 100_000_000  # images


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds: of the driver for a block and for an image of it, of a resume for a part, of one commit."""

    block_s: float
    image_s: float
    part_s: float
    commit_s: float


class Instant:
    """A pipeline that answers at once."""

    def results(self, blocks: Blocks, open_blocks: OpenBlocks) -> Iterator[BlockResult]:
        for number, data in follow(blocks.folder, open_blocks):
            count = len(unpack(data))
            yield BlockResult(number, items=count, ok=count, detections=count, task="detect", names={0: "thing"})

    def abandon(self) -> None:
        """Nothing to stop."""


def drive(block: int, images: int) -> float:
    """Seconds of the whole driver for so many images in blocks of this size."""
    with tempfile.TemporaryDirectory() as folder:
        values = {
            "source": "-",
            "model": {"factory": "farm.models.fake:make"},
            "output": {"dir": folder, "exports": []},
            "workers": {"count": 64, "devices": "cpu", "batch": -(-block // 16)},
            "commit": {"images": block, "seconds": 1e6},
        }
        source = Numbers(images)
        runnable = choose_backend_unseen(prepare(validate(values), source=source), print)
        store = RunStore.open(folder)
        job = job_of(runnable, None, {}, lambda *about: None)
        make_lister = lambda gone: Lister(source, source.entries(), KeySet(), lambda: None, gone)  # noqa: E731
        driver = Driver(job, store, make_lister, Instant(), lambda snapshot: None, None)
        began = time.perf_counter()
        driver.run()
        store.close()
        return time.perf_counter() - began


def costs() -> Costs:
    """Two block sizes tell what a block costs and what an image does."""
    small, large, images = 64, 2048, 400_000
    small_s, large_s = drive(small, images // 10) / (images // 10), drive(large, images) / images
    block_s = (small_s - large_s) / (1 / small - 1 / large)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        make(folder, rows := 200_000, sessions=1)
        commit_s = (time.perf_counter() - began) / (rows / 2048)
        store = RunStore.open(folder)
        began = time.perf_counter()
        store.history.committed_keys()
        part_s = (time.perf_counter() - began) / (rows / 2048)
        store.close()
    return Costs(block_s, max(0.0, large_s - block_s / large), part_s, commit_s)


def row(costs: Costs, nodes: int, node_rate: float, images_a_block: int) -> list[str]:
    """One line of the table: shares of what there is; above 100% it is the limit."""
    rate = nodes * node_rate
    blocks = rate / images_a_block
    shares = {
        "driver": blocks * costs.block_s + rate * costs.image_s,
        "Ray's tasks": blocks / RAY_BLOCKS_PER_S,
        "reading": rate * IMAGE_BYTES / READ_BYTES_PER_S,
        "commits": blocks / COMMITS_PER_S,
    }
    first = max(shares, key=lambda name: shares[name])
    hours = COLLECTION / (rate / max(1.0, shares[first])) / 3600
    parts = COLLECTION / images_a_block
    limit = f"{first}, at {nodes / shares[first]:.0f} nodes"
    seconds = f"{parts * costs.part_s:.0f}"
    return [
        f"{nodes}", f"{rate:,.0f}", f"{images_a_block}", *(f"{share:.0%}" for share in shares.values()), limit,
        f"{hours:.1f}", f"{parts:,.0f}", seconds,
    ]  # fmt: skip


def main() -> None:
    args = parser(__doc__ or "").parse_args()
    measured = costs()
    header = [
        "nodes", "images/s", "images a block", "driver", "Ray's tasks", "reading", "commits", "first limit",
        "hours for 10⁸", "parts", "s to resume",
    ]  # fmt: skip
    rows = [
        row(measured, nodes, rate, block) for rate, block in ((CPU_NODE, 2048), (GPU_NODE, 2048), (GPU_NODE, 8192))
        for nodes in NODES
    ]  # fmt: skip
    notes = [
        f"Measured: the driver {measured.block_s * 1e3:.2f} ms a block and {measured.image_s * 1e6:.1f} µs an image, "
        f"a resume {measured.part_s * 1e3:.1f} ms a part of 2,048, a commit here {measured.commit_s * 1e3:.0f} ms. "
        f"Given: {RAY_BLOCKS_PER_S:g} blocks/s through Ray Data, {IMAGE_BYTES / 1e3:g} kB an image, a file system of "
        f"{READ_BYTES_PER_S / 1e9:g} GB/s and {COMMITS_PER_S:g} commits/s. `python -m benchmarks.nodes`"
    ]
    report("Nodes: a simulation", header, rows, notes, args.save)


if __name__ == "__main__":
    main()
