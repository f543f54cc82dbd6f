"""What ended a child, in words: the kernel for want of memory, somebody, or itself."""

import signal

import pytest

from farm.machine import cgroups, child
from farm.machine.child import EXIT_NO_MEMORY
from farm.machine.exit_reasons import OomKills, describe_exit


@pytest.mark.parametrize(
    ("code", "starved", "words"),
    [
        (1, False, "exit code 1"),
        (255, False, "exit code 255"),
        (-signal.SIGSEGV, False, "SIGSEGV"),
        (-signal.SIGKILL, False, "SIGKILL, by somebody or a job system: the kernel counts no kill for want of memory"),
        (-signal.SIGKILL, True, "SIGKILL, by the kernel for want of memory: "),
        (EXIT_NO_MEMORY, False, "MemoryError, not enough memory: "),
        (None, True, "fork server killed, by the kernel for want of memory: "),
        (None, False, "fork server killed, by somebody"),
    ],
)
def test_endings_in_words(code, starved, words):
    said = describe_exit(code, starved)
    assert said.startswith(words)
    assert starved or code == EXIT_NO_MEMORY or said == words


def test_a_kill_for_want_of_memory_explains_what_dies_with_it():
    count = [7]
    kills = OomKills(lambda: count[0])
    assert not kills.killed_lately(100.0), "those before are others'"
    count[0] = 8
    assert kills.killed_lately(101.0)
    assert kills.killed_lately(103.0), "another worker, whose death is noticed a little later"
    assert not kills.killed_lately(200.0)


@pytest.mark.parametrize(("limited", "before", "after"), [(True, "0", "500"), (True, "800", "1000"), (False, "0", "0")])
def test_a_worker_goes_first_where_all_that_can_be_killed_is_the_farms(tmp_path, monkeypatch, limited, before, after):
    score = tmp_path / "oom_score_adj"
    score.write_text(before)
    monkeypatch.setattr(child, "OOM_SCORE", score)
    monkeypatch.setattr(cgroups, "memory_limit", lambda: cgroups.Limit(1 << 30, score) if limited else None)
    child.offer_to_oom_killer()
    assert score.read_text() == after
