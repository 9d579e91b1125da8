"""What augmentation makes of training rows: the first ones of an epoch, before and after."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from astraml_ray.data.augmentation.draws import Means
from astraml_ray.data.augmentation.texts import augment_words, text_sides
from astraml_ray.data.blocks import rows_of_block, rows_with_partners
from astraml_ray.data.keyed import row_keys
from astraml_ray.data.manifest import Manifest
from astraml_ray.data.plan import permutation, run_blocks
from astraml_ray.data.sampling import Sampler
from astraml_ray.data.translation.candidates import Translate, beside, translated
from astraml_ray.spec.augmentation import Augmentation

__all__ = ["Pair", "Piece", "mark_changes", "preview"]

Piece = tuple[str, bool]
"""Words of a text, and whether they are in this one only."""


@dataclass(frozen=True)
class Pair:
    """A row before and after.

    Attributes:
        position: In the epoch's global order.
        before: Its text in the dataset, or its words where they have tags.
        after: What is trained on.
        before_pair: Its second text, where it has two.
        after_pair: What of that is trained on.
        tags: Of each word.
    """

    position: int
    before: str | list[str]
    after: str | list[str]
    before_pair: str | None = None
    after_pair: str | None = None
    tags: list[str] | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON data; what the row does not have is left out."""
        return {name: value for name, value in vars(self).items() if value is not None}


def preview(
    manifest: Manifest,
    augmentations: Sequence[Augmentation],
    *,
    seed: int,
    rows: int,
    means: Means,
    sampler: Sampler | None = None,
    translate: Translate | None = None,
) -> Iterator[Pair]:
    """The first rows of epoch 0, as a run with this seed trains on them, whatever its workers and batches.

    Args:
        manifest: The dataset, of texts, pairs of texts, or words.
        augmentations: From the spec.
        seed: Of the run.
        rows: How many.
        means: What augmentations take besides.
        sampler: Draws the rows, where classes are sampled.
        translate: Gives texts that may stand for those of the rows, where an augmentation takes them.
    """
    split = manifest.splits["train"]
    for block in run_blocks(split.rows, split.sizes, seed=seed, epochs=1, sampler=sampler):
        own = np.arange(min(block.rows, rows - block.start), dtype=np.int64)
        if len(own) < 1:
            return
        table, drawn = rows_of_block(manifest, split, block, sampler)
        keys = row_keys(seed, block.epoch, own + block.start)
        chosen, _ = rows_with_partners(table, drawn[permutation(block, seed)], own, keys, augmentations)
        if translate is not None:
            chosen = beside(chosen, translated(chosen, translate))
        yield from _pairs(chosen, keys, augmentations, means, block.start)


def _pairs(rows: pa.Table, keys: Any, augmentations: Sequence[Augmentation], means: Means, start: int) -> list[Pair]:
    if "tokens" in rows.column_names:
        before, tags = rows["tokens"].to_pylist(), rows["label"].to_pylist()
        after = augment_words(before, keys, augmentations, means)
        return [Pair(start + i, *row[:2], tags=row[2]) for i, row in enumerate(zip(before, after, tags, strict=True))]
    old, new = text_sides(rows, keys, (), means), text_sides(rows, keys, augmentations, means)
    sides = zip(*(side for both in zip(old, new, strict=True) for side in both), strict=True)
    return [Pair(start + i, *row) for i, row in enumerate(sides)]


def mark_changes(before: str, after: str, *, most_words: int = 400) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces, word by word, with a single space between words.

    Args:
        before: A text.
        after: Another.
        most_words: Longer texts are cut there, with an ellipsis.

    Returns:
        The pieces of the first, where True is what went, and of the second, where True is what came.
    """
    old, new = _words(before, most_words), _words(after, most_words)
    gone: list[Piece] = []
    come: list[Piece] = []
    for change, i, j, k, m in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        for pieces, words in ((gone, old[i:j]), (come, new[k:m])):
            if words:
                pieces.append((" ".join(words), change != "equal"))
    return gone, come


def _words(text: str, most: int) -> list[str]:
    words = text.split(None, most)
    return [*words[:most], "…"] if len(words) > most else words
