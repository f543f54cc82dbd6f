"""What actors that died had in hand."""

from farm.cluster.crash_journal import DEATHS_IN_GROUP, Hand


def tried(folder, *places):
    """A try that does not come to its end, with these items alone in hand one after the other."""
    hand = Hand(folder, 7)
    hand.begin()
    for place in places:
        hand.take(place)
    return hand


def test_a_block_is_suspected_after_deaths_in_a_group(tmp_path):
    for _ in range(DEATHS_IN_GROUP):
        assert not tried(tmp_path).suspected
    assert tried(tmp_path).suspected
    assert not Hand(tmp_path, 8).suspected


def test_the_last_item_of_a_try_is_charged_with_its_death(tmp_path):
    tried(tmp_path)
    tried(tmp_path)
    tried(tmp_path, 0, 1, 2)
    tried(tmp_path, 0, 1, 2)
    tried(tmp_path, 0)
    hand = tried(tmp_path)
    assert [hand.charges(place) for place in range(4)] == [1, 0, 2, 0]
