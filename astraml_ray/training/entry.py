"""The way into a Ray Train worker: the data is asked for before anything that takes long is imported.

Ray's controller of a run unpickles this function too: what it names at the top, the controller imports as well.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pyarrow as pa
import ray
import ray.train

__all__ = ["enter_worker", "primed"]


def enter_worker(config: dict[str, Any]) -> None:
    """Ray Train's function.

    Args:
        config: `assignment`, an Assignment in the object store.
    """
    shard = ray.train.get_dataset_shard("train")
    tables = primed(iter(shard.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2)))
    assignment = ray.get(config["assignment"])  # imports transformers
    from astraml_ray.training.worker import train_worker

    train_worker(assignment, tables)


def primed(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same tables, the first of which is asked for now, in a thread."""
    first: Future[pa.Table | None] = Future()

    def ask() -> None:
        try:
            first.set_result(next(tables, None))
        except BaseException as error:
            first.set_exception(error)

    threading.Thread(target=ask, daemon=True, name="first table").start()
    return _after(first, tables)


def _after(first: Future[pa.Table | None], tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    table = first.result()
    if table is not None:
        yield table
        yield from tables
