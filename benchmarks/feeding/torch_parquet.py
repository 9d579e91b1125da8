"""A torch DataLoader over Parquet: each worker reads its row groups, tokenises each at once and cuts batches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow.fs
import pyarrow.parquet as pq
import torch.utils.data

from feeding.case import Case
from feeding.meter import Batches
from feeding.tokens import Tokens

__all__ = ["RowGroups", "epochs", "filesystem", "loader", "runtime"]

runtime = nullcontext


def filesystem(case: Case) -> pyarrow.fs.S3FileSystem:
    """Arrow's own S3 client."""
    return pyarrow.fs.S3FileSystem(
        access_key=os.environ["AWS_ACCESS_KEY_ID"],
        secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        endpoint_override=urlsplit(case.endpoint_url).netloc,
        scheme="http",
        region="us-east-1",
    )


def loader(dataset: Any, case: Case, **options: Any) -> torch.utils.data.DataLoader[Any]:
    """A DataLoader at its best: its workers stay from epoch to epoch and read ahead."""
    return torch.utils.data.DataLoader(
        dataset, num_workers=case.workers, persistent_workers=True, prefetch_factor=8, **options
    )


class RowGroups(torch.utils.data.IterableDataset[Any]):
    """Row groups in a random order, and the rows of each in a random order; batches come out."""

    def __init__(self, case: Case) -> None:
        self._case, self._tokens, self._epoch = case, Tokens(case), 0

    def __iter__(self) -> Iterator[Any]:
        worker = torch.utils.data.get_worker_info()
        fs = filesystem(self._case)  # opened in the worker: its threads do not survive a fork
        random = np.random.default_rng(self._epoch)
        self._epoch += 1
        files = fs.get_file_info(pyarrow.fs.FileSelector(f"{self._case.bucket}/rows/train"))
        opened = [pq.ParquetFile(fs.open_input_file(file.path), pre_buffer=True) for file in files]
        groups = [(file, group) for file in opened for group in range(file.num_row_groups)]
        order = random.permutation(len(groups))
        for index in order[worker.id :: worker.num_workers]:
            file, group = groups[index]
            yield from self._batches(file.read_row_group(group, columns=["text", "label"]), random)

    def _batches(self, rows: Any, random: np.random.Generator) -> Iterator[Any]:
        rows = rows.take(random.permutation(rows.num_rows))
        ids, labels = self._tokens.ids(rows["text"].to_pylist()), rows["label"].to_pylist()
        for start in range(0, len(ids), self._case.batch_size):
            part = slice(start, start + self._case.batch_size)
            yield self._tokens.padded(ids[part], labels[part])


def epochs(case: Case) -> Iterator[Batches]:
    """One loader for all epochs."""
    feed = loader(RowGroups(case), case, batch_size=None)
    for _ in range(case.passes):
        yield iter(feed)
