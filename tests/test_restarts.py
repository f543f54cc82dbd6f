"""When deaths are survived, and when they end the run."""

import pytest

from farm.errors import CollectorError, ModelError, WorkerError
from farm.restarts import BACKOFF_LIMIT_S, RestartPolicy


def test_deaths_with_images_between_go_on_for_ever():
    policy = RestartPolicy(max_restarts=2)
    for _ in range(1000):
        assert policy.died("worker 0", "SIGKILL") == 0.0
        policy.labelled()
    assert policy.restarts == 1000


def test_deaths_in_a_row_wait_longer_and_end_in_an_error_that_says_why():
    policy = RestartPolicy(max_restarts=12)
    delays = [policy.died("worker 1", "SIGSEGV") for _ in range(12)]
    assert delays == sorted(delays)
    assert delays[0] == 0.0
    assert delays[-1] == BACKOFF_LIMIT_S
    with pytest.raises(WorkerError, match=r"13 processes died.*worker 1: SIGSEGV"):
        policy.died("worker 1", "SIGSEGV")


def test_the_collector_has_an_error_of_its_own():
    with pytest.raises(CollectorError):
        policy = RestartPolicy(max_restarts=1)
        policy.died("collector", "SIGKILL")
        policy.died("collector", "SIGKILL")


def test_three_failed_starts_in_a_row_end_the_run_with_the_workers_own_error():
    policy = RestartPolicy(max_restarts=20)
    policy.init_failed("RuntimeError", "no memory", permanent=False)
    policy.init_failed("RuntimeError", "no memory", permanent=False)
    policy.ready()
    policy.init_failed("RuntimeError", "no memory", permanent=False)
    policy.init_failed("RuntimeError", "no memory", permanent=False)
    with pytest.raises(WorkerError, match="RuntimeError: no memory"):
        policy.init_failed("RuntimeError", "no memory", permanent=False)


def test_what_cannot_get_better_ends_the_run_at_once():
    with pytest.raises(ModelError, match="no checkpoint"):
        RestartPolicy(20).init_failed("ModelError", "no checkpoint", permanent=True)
