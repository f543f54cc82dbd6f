"""What actors that died had in hand."""

from farm.cluster.crash_journal import DEATHS_IN_GROUP, CrashJournal


def tried(folder, *positions):
    """A try that does not come to its end, with these items alone in hand one after the other."""
    journal = CrashJournal(folder, 7)
    journal.begin()
    for position in positions:
        journal.try_alone(position)
    return journal


def test_items_of_a_block_go_alone_after_deaths_in_a_group(tmp_path):
    for _ in range(DEATHS_IN_GROUP):
        assert not tried(tmp_path).must_go_alone
    assert tried(tmp_path).must_go_alone
    assert not CrashJournal(tmp_path, 8).must_go_alone


def test_the_last_item_of_a_try_is_charged_with_its_death(tmp_path):
    tried(tmp_path)
    tried(tmp_path)
    tried(tmp_path, 0, 1, 2)
    tried(tmp_path, 0, 1, 2)
    tried(tmp_path, 0)
    journal = tried(tmp_path)
    assert [journal.deaths_with(position) for position in range(4)] == [1, 0, 2, 0]
