"""Applies a spec's augmentations to texts, and to the words of tagged rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from astraml_ray.data.augmentation.characters import OF_CHARACTERS
from astraml_ray.data.augmentation.draws import Draws, Means
from astraml_ray.data.augmentation.sentences import mix_texts, one_of, shuffle_sentences
from astraml_ray.data.augmentation.words import OF_WORDS
from astraml_ray.spec.augmentation import Augmentation
from astraml_ray.spec.text_augmentation import BackTranslation, MixTexts, SentenceShuffle

__all__ = ["augment_texts", "augment_words", "text_sides"]

_SIDE = 1 << 18


def augment_texts(
    texts: Sequence[str],
    keys: Any,
    augmentations: Sequence[Augmentation],
    means: Means,
    *,
    others: Sequence[str] | None = None,
    candidates: Sequence[Sequence[str]] | None = None,
    side: int = 0,
) -> list[str]:
    """Applies the augmentations in order, each with its probability.

    Args:
        texts: One text per row.
        keys: One key per row, uint64 (see keyed.row_keys).
        augmentations: From the spec.
        means: What they take besides.
        others: A text of each row's partner, where an augmentation mixes them.
        candidates: Texts that may stand for each row's, where an augmentation takes them.
        side: 1 for the second text of each row, whose fate is its own.

    Returns:
        As many texts; an empty or blank one stays as it is.
    """
    changed = list(texts)
    for order, rule in enumerate(augmentations):
        for row, text in enumerate(changed):
            draws = _draws(keys[row], order, rule, side)
            if draws is None or not text.strip():
                continue
            if isinstance(rule, MixTexts):
                assert others is not None, "preparation refuses mixing where there are no partners"
                changed[row] = mix_texts(text, others[row], rule, draws)
            elif isinstance(rule, BackTranslation):
                assert candidates is not None, "whoever reads the rows brings what they were translated to"
                changed[row] = one_of(candidates[row], draws) or text
            elif isinstance(rule, SentenceShuffle):
                changed[row] = shuffle_sentences(text, draws)
            elif rule.type in OF_CHARACTERS:
                changed[row] = OF_CHARACTERS[rule.type](text, rule, draws, means)
            else:
                changed[row] = " ".join(OF_WORDS[rule.type](text.split(), rule, draws, means))
    return changed


def text_sides(rows: pa.Table, keys: Any, augmentations: Sequence[Augmentation], means: Means) -> list[list[str]]:
    """The texts of rows, augmented: one list, or for pairs two.

    Args:
        rows: Columns by role, with those of their partners where texts are mixed, and with candidates where an
            augmentation takes them.
        keys: See augment_texts.
        augmentations: See augment_texts.
        means: See augment_texts.
    """
    sides = []
    for side, role in enumerate(role for role in ("text", "text_pair") if role in rows.column_names):
        texts = rows[role].to_pylist()
        if augmentations:
            partner = f"partner_{role}"
            mixed = rows[partner].to_pylist() if partner in rows.column_names else None
            made = f"{role}_candidates"
            found = rows[made].to_pylist() if made in rows.column_names else None
            texts = augment_texts(texts, keys, augmentations, means, others=mixed, candidates=found, side=side)
        sides.append(texts)
    return sides


def augment_words(
    rows: Sequence[list[str]], keys: Any, augmentations: Sequence[Augmentation], means: Means
) -> list[list[str]]:
    """As augment_texts, for rows of words that have tags: as many words, each in its place."""
    changed = list(rows)
    for order, rule in enumerate(augmentations):
        for row, words in enumerate(changed):
            draws = _draws(keys[row], order, rule, 0)
            if draws is None or not words:
                continue
            if rule.type in OF_CHARACTERS:
                noise = OF_CHARACTERS[rule.type]
                changed[row] = [
                    noise(word, rule, draws.nth(i), means) if word.strip() else word for i, word in enumerate(words)
                ]
            else:
                changed[row] = OF_WORDS[rule.type](words, rule, draws, means)
            assert len(changed[row]) == len(words), "preparation refuses what moves words from their tags"
    return changed


def _draws(key: Any, order: int, rule: Augmentation, side: int) -> Draws | None:
    """Of the augmentation in that place; None for a row that its probability leaves alone."""
    stream = 2 * order + side * _SIDE
    return Draws(key, stream + 1) if Draws(key, stream)(1)[0] < rule.probability else None
