"""A lock that many hold together, or one alone."""

import threading

from farm.cluster.shared_lock import SharedLock


def test_many_hold_it_together_and_one_alone():
    lock, at_once, most, alone = SharedLock(), [0], [0], []
    met = threading.Barrier(3)

    def share():
        with lock.together():
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
            met.wait(10)
            at_once[0] -= 1

    def take():
        with lock.alone():
            alone.append(at_once[0])

    threads = [threading.Thread(target=share) for _ in range(3)]
    for thread in threads:
        thread.start()
    last = threading.Thread(target=take)
    last.start()
    for thread in [*threads, last]:
        thread.join(10)
    assert most == [3]
    assert alone == [0]


def test_it_is_free_again_after_an_error():
    lock = SharedLock()
    for _ in range(2):
        try:
            with lock.together():
                raise ValueError
        except ValueError:
            pass
        with lock.alone():
            pass
