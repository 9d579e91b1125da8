"""MosaicML StreamingDataset over MDS shards of token ids: tokenised once, which counts as conversion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from feeding.case import Case
from feeding.meter import Batches
from feeding.mosaic import runtime, streamed, write_shards
from feeding.tokens import Tokens

__all__ = ["convert", "epochs", "runtime"]


def convert(case: Case) -> None:
    """Token ids and labels as MDS shards."""
    tokens = Tokens(case)

    def samples(table: pa.Table) -> Iterator[dict[str, Any]]:
        for part in table.to_batches(max_chunksize=1000):
            ids = tokens.ids(part["text"].to_pylist())
            for one, label in zip(ids, part["label"].to_pylist(), strict=True):
                yield {"ids": np.array(one, np.int32), "label": label}

    write_shards(case, "mds-tokens", {"ids": "ndarray:int32", "label": "str"}, samples)


class _Collate:
    def __init__(self, case: Case) -> None:
        self._tokens = Tokens(case)

    def __call__(self, samples: list[dict[str, Any]]) -> Any:
        return self._tokens.padded([one["ids"] for one in samples], [one["label"] for one in samples])


def epochs(case: Case) -> Iterator[Batches]:
    """The epochs of the token ids."""
    return streamed(case, "mds-tokens", _Collate(case))
