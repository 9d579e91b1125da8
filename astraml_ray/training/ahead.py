"""Items made ahead, by a thread, while those before them are used."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

__all__ = ["ahead"]

_AHEAD = 2
_FAREWELL_S = 5.0
T = TypeVar("T")


@contextlib.contextmanager
def ahead(source: Iterable[T]) -> Iterator[Iterator[T]]:
    """The same items, two ahead; an error comes in its place. The thread ends with the block."""
    items: queue.Queue[Any] = queue.Queue(_AHEAD)
    unwanted, end = threading.Event(), object()

    def put(item: Any) -> bool:
        while not unwanted.is_set():
            with contextlib.suppress(queue.Full):
                items.put(item, timeout=0.1)
                return True
        return False

    def make() -> None:
        try:
            for item in source:
                if not put(item):
                    return
            put(end)
        except BaseException as error:
            put(error)

    def take() -> Iterator[T]:
        while (item := items.get()) is not end:
            if isinstance(item, BaseException):
                raise item
            yield item

    thread = threading.Thread(target=make, daemon=True, name="batches")
    thread.start()
    try:
        yield take()
    finally:
        unwanted.set()
        thread.join(_FAREWELL_S)  # it may be waiting for a bucket; then it ends with its next item
