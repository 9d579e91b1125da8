"""From texts, or pairs of them, and labels to token ids, with the `tokenizers` library alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Encoding

from astraml_ray.data.augmentation.draws import Lexicon, Means
from astraml_ray.data.augmentation.texts import text_sides
from astraml_ray.data.encoding.masks import mask_tokens
from astraml_ray.data.encoding.sequences import SEQUENCES, lists_of, sequence_table, sequences, tokenizer_of
from astraml_ray.spec.augmentation import Augmentation

__all__ = ["SEQUENCES", "TextEncoder", "TextTask"]

TextTask = Literal["text-classification", "text-regression", "causal-lm", "masked-lm"]


@dataclass(frozen=True)
class TextEncoder:
    """Encodes texts; see encoder.Encoder.

    Attributes:
        tokenizer: The tokenizer's JSON.
        task: What the labels are.
        max_length: Tokens of a sequence at most, special tokens included. A longer row is cut off in
            text-classification and text-regression, and becomes several sequences in the language-model tasks. Of a
            pair, the longer text is cut, token by token.
        classes: The class names, in the order of their ids.
        mask_token: What stands for a masked word; the unknown token where there is no mask.
        mask_probability: Share of tokens to predict in masked-lm.
        unknown_token: What stands for a dropped word.
        segments: The model is told which text of a pair a token is of.
        lexicons: Of the augmentations, by URI.
    """

    tokenizer: str
    task: TextTask
    max_length: int
    classes: tuple[str, ...] = ()
    mask_token: str = ""
    mask_probability: float = 0.15
    unknown_token: str = ""
    segments: bool = False
    lexicons: Mapping[str, Lexicon] = field(default_factory=dict)

    @property
    def schema(self) -> pa.Schema:
        return sequences(pa.float64() if self.task == "text-regression" else pa.int32(), segments=self.segments)

    @property
    def row_bytes(self) -> int:
        return 0

    def encode(
        self,
        rows: pa.Table,
        positions: npt.NDArray[np.int64],
        keys: npt.NDArray[np.uint64],
        augmentations: Sequence[Augmentation] = (),
    ) -> pa.Table:
        return self.masked(self.tokenised(rows, positions, keys, augmentations), keys)

    def tokenised(
        self,
        rows: pa.Table,
        positions: npt.NDArray[np.int64],
        keys: npt.NDArray[np.uint64],
        augmentations: Sequence[Augmentation] = (),
    ) -> pa.Table:
        """As encode, before anything is masked: for masked-lm the labels are 1 where a token is special, else 0."""
        content = self._content(rows, keys, augmentations)
        encodings = tokenizer_of(self.tokenizer, self.max_length).encode_batch(content)
        if self.task in ("text-classification", "text-regression"):
            inputs = [encoding.ids for encoding in encodings]
            segments = [encoding.type_ids for encoding in encodings] if self.segments else None
            alone = [[ids] for ids in inputs]
            return sequence_table(self.schema, positions, alone, inputs, self._targets(rows), segments)
        parts = [[part.ids for part in _parts(encoding)] for encoding in encodings]
        flat = [[token for part in row for token in part] for row in parts]
        if self.task == "causal-lm":
            return sequence_table(self.schema, positions, parts, flat, flat)
        special = [[mark for part in _parts(one) for mark in part.special_tokens_mask] for one in encodings]
        return sequence_table(self.schema, positions, parts, flat, special)

    def masked(self, table: pa.Table, keys: npt.NDArray[np.uint64]) -> pa.Table:
        """Masks tokenised rows, a pure function of them and their keys; without masked-lm they stay as they are."""
        if self.task != "masked-lm":
            return table
        tokenizer = tokenizer_of(self.tokenizer, self.max_length)
        mask_id = tokenizer.token_to_id(self.mask_token)
        assert mask_id is not None, "preparation refuses masked-lm without a mask token"
        ids, special = (table[name].combine_chunks() for name in ("input_ids", "labels"))
        made = [
            mask_tokens(row, marks != 0, key, self.mask_probability, mask_id, tokenizer.get_vocab_size())
            for row, marks, key in zip(_rows(ids), _rows(special), keys, strict=True)
        ]
        inputs, targets = ([one[side] for one in made] for side in (0, 1))
        columns = {"input_ids": inputs, "labels": targets}
        for name, values in columns.items():
            place = table.schema.get_field_index(name)
            table = table.set_column(place, table.schema.field(name), lists_of(values, pa.int32()))
        return table

    def lengths(self, rows: pa.Table) -> list[int]:
        """Tokens of each row before it is cut."""
        encodings = tokenizer_of(self.tokenizer, None).encode_batch(self._content(rows, np.zeros(0, np.uint64)))
        return [len(encoding.ids) for encoding in encodings]

    def _content(
        self,
        rows: pa.Table,
        keys: npt.NDArray[np.uint64],
        augmentations: Sequence[Augmentation] = (),
    ) -> list[Any]:
        means = Means(self.mask_token, self.unknown_token, self.lexicons)
        sides = text_sides(rows, keys, augmentations, means)
        return sides[0] if len(sides) == 1 else list(zip(*sides, strict=True))

    def _targets(self, rows: pa.Table) -> list[list[Any]]:
        labels = rows["label"].to_pylist()
        if self.task == "text-regression":
            return [[label] for label in labels]
        ids = {name: index for index, name in enumerate(self.classes)}
        return [[ids[label]] for label in labels]


def _parts(encoding: Encoding) -> list[Encoding]:
    """The sequences of a row: what is beyond the first one's end follows in others."""
    return [encoding, *encoding.overflowing]


def _rows(lists: pa.ListArray) -> list[npt.NDArray[np.int32]]:
    """The numbers of each row."""
    flat, ends = lists.flatten().to_numpy(zero_copy_only=False), np.cumsum(lists.value_lengths().to_numpy())
    return np.split(flat, ends[:-1]) if len(ends) else []
