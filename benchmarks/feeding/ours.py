"""What both of our arms share: the rows of the bucket as a reader, and tables as tensors."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from astraml_ray.data.blocks import BlockReader
from astraml_ray.data.encoding.text import TextEncoder
from astraml_ray.data.kept_tokens import TokenKeep
from astraml_ray.data.microbatches import MicroBatch, micro_batches
from astraml_ray.data.prepare import build_manifest
from astraml_ray.spec.dataset import DatasetSpec
from astraml_ray.training.ahead import ahead
from astraml_ray.training.batching import Cut, collate
from feeding.case import Case
from feeding.meter import Batches
from feeding.tokens import PAD

__all__ = ["fed", "reader_of"]


def reader_of(case: Case) -> BlockReader:
    """Lists and scans the bucket, as a run does before it starts."""
    rows = f"s3://{case.bucket}/rows"
    spec = DatasetSpec(train=f"{rows}/train", validation=f"{rows}/validation")
    manifest = build_manifest(spec, task="text-classification", cache=Path(case.scratch, "cache"))
    encoder = TextEncoder(
        Path(case.tokenizer).read_text(), "text-classification", case.max_length, manifest.labels, unknown_token="[UNK]"
    )
    keep = TokenKeep(Path(case.scratch, "tokens"))  # as in every run of more than one epoch
    return BlockReader(manifest, manifest.splits["train"], encoder, 0, case.batch_size, 1, keep=keep)


def fed(case: Case, reader: BlockReader, tables: Iterable[pa.Table]) -> Iterator[Batches]:
    """Tables of the stream as the worker takes them, epoch by epoch."""
    batches = micro_batches(
        tables,
        schema=reader.encoder.schema,
        rows_per_epoch=reader.split.total_rows,
        batch_size=case.batch_size,
        epochs=case.passes,
    )
    with ahead(_tensors(batches)) as tensors:  # as the train loop does
        for _, of_epoch in itertools.groupby(tensors, key=lambda made: made[0]):
            yield ((ids, labels) for _, ids, labels in of_epoch)


def _tensors(batches: Iterator[MicroBatch]) -> Iterator[tuple[int, Any, Any]]:
    whole = Cut(overhead=1 << 30, most=1 << 30)  # one padded tensor per batch, as the peers make
    for micro in batches:
        (batch,) = collate(micro.table, whole, per_token=False, pad_id=PAD)
        yield micro.epoch, batch.inputs["input_ids"], batch.labels
