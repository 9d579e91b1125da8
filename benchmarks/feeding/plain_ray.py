"""Ray Data as its guide shows it: read_parquet, map_batches, and iter_torch_batches anew for each epoch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import ray
import ray.data

from feeding.case import Case
from feeding.meter import Batches
from feeding.tokens import Tokens
from feeding.torch_parquet import filesystem

__all__ = ["epochs", "runtime"]


@contextmanager
def runtime(case: Case) -> Iterator[None]:
    """Ray with one CPU per core."""
    ray.init(
        address="local",
        num_cpus=len(os.sched_getaffinity(0)),
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
    )
    try:
        yield
    finally:
        ray.shutdown()


def epochs(case: Case) -> Iterator[Batches]:
    """Files in a random order, and rows out of a buffer."""
    tokens = Tokens(case)

    def tokenise(rows: pa.Table) -> pa.Table:
        ids = pa.array(tokens.ids(rows["text"].to_pylist()), pa.list_(pa.int32()))
        return pa.table({"ids": ids, "label": rows["label"]})

    def padded(batch: dict[str, Any]) -> Any:
        return tokens.padded(batch["ids"], batch["label"])

    ray.data.DataContext.get_current().enable_progress_bars = False
    read = ray.data.read_parquet(
        f"{case.bucket}/rows/train", filesystem=filesystem(case), columns=["text", "label"], shuffle="files"
    )
    dataset = read.map_batches(tokenise, batch_format="pyarrow")
    for _ in range(case.passes):
        yield iter(
            dataset.iter_torch_batches(
                batch_size=case.batch_size,
                collate_fn=padded,
                local_shuffle_buffer_size=32 * case.batch_size,
                prefetch_batches=2,
            )
        )
