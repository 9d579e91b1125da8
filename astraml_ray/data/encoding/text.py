"""From texts and labels to token ids, with the `tokenizers` library alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Encoding, Tokenizer

from astraml_ray.data.augmentation import augment_texts
from astraml_ray.data.encoding.masks import mask_tokens
from astraml_ray.data.encoding.schema import HEAD, head
from astraml_ray.spec.augmentation import Augmentation

__all__ = ["SEQUENCES", "TextEncoder", "TextTask"]

TextTask = Literal["text-classification", "causal-lm", "masked-lm"]
SEQUENCES = pa.schema(
    [
        *HEAD,
        ("lengths", pa.list_(pa.int32())),  # tokens of each sequence of the row
        ("input_ids", pa.list_(pa.int32())),  # the sequences, one after the other
        ("labels", pa.list_(pa.int32())),  # one class, or one id per token
    ]
)


@dataclass(frozen=True)
class TextEncoder:
    """Encodes texts; see encoder.Encoder.

    Attributes:
        tokenizer: The tokenizer's JSON.
        task: What the labels are.
        max_length: Tokens of a sequence at most, special tokens included. A longer row is cut off in
            text-classification, and becomes several sequences in the language-model tasks.
        classes: The class names, in the order of their ids.
        mask_token: What stands for a masked word; the unknown token where there is no mask.
        mask_probability: Share of tokens to predict in masked-lm.
    """

    tokenizer: str
    task: TextTask
    max_length: int
    classes: tuple[str, ...] = ()
    mask_token: str = ""
    mask_probability: float = 0.15

    @property
    def schema(self) -> pa.Schema:
        return SEQUENCES

    def encode(
        self,
        rows: pa.Table,
        positions: npt.NDArray[np.int64],
        keys: npt.NDArray[np.uint64],
        augmentations: Sequence[Augmentation] = (),
    ) -> pa.Table:
        texts = rows["text"].to_pylist()
        if augmentations:
            texts = augment_texts(texts, keys, augmentations, mask=self.mask_token)
        encodings = _tokenizer(self.tokenizer, self.max_length).encode_batch(texts)
        if self.task == "text-classification":
            ids = {name: index for index, name in enumerate(self.classes)}
            targets = [[ids[label]] for label in rows["label"].to_pylist()]
            return _table(positions, [[encoding.ids] for encoding in encodings], [e.ids for e in encodings], targets)
        sequences = [[part.ids for part in _parts(encoding)] for encoding in encodings]
        flat = [[token for part in row for token in part] for row in sequences]
        if self.task == "causal-lm":
            return _table(positions, sequences, flat, flat)
        inputs, targets = self._masked(encodings, flat, keys)
        return _table(positions, sequences, inputs, targets)

    def _masked(
        self, encodings: Sequence[Encoding], flat: Sequence[list[int]], keys: npt.NDArray[np.uint64]
    ) -> tuple[list[Any], list[Any]]:
        tokenizer = _tokenizer(self.tokenizer, self.max_length)
        mask_id = tokenizer.token_to_id(self.mask_token)
        assert mask_id is not None, "preparation refuses masked-lm without a mask token"
        inputs, targets = [], []
        for encoding, ids, key in zip(encodings, flat, keys, strict=True):
            special = np.array([mark for part in _parts(encoding) for mark in part.special_tokens_mask], bool)
            noisy, labels = mask_tokens(
                np.array(ids, np.int32), special, key, self.mask_probability, mask_id, tokenizer.get_vocab_size()
            )
            inputs.append(noisy)
            targets.append(labels)
        return inputs, targets


@lru_cache(maxsize=4)
def _tokenizer(text: str, max_length: int) -> Tokenizer:
    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer


def _parts(encoding: Encoding) -> list[Encoding]:
    """The sequences of a row: what is beyond the first one's end follows in others."""
    return [encoding, *encoding.overflowing]


def _table(
    positions: npt.NDArray[np.int64], sequences: Sequence[Sequence[Sequence[int]]], inputs: Any, targets: Any
) -> pa.Table:
    lengths = [[len(part) for part in row] for row in sequences]
    columns = [_lists(values) for values in (lengths, inputs, targets)]
    return pa.table([*head(positions), *columns], schema=SEQUENCES)


def _lists(rows: Sequence[Any]) -> pa.ListArray:
    offsets = np.zeros(len(rows) + 1, np.int32)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    flat = np.concatenate([np.asarray(row, np.int32) for row in rows]) if rows else np.zeros(0, np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))
