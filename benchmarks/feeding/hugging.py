"""Hugging Face `datasets` streaming Parquet, tokenised in batches of 1,000 in a DataLoader's workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import datasets

from feeding.case import Case
from feeding.meter import Batches
from feeding.tokens import Tokens
from feeding.torch_parquet import loader

__all__ = ["epochs", "runtime"]

runtime = nullcontext


class _Tokenise:
    def __init__(self, case: Case) -> None:
        self._tokens = Tokens(case)

    def __call__(self, texts: list[str]) -> dict[str, Any]:
        return {"ids": self._tokens.ids(texts)}


class _Collate:
    def __init__(self, case: Case) -> None:
        self._tokens = Tokens(case)

    def __call__(self, samples: list[dict[str, Any]]) -> Any:
        return self._tokens.padded([one["ids"] for one in samples], [one["label"] for one in samples])


def epochs(case: Case) -> Iterator[Batches]:
    """Files in a random order, rows out of a buffer."""
    dataset = (
        datasets.load_dataset(
            "parquet",
            data_files={"train": f"s3://{case.bucket}/rows/train/*.parquet"},
            split="train",
            streaming=True,
            storage_options={"client_kwargs": {"endpoint_url": case.endpoint_url}},
        )
        .shuffle(seed=0, buffer_size=32 * case.batch_size)
        .map(_Tokenise(case), input_columns=["text"], batched=True, batch_size=1000, remove_columns=["text"])
    )
    feed = loader(dataset, case, batch_size=case.batch_size, collate_fn=_Collate(case))
    for number in range(case.passes):
        dataset.set_epoch(number)
        yield iter(feed)
