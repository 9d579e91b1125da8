"""What augmentation makes of training rows: the first ones of an epoch, before and after."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from astraml_ray.data.augmentation import augment_texts
from astraml_ray.data.blocks import rows_of_block
from astraml_ray.data.keyed import row_keys
from astraml_ray.data.manifest import Manifest
from astraml_ray.data.plan import epoch_blocks, permutation
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
    manifest: Manifest, augmentations: Sequence[Augmentation], *, seed: int, rows: int, mask: str, epoch: int = 0
) -> Iterator[Pair]:
    """The first rows of an epoch, as a run with this seed trains on them, whatever its workers and batches.

    Args:
        manifest: The dataset.
        augmentations: From the spec.
        seed: Of the run.
        rows: How many.
        mask: The token that stands for a masked word.
        epoch: From 0.
    """
    split = manifest.splits["train"]
    for block in epoch_blocks(split.rows, split.sizes, seed=seed, epoch=epoch):
        order = permutation(block, seed)[: max(0, rows - block.start)]
        if not len(order):
            return
        before = rows_of_block(manifest, split, block, order)["text"].to_pylist()
        positions = np.arange(block.start, block.start + len(order), dtype=np.int64)
        after = augment_texts(before, row_keys(seed, epoch, positions), augmentations, mask=mask)
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
