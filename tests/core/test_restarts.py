"""When deaths are survived, and when they end the run."""

import pytest

from farm.core.restarts import BACKOFF_LIMIT_S, GUILTY_PER_RESTART, INIT_FAILURES, INIT_RETRY_LIMIT_S, RestartPolicy
from farm.errors import CollectorError, ModelError, WorkerError


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


def test_an_image_costs_its_attempts_and_no_back_off():
    policy = RestartPolicy(max_restarts=2)
    for _ in range(100):
        assert policy.died("worker 0", "SIGSEGV", items=[7]) == 0.0
    assert policy.restarts == 100


def test_a_death_that_leaves_several_possible_causes_is_progress():
    policy = RestartPolicy(max_restarts=1)
    for place in range(64):
        assert policy.died(f"worker {place}", "SIGSEGV", items=[2 * place, 2 * place + 1]) == 0.0


def test_what_taught_something_does_not_hide_what_taught_nothing():
    policy = RestartPolicy(max_restarts=2)
    for _ in range(2):
        policy.died("worker 0", "SIGKILL")
        policy.died("worker 0", "SIGSEGV", items=[3])
    with pytest.raises(WorkerError, match="3 processes died in a row"):
        policy.died("worker 0", "SIGKILL")


def guilty_until_the_end(policy):
    """How many different images must kill before the run ends."""
    for seq in range(10_000):
        for _ in range(3):
            try:
                policy.died("worker 0", "SIGSEGV", items=[seq])
            except WorkerError as error:
                assert f"{seq + 1} images in a row killed their process" in str(error)
                assert "limits.max_restarts is 20" in str(error)
                return seq
    return None


def test_a_model_that_dies_of_every_image_ends_the_run_soon():
    assert guilty_until_the_end(RestartPolicy(20)) == 20


def test_a_model_that_has_worked_may_meet_a_folder_of_poison():
    policy = RestartPolicy(20)
    policy.labelled()
    assert guilty_until_the_end(policy) == 20 * GUILTY_PER_RESTART


def test_what_an_earlier_session_labelled_counts_and_is_asked_once():
    asked = []
    policy = RestartPolicy(20, lambda: bool(asked.append(1)) or True)
    assert guilty_until_the_end(policy) == 20 * GUILTY_PER_RESTART
    assert asked == [1]


def test_poison_with_good_images_between_goes_on_for_ever():
    policy = RestartPolicy(1)
    for seq in range(1000):
        policy.died("worker 0", "SIGSEGV", items=[seq])
        policy.labelled()


def test_the_collector_has_an_error_of_its_own():
    policy = RestartPolicy(max_restarts=1)
    policy.died("collector", "SIGKILL")
    with pytest.raises(CollectorError):
        policy.died("collector", "SIGKILL")


NO_MEMORY = WorkerError("RuntimeError: no memory")


def test_three_failed_starts_in_a_row_end_the_run_with_the_workers_own_error():
    policy = RestartPolicy(max_restarts=20)
    policy.init_failed(0, NO_MEMORY, others_work=False)
    policy.init_failed(1, NO_MEMORY, others_work=False)
    policy.ready(2)
    policy.init_failed(0, NO_MEMORY, others_work=True)
    policy.init_failed(1, NO_MEMORY, others_work=True)
    with pytest.raises(WorkerError, match="workers cannot start, 3 in a row failed: RuntimeError: no memory"):
        policy.init_failed(0, NO_MEMORY, others_work=True)


def test_what_cannot_get_better_ends_the_run_at_once():
    policy = RestartPolicy(20)
    policy.ready(0)
    with pytest.raises(ModelError, match="no checkpoint"):
        policy.init_failed(0, ModelError("no checkpoint"), others_work=True)


def test_others_go_on_without_a_worker_that_has_worked_and_cannot_start_again():
    policy = RestartPolicy(max_restarts=1)
    for index in range(3):
        policy.ready(index)
    delays = []
    for failures in range(1, 20):
        policy.init_failed(1, NO_MEMORY, others_work=True)
        assert (1 in policy.missing) == (failures >= INIT_FAILURES)
        delays.append(policy.init_retry_s(1))
    assert delays[:4] == [1.0, 1.0, 1.0, 2.0] and delays[-1] == INIT_RETRY_LIMIT_S
    policy.init_failed(2, NO_MEMORY, others_work=True)
    assert policy.missing == {1: "RuntimeError: no memory"} and policy.init_retry_s(2) == 1.0
    policy.ready(1)
    assert policy.missing == {} and policy.init_retry_s(1) == 1.0


def test_the_last_worker_that_cannot_start_again_ends_the_run():
    policy = RestartPolicy(max_restarts=1)
    policy.ready(0)
    policy.init_failed(0, NO_MEMORY, others_work=False)
    policy.init_failed(0, NO_MEMORY, others_work=False)
    with pytest.raises(WorkerError, match="no memory"):
        policy.init_failed(0, NO_MEMORY, others_work=False)
