"""Blocks of a cluster run: put by one process, followed by another, the same every time."""

import threading
import time

from farm.cluster.blocks import Blocks, OpenBlocks, block_items, follow, is_stopped, pack, take_index, unpack
from farm.core.items import Item

ITEMS = [Item(0, b"k" * 16, "a.jpg"), Item(1, b"l" * 16, "not-utf8-\udcff.jpg")]


def test_items_travel_whole():
    assert unpack(pack(ITEMS)) == [(item.key, item.path) for item in ITEMS]


def test_a_follower_sees_every_block_in_order_however_late_and_often(tmp_path):
    blocks = Blocks(tmp_path / "blocks")
    assert blocks.put(ITEMS[:1]) == 1
    seen = []
    follower = threading.Thread(target=lambda: seen.extend(follow(blocks.folder, OpenBlocks())))
    follower.start()
    time.sleep(0.1)
    assert blocks.put(ITEMS[1:]) == 2
    blocks.end()
    follower.join(5)
    assert seen == [(1, pack(ITEMS[:1])), (2, pack(ITEMS[1:]))]
    assert list(follow(blocks.folder, OpenBlocks())) == seen
    assert list(follow(blocks.folder, OpenBlocks(1, frozenset({1})))) == seen[1:]
    assert list(follow(blocks.folder, OpenBlocks(2))) == seen[1:]


def test_a_folder_that_is_gone_is_an_end(tmp_path):
    blocks = Blocks(tmp_path / "blocks")
    assert not is_stopped(blocks.folder)
    blocks.close()
    assert is_stopped(blocks.folder)
    assert list(follow(blocks.folder, OpenBlocks())) == []


def test_stopping_is_seen_by_actors_and_ends_the_list(tmp_path):
    blocks = Blocks(tmp_path / "blocks")
    blocks.stop()
    assert is_stopped(blocks.folder)
    assert list(follow(blocks.folder, OpenBlocks())) == []


def test_every_actor_gets_another_number(tmp_path):
    assert [take_index(tmp_path) for _ in range(3)] == [0, 1, 2]


def test_blocks_grow_and_shrink_towards_their_time():
    assert block_items(16, 0.1, 5, 2048) == 32
    assert block_items(2048, 0.1, 5, 2048) == 2048
    assert block_items(16, 4, 5, 2048) == 16
    assert block_items(16, 30, 5, 2048) == 8
    assert block_items(1, 30, 5, 2048) == 1
