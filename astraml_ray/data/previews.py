"""What augmentation makes of training rows: the first ones of an epoch, before and after."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from astraml_ray.data.augmentation.draws import Means
from astraml_ray.data.augmentation.texts import augment_texts
from astraml_ray.data.blocks import partner_rows, rows_of_block
from astraml_ray.data.keyed import row_keys
from astraml_ray.data.manifest import Manifest
from astraml_ray.data.plan import permutation, run_blocks
from astraml_ray.data.sampling import Sampler
from astraml_ray.spec.augmentation import Augmentation

__all__ = ["Pair", "Piece", "mark_changes", "preview"]

Piece = tuple[str, bool]
"""Words of a text, and whether they are in this one only."""


@dataclass(frozen=True)
class Pair:
    """A row before and after.

    Attributes:
        position: In the epoch's global order.
        before: Its text in the dataset.
        after: What is trained on.
    """

    position: int
    before: str
    after: str


def preview(
    manifest: Manifest,
    augmentations: Sequence[Augmentation],
    *,
    seed: int,
    rows: int,
    means: Means,
    epoch: int = 0,
    sampler: Sampler | None = None,
) -> Iterator[Pair]:
    """The first rows of an epoch, as a run with this seed trains on them, whatever its workers and batches.

    Args:
        manifest: The dataset.
        augmentations: From the spec.
        seed: Of the run.
        rows: How many.
        means: What augmentations take besides.
        epoch: From 0.
        sampler: Draws the rows, where classes are sampled.
    """
    split = manifest.splits["train"]
    for block in run_blocks(split.rows, split.sizes, seed=seed, epochs=epoch + 1, start_epoch=epoch, sampler=sampler):
        order = permutation(block, seed)[: max(0, rows - block.start)]
        if not len(order):
            return
        table, drawn = rows_of_block(manifest, split, block, sampler)
        own = drawn[order]
        before = table["text"].take(own).to_pylist()
        positions = np.arange(block.start, block.start + len(order), dtype=np.int64)
        keys = row_keys(seed, epoch, positions)
        others = partner_rows(table, own, keys, augmentations)
        mixed = None if others is None else others["text"].to_pylist()
        after = augment_texts(before, keys, augmentations, means, others=mixed)
        for position, old, new in zip(positions.tolist(), before, after, strict=True):
            yield Pair(position, old, new)


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
