"""How far a Farm looks ahead in what it is given, and what a slow caller does to it."""

import itertools
import os
import time

import pytest

from farm import Farm, run
from farm.api import Hooks
from farm.library.prefetch import AHEAD_BATCHES, AHEAD_ITEMS, AHEAD_S
from tests.support.harness import POISON, config, fake, paths, pictures

pytestmark = pytest.mark.timeout(120)

STALL_S = float(os.environ.get("FARM_STALL_S", "4"))


def test_no_more_is_taken_than_keeps_the_workers_busy():
    taken = itertools.count()
    with Farm(model=fake(sleep_ms=5), workers=1) as farm:
        results = farm.map(path for path, _ in zip(paths(10**9), taken, strict=False))
        for _ in range(50):
            next(results)
        ahead = next(taken) - 50
        time.sleep(0.5)
        assert next(taken) - 1 - 50 == ahead, "items were taken while nobody asked for results"
        assert ahead < 300


def test_in_order_no_more_is_taken_while_the_first_is_awaited(tmp_path):
    """The first image takes a second, the others a moment: what is kept back counts as waiting."""
    source = pictures(tmp_path, 1, poisoned=(0,))
    taken = 0

    def items():
        nonlocal taken
        for path in [source / "00000.png", *paths(10**6)]:
            taken += 1
            yield path

    model = fake(pixels=True, hang_on=POISON)
    with Farm(model=model, workers=2, limits={"item_timeout_s": 1.0, "attempts": 1}) as farm:
        results = farm.map(items(), order="input")
        assert next(results).error["type"] == "Timeout"
        assert taken <= 1 + max(AHEAD_ITEMS, 2 * AHEAD_BATCHES)
        assert taken <= 2 + max(farm._prefetch.images_per_s * AHEAD_S * 3, 2 * AHEAD_BATCHES)


def test_a_consumer_that_stalls_longer_than_any_deadline(tmp_path):
    """Nothing is lost, nobody is taken for dead: results wait, in the library as in a run whose caller is slow."""
    with Farm(model=fake(), workers=2, limits={"item_timeout_s": 1}) as farm:
        results = farm.map(paths(3000))
        seen = [next(results).path for _ in range(50)]
        before = farm.processes()
        time.sleep(STALL_S)
        seen += [result.path for result in results]
        assert farm.processes() == before
    assert sorted(seen) == sorted(paths(3000))
    stalled = []

    def stall(batch):
        if not stalled:
            time.sleep(STALL_S)
        stalled.append(batch.num_rows)

    source = pictures(tmp_path / "source", 200)
    values = config(source, tmp_path / "run", {"sleep_ms": 5}, limits={"item_timeout_s": 1})
    summary = run(values, hooks=Hooks(on_batch=stall))
    assert (summary.ok, summary.restarts, sum(stalled)) == (200, 0, 200)
