"""From texts and labels to token ids, with the `tokenizers` library alone: no torch in a data task."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from astraml_ray.data.keyed import uniforms

__all__ = ["ENCODED_SCHEMA", "IGNORED", "Encoder", "encode_rows", "train_tokenizer"]

IGNORED = -100
"""The label of a token that is no target, as in torch.nn.functional.cross_entropy."""

ENCODED_SCHEMA = pa.schema(
    [
        ("position", pa.int64()),  # in the epoch's global order; -1 fills a block up
        ("lengths", pa.list_(pa.int32())),  # tokens of each sequence of the row
        ("input_ids", pa.list_(pa.int32())),  # the sequences, one after the other
        ("labels", pa.list_(pa.int32())),  # one class, or one id per token
    ]
)
_MASK_STREAM = 1 << 20
_MAX_LETTERS = 1000


@dataclass(frozen=True)
class Encoder:
    """Everything needed to encode a row; plain data.

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
    task: Literal["text-classification", "causal-lm", "masked-lm"]
    max_length: int
    classes: tuple[str, ...] = ()
    mask_token: str = ""
    mask_probability: float = 0.15


@lru_cache(maxsize=4)
def _tokenizer(text: str, max_length: int) -> Tokenizer:
    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer


def encode_rows(
    encoder: Encoder,
    texts: Sequence[str],
    labels: Sequence[str] | None,
    positions: npt.NDArray[np.int64],
    keys: npt.NDArray[np.uint64],
) -> pa.Table:
    """Encodes rows.

    Args:
        encoder: What to encode with.
        texts: One per row.
        labels: The class of each row, in text-classification.
        positions: Each row's position in the epoch.
        keys: Each row's key; masked-lm draws its masks from it.

    Returns:
        A table of ENCODED_SCHEMA.
    """
    tokenizer = _tokenizer(encoder.tokenizer, encoder.max_length)
    encodings = tokenizer.encode_batch(list(texts))
    if encoder.task == "text-classification":
        sequences = [[encoding.ids] for encoding in encodings]
        ids = {name: index for index, name in enumerate(encoder.classes)}
        targets = [[ids[label]] for label in labels or ()]
        return _table(positions, sequences, [s[0] for s in sequences], targets)
    sequences = [[e.ids, *(more.ids for more in e.overflowing)] for e in encodings]
    flat = [[token for part in row for token in part] for row in sequences]
    if encoder.task == "causal-lm":
        return _table(positions, sequences, flat, flat)
    special = [
        np.array([m for e in (first, *first.overflowing) for m in e.special_tokens_mask], bool) for first in encodings
    ]
    mask_id = tokenizer.token_to_id(encoder.mask_token)
    assert mask_id is not None, "preparation refuses masked-lm without a mask token"
    size = tokenizer.get_vocab_size()
    masked = [
        _mask(np.array(ids, np.int32), fixed, key, encoder.mask_probability, mask_id, size)
        for ids, fixed, key in zip(flat, special, keys, strict=True)
    ]
    return _table(positions, sequences, [m[0] for m in masked], [m[1] for m in masked])


def _mask(
    ids: npt.NDArray[np.int32], special: npt.NDArray[np.bool_], key: np.uint64, share: float, mask_id: int, size: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """BERT's masking: of the chosen tokens 80 % are masked, 10 % replaced, 10 % kept; at least one is chosen."""
    chosen_draw, kind, replacement = uniforms(key, 3 * len(ids), _MASK_STREAM).reshape(3, -1)
    chosen = (chosen_draw < share) & ~special
    if not chosen.any() and not special.all():
        chosen[np.where(special, 2.0, chosen_draw).argmin()] = True
    labels = np.where(chosen, ids, IGNORED).astype(np.int32)
    noisy = np.where(chosen & (kind < 0.8), mask_id, ids)
    noisy = np.where(chosen & (kind >= 0.9), (replacement * size).astype(np.int64), noisy)
    return noisy.astype(np.int32), labels


def _table(
    positions: npt.NDArray[np.int64],
    sequences: Sequence[Sequence[Sequence[int]]],
    ids: Sequence[Any],
    labels: Sequence[Any],
) -> pa.Table:
    lengths = [[len(part) for part in row] for row in sequences]
    columns = [pa.array(positions, pa.int64()), *(_lists(values) for values in (lengths, ids, labels))]
    return pa.table(columns, schema=ENCODED_SCHEMA)


def _lists(rows: Sequence[Any]) -> pa.ListArray:
    offsets = np.zeros(len(rows) + 1, np.int32)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    flat = np.concatenate([np.asarray(row, np.int32) for row in rows]) if rows else np.zeros(0, np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))


def train_tokenizer(texts: Sequence[str], *, kind: Literal["wordpiece", "bpe"], vocab_size: int) -> str:
    """Trains a tokenizer on texts: BERT's WordPiece (lower case) or GPT-2's byte-level BPE.

    Returns:
        The tokenizer's JSON.
    """
    if kind == "wordpiece":
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        alphabet = _alphabet(tokenizer, texts)
        # The trainer numbers word-inner letters in the order of a hash map; given to it beforehand, they are the
        # same at every run, and so are the merges, whose ties go by number.
        inner = [f"##{letter}" for letter in alphabet]
        trainer = trainers.WordPieceTrainer(
            vocab_size=max(vocab_size, len(special) + 2 * len(alphabet)),
            special_tokens=special + inner,
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        tokenizer = _with_model(tokenizer, models.WordPiece(vocab=tokenizer.get_vocab(), unk_token="[UNK]"), special)
        ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
        )
        return json.dumps(json.loads(tokenizer.to_str()))
    end = "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=[end], initial_alphabet=sorted(alphabet), show_progress=False
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A $B {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    return json.dumps(json.loads(tokenizer.to_str()))


def _alphabet(tokenizer: Tokenizer, texts: Sequence[str]) -> list[str]:
    """The letters of the normalised texts, the 1,000 most frequent ones, in a fixed order."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(tokenizer.normalizer.normalize_str(text))
    letters = [letter for letter in counts if not letter.isspace()]
    return sorted(sorted(letters, key=lambda letter: (-counts[letter], letter))[:_MAX_LETTERS])


def _with_model(trained: Tokenizer, model: models.Model, special: list[str]) -> Tokenizer:
    """The trained vocabulary in a tokenizer that knows only the real special tokens as such."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer, tokenizer.pre_tokenizer = trained.normalizer, trained.pre_tokenizer
    tokenizer.decoder = trained.decoder
    tokenizer.add_special_tokens(special)
    return tokenizer
