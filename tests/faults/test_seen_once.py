"""Rows of images that were given up on, while the collector dies: a caller sees each once, and each counts once."""

import signal
from collections import Counter

import pytest

from farm.errors import TooManyFailures
from tests.support.harness import POISON, Saboteur, config, pictures

BAD = tuple(range(12))


@pytest.mark.parametrize("most", [len(BAD), len(BAD) - 1], ids=["as many as may fail", "one more"])
def test_failed_rows_that_a_dead_collector_has_not_shown_are_shown_once(tmp_path, most):
    seen = Counter()

    def act(saboteur, snapshot):
        if not saboteur.kills:
            saboteur.strike("collector", signal.SIGSTOP)
        elif saboteur.kills == 1 and len(saboteur.supervisor._book._verdicts) >= 2:
            saboteur.strike("collector")

    values = config(
        pictures(tmp_path / "source", 20, poisoned=BAD), tmp_path / "run", {"raise_on": POISON, "sleep_ms": 20},
        workers={"count": 1}, limits={"attempts": 1, "max_failed": most},
    )  # fmt: skip
    saboteur, look = Saboteur(act), lambda batch: seen.update(batch["path"].to_pylist())
    if most < len(BAD):
        with pytest.raises(TooManyFailures, match=f"{len(BAD)} images failed"):
            saboteur.run(values, on_batch=look)
    else:
        summary = saboteur.run(values, on_batch=look)
        assert (summary.ok, summary.failed) == (20 - len(BAD), len(BAD))
        assert len(seen) == 20
    assert saboteur.kills == 2
    assert set(seen.values()) == {1}
