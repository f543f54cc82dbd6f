"""How many blocks are ahead of the actors, and how many items each holds."""

import pytest

from farm.cluster.block_cutter import BLOCKS_AHEAD, BlockCutter
from farm.cluster.blocks import FIRST_ITEMS, Blocks, follow, unpack
from farm.config.loading import validate
from farm.core.items import Item
from farm.core.job import Job
from farm.core.placement import Placement
from farm.errors import SourceError
from farm.supervisor.lister import Chunk

LIMIT = 64


class FakeLister:
    """Chunks that are there from the beginning."""

    def __init__(self, *chunks, error=None):
        self.chunks, self.error, self.stopped = list(chunks), error, False

    @property
    def ended(self):
        return True

    @property
    def empty(self):
        return not self.chunks

    def take(self):
        return self.chunks.pop(0) if self.chunks else None

    def stop(self):
        self.stopped = True


def listed(count, vanished=False):
    return Chunk(tuple(Item(seq, b"%016d" % seq, f"{seq}.png") for seq in range(count)), 0, vanished)


@pytest.fixture
def cut(tmp_path):
    made = []

    def make(lister):
        config = validate(
            {
                "source": "x", "model": {"factory": "none:none"}, "output": str(tmp_path / "run"),
                "commit": {"images": LIMIT, "seconds": 10},
            }
        )  # fmt: skip
        placements = tuple(Placement(n, (), "cpu", 1, 1, 1) for n in range(2))
        job = Job(config, placements, "x", "digest", {}, "detect", {}, lambda *about: None)
        made.append(Blocks(tmp_path / "blocks"))
        vanished = []
        return BlockCutter(job, lister, made[-1], vanished.extend), made[-1], vanished

    yield make
    for blocks in made:
        blocks.close()


def test_so_many_blocks_are_ahead_and_no_more(cut):
    cutter, blocks, _ = cut(FakeLister(listed(5000)))
    assert cutter.fill() is None
    assert blocks.count == BLOCKS_AHEAD * 2
    assert cutter.is_listing
    assert cutter.done(1) == FIRST_ITEMS
    assert cutter.done(1) == 0, "it was done before"
    cutter.fill()
    assert blocks.count == BLOCKS_AHEAD * 2 + 1


def test_blocks_that_are_done_quickly_are_followed_by_larger_ones(cut):
    cutter, blocks, _ = cut(FakeLister(listed(5000)))
    cutter.fill()
    cutter.took(cutter.done(1), 0.1)
    cutter.took(cutter.done(2), 0.1)
    cutter.fill()
    sizes = [len(unpack(data)) for _, data in _taken(cutter, blocks)]
    assert sizes[-1] == 2 * FIRST_ITEMS, "one that was cut before says nothing of the new size"


def _taken(cutter, blocks):
    blocks.end()
    return list(follow(blocks.folder, cutter.begin_again()))


def test_refused_blocks_stay_open_and_keep_no_others_back(cut):
    cutter, blocks, _ = cut(FakeLister(listed(5000)))
    cutter.fill()
    cutter.refused(3)
    cutter.fill()
    assert blocks.count == BLOCKS_AHEAD * 2 + 1
    cutter.done(1)
    assert [number for number, _ in _taken(cutter, blocks)] == list(range(2, BLOCKS_AHEAD * 2 + 2))


def test_what_has_vanished_comes_when_all_else_is_put(cut):
    cutter, blocks, vanished = cut(FakeLister(listed(5), listed(3, vanished=True)))
    cutter.fill()
    assert (blocks.count, len(vanished), cutter.is_listing, cutter.listed) == (1, 3, False, 8)


def test_an_error_of_the_source_is_told_and_a_stop_leaves_the_rest_uncounted(cut):
    cutter, _, _ = cut(FakeLister(listed(5), error=SourceError("gone")))
    assert isinstance(cutter.fill(), SourceError)
    cutter.stop()
    assert (cutter.is_listing, cutter.listed) == (False, None)
    assert cutter.fill() is None
