"""MosaicML StreamingDataset over MDS shards of texts, tokenised batch by batch in the loader's workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pyarrow import parquet
from streaming import MDSWriter, StreamingDataset

from feeding.case import Case
from feeding.meter import Batches
from feeding.tokens import Tokens
from feeding.torch_parquet import filesystem, loader

__all__ = ["convert", "epochs", "runtime", "streamed", "write_shards"]

runtime = nullcontext
SHARDS = 8


def write_shards(case: Case, name: str, columns: dict[str, str], samples: Any) -> None:
    """Writes the samples that `samples(table)` gives as shards into the bucket; about 8 of them."""
    table = parquet.read_table(f"{case.bucket}/rows/train", filesystem=filesystem(case))
    with MDSWriter(
        out=f"s3://{case.bucket}/{name}", columns=columns, size_limit=max(1 << 16, table.nbytes // SHARDS)
    ) as out:
        for sample in samples(table):
            out.write(sample)


def streamed(case: Case, name: str, collate: Any) -> Iterator[Batches]:
    """The epochs of a dataset in shards; the shards stay on the local disk, as they do by default."""
    dataset = StreamingDataset(
        remote=f"s3://{case.bucket}/{name}",
        local=str(Path(case.scratch, "local")),
        shuffle=True,
        batch_size=case.batch_size,
        num_canonical_nodes=1,
        predownload=32 * case.batch_size,
    )
    feed = loader(dataset, case, batch_size=case.batch_size, collate_fn=collate)
    for _ in range(case.passes):
        yield iter(feed)


def convert(case: Case) -> None:
    """Texts and labels as MDS shards."""
    write_shards(case, "mds", {"text": "str", "label": "str"}, lambda table: table.to_pylist())


class _Collate:
    def __init__(self, case: Case) -> None:
        self._tokens = Tokens(case)

    def __call__(self, samples: list[dict[str, Any]]) -> Any:
        return self._tokens.batch([one["text"] for one in samples], [one["label"] for one in samples])


def epochs(case: Case) -> Iterator[Batches]:
    """The epochs of the texts."""
    return streamed(case, "mds", _Collate(case))
