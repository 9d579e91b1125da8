"""WebDataset over tar shards in the bucket: one JSON file per row, tokenised batch by batch in the loader's workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import boto3
import webdataset as wds
from pyarrow import parquet

from feeding.case import Case
from feeding.meter import Batches
from feeding.tokens import Tokens
from feeding.torch_parquet import filesystem

__all__ = ["convert", "epochs", "runtime"]

runtime = nullcontext
SHARDS = 8


def _key(number: int) -> str:
    return f"tars/{number:06}.tar"


def convert(case: Case) -> None:
    """Every row as a file of a tar."""
    fs = filesystem(case)
    rows = parquet.read_table(f"{case.bucket}/rows/train", filesystem=fs).to_pylist()
    each = -(-len(rows) // SHARDS)
    for number in range(SHARDS):
        with fs.open_output_stream(f"{case.bucket}/{_key(number)}") as file, wds.TarWriter(file) as out:
            for place, row in enumerate(rows[number * each : (number + 1) * each]):
                out.write({"__key__": f"{number * each + place:09}", "json": row})


def _open(url: str, *_: Any, endpoint_url: str, **__: Any) -> Any:
    """The object as a file: a request in this process, not a program started for each shard."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return boto3.client("s3", endpoint_url=endpoint_url).get_object(Bucket=bucket, Key=key)["Body"]


def _texts(sample: dict[str, Any]) -> tuple[str, str]:
    row = json.loads(sample["json"])
    return row["text"], row["label"]


class _Collate:
    def __init__(self, case: Case) -> None:
        self._tokens = Tokens(case)

    def __call__(self, samples: list[tuple[str, str]]) -> Any:
        texts, labels = zip(*samples, strict=True)
        return self._tokens.batch(texts, labels)


def epochs(case: Case) -> Iterator[Batches]:
    """Shards in a random order, rows out of a buffer, batches made in the workers."""
    wds.gopen_schemes["s3"] = partial(_open, endpoint_url=case.endpoint_url)
    urls = [f"s3://{case.bucket}/{_key(number)}" for number in range(SHARDS)]
    dataset = (
        wds.WebDataset(urls, shardshuffle=SHARDS, workersplitter=wds.split_by_worker)
        .shuffle(32 * case.batch_size)
        .map(_texts)
        .batched(case.batch_size, collation_fn=_Collate(case), partial=True)
    )
    feed = wds.WebLoader(dataset, batch_size=None, num_workers=case.workers, persistent_workers=True, prefetch_factor=8)
    for _ in range(case.passes):
        yield iter(feed)
