"""From words and their tags to token ids, with the `tokenizers` library alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Encoding, Tokenizer

from astraml_ray.data.augmentation.draws import Lexicon, Means
from astraml_ray.data.augmentation.texts import augment_words
from astraml_ray.data.encoding.schema import IGNORED
from astraml_ray.data.encoding.sequences import SEQUENCES, sequence_table, tokenizer_of
from astraml_ray.spec.augmentation import Augmentation

__all__ = ["WordEncoder", "separate_words"]


@dataclass(frozen=True)
class WordEncoder:
    """Encodes rows of words for token-classification; see encoder.Encoder.

    A word's tag is the label of its first token; its other tokens and the special ones have none. A word that gives no
    token (an empty one) and those beyond `max_length` are no targets.

    Attributes:
        tokenizer: The tokenizer's JSON; see separate_words.
        max_length: Tokens of a row at most, special tokens included; a longer one is cut off.
        tags: The tags, in the order of their ids.
        mask_token: What stands for a masked word; the unknown token where there is no mask.
        unknown_token: What stands for a dropped word.
        lexicons: Of the augmentations, by URI.
    """

    tokenizer: str
    max_length: int
    tags: tuple[str, ...]
    mask_token: str = ""
    unknown_token: str = ""
    lexicons: Mapping[str, Lexicon] = field(default_factory=dict)

    @property
    def schema(self) -> pa.Schema:
        return SEQUENCES

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
        words = rows["tokens"].to_pylist()
        if augmentations:
            means = Means(self.mask_token, self.unknown_token, self.lexicons)
            words = augment_words(words, keys, augmentations, means)
        ids = {tag: index for index, tag in enumerate(self.tags)}
        encodings = tokenizer_of(self.tokenizer, self.max_length).encode_batch(words, is_pretokenized=True)
        tags = [[ids[tag] for tag in row] for row in rows["label"].to_pylist()]
        labels = [_labels(encoding, row) for encoding, row in zip(encodings, tags, strict=True)]
        inputs = [encoding.ids for encoding in encodings]
        return sequence_table(SEQUENCES, positions, [[row] for row in inputs], inputs, labels)

    def lengths(self, rows: pa.Table) -> list[int]:
        """Tokens of each row before it is cut."""
        tokenizer = tokenizer_of(self.tokenizer, None)
        return [len(one.ids) for one in tokenizer.encode_batch(rows["tokens"].to_pylist(), is_pretokenized=True)]


def _labels(encoding: Encoding, tags: Sequence[int]) -> list[int]:
    labels, before = [], None
    for word in encoding.word_ids:
        labels.append(IGNORED if word is None or word == before else tags[word])
        before = word
    return labels


def separate_words(tokenizer: Tokenizer) -> None:
    """Changes a tokenizer so that words given one by one become the tokens that they are in a text.

    A byte-level one (GPT-2, RoBERTa) takes a space to be part of a word, so each word gets one.
    """
    plain: dict[str, Any] = json.loads(tokenizer.to_str())
    before = plain.get("pre_tokenizer") or {}
    byte_level = [s for s in [before, *before.get("pretokenizers", [])] if s.get("type") == "ByteLevel"]
    if byte_level:
        for step in byte_level:
            step["add_prefix_space"] = True
        tokenizer.pre_tokenizer = Tokenizer.from_str(json.dumps(plain)).pre_tokenizer
