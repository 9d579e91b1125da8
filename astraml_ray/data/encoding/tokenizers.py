"""Tokenizers trained from scratch on the dataset's texts, the same at every run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

__all__ = ["train_tokenizer"]

_MAX_LETTERS = 1000


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
