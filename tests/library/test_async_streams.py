"""`amap`: the same results for `async for`, and nothing left behind when it is left early."""

import asyncio

import pytest

from farm import Farm
from farm.errors import ConfigError
from farm.library.spool import Spool
from tests.support.harness import fake, paths, wait_for

pytestmark = pytest.mark.timeout(120)


class RememberingFarm(Farm):
    """It remembers what it was given."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.submitted = []

    def submit(self, item):
        self.submitted.append(super().submit(item))
        return self.submitted[-1]


def test_async(farm):
    async def all_of_them(order):
        return [result.path async for result in farm.amap(paths(200), order=order)]

    assert asyncio.run(all_of_them("input")) == list(paths(200))
    assert set(asyncio.run(all_of_them("completed"))) == set(paths(200))


def test_async_that_is_left_early_cancels_the_rest():
    async def first_of_many(order):
        async for result in farm.amap(paths(10**6), order=order):
            return result.status

    with RememberingFarm(model=fake(sleep_ms=20), workers=1) as farm:
        for order in ("input", "completed"):
            assert asyncio.run(first_of_many(order)) == "ok"
        assert wait_for(lambda: all(future.done() for future in farm.submitted), 30)
    with pytest.raises(ConfigError, match="order is input or completed"):
        asyncio.run(first_of_many("random"))


def test_async_while_others_fill_the_spool(farm, monkeypatch):
    async def all_of_them(order):
        return [result.path async for result in farm.amap(paths(50), order=order)]

    monkeypatch.setattr(Spool, "full", True)
    assert asyncio.run(all_of_them("input")) == list(paths(50))
    assert set(asyncio.run(all_of_them("completed"))) == set(paths(50))
