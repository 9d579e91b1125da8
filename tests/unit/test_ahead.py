"""Items made ahead: in their order, no more than two ahead, errors in their place, and no thread left."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice

import pytest

from astraml_ray.training.ahead import ahead


def thread_runs() -> bool:
    return any(thread.name == "batches" for thread in threading.enumerate())


def test_items_come_in_order_and_the_thread_ends() -> None:
    with ahead(range(100)) as items:
        assert list(items) == list(range(100))
    assert not thread_runs()


def test_no_more_than_two_wait() -> None:
    made: list[int] = []
    enough, more = threading.Event(), threading.Event()

    def source() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            if number == 5:
                enough.set()
            if number == 6:
                more.set()
            yield number

    with ahead(source()) as items:
        assert list(islice(items, 3)) == [0, 1, 2]
        assert enough.wait(60)  # two wait, and one is in the hand of the thread
        assert not more.wait(0.3)
        assert made == [0, 1, 2, 3, 4, 5]
    assert not thread_runs()


def test_an_error_comes_after_the_items_before_it() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    with ahead(source()) as items:
        assert next(items) == 1
        with pytest.raises(ValueError, match="broken"):
            next(items)
    assert not thread_runs()


def test_who_leaves_early_leaves_no_thread() -> None:
    with ahead(iter(int, 1)) as items:  # without end
        assert next(items) == 0
    assert not thread_runs()
