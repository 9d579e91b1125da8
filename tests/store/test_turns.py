"""First come, first served."""

from __future__ import annotations

import threading
import time

import pytest

from astraml_ray.store.turns import Turns


def waiting(turns: Turns, count: int) -> None:
    deadline = time.monotonic() + 10
    while len(turns._waiting) < count and time.monotonic() < deadline:
        time.sleep(0.001)
    assert len(turns._waiting) == count


def test_turns_are_served_in_order() -> None:
    turns, order = Turns(), []
    assert turns.acquire(1)

    def work(number: int) -> None:
        assert turns.acquire(10)
        order.append(number)
        turns.release()

    threads = []
    for number in range(20):
        threads.append(threading.Thread(target=work, args=(number,)))
        threads[-1].start()
        waiting(turns, number + 1)
    turns.release()
    for thread in threads:
        thread.join()
    assert order == list(range(20))
    assert turns.acquire(0)


def test_one_who_gives_up_is_passed_over() -> None:
    turns, served = Turns(), []
    assert turns.acquire(1)
    impatient = threading.Thread(target=lambda: served.append(("impatient", turns.acquire(0.01))))
    impatient.start()
    impatient.join()

    def patient() -> None:
        served.append(("patient", turns.acquire(10)))
        turns.release()

    thread = threading.Thread(target=patient)
    thread.start()
    waiting(turns, 1)
    turns.release()
    thread.join()
    assert served == [("impatient", False), ("patient", True)]
    assert turns.acquire(0)


def test_nobody_waits_for_himself() -> None:
    turns = Turns()
    assert turns.acquire(1)
    with pytest.raises(RuntimeError):
        turns.acquire(1)
    turns.release()
    assert turns.acquire(0)


def test_holders_exclude_each_other_whatever_the_timeouts() -> None:
    turns, inside, most = Turns(), 0, 0

    def work() -> None:
        nonlocal inside, most
        for number in range(200):
            if turns.acquire(0.0002 * (number % 3)):
                inside += 1
                most = max(most, inside)
                inside -= 1
                turns.release()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert turns.acquire(0)
