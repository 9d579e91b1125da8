"""The augmentations: pure, keyed, and true to their rates."""

from __future__ import annotations

import numpy as np

from astraml_ray.data.augmentation.draws import Means
from astraml_ray.data.augmentation.texts import augment_texts
from astraml_ray.data.keyed import row_keys, uniforms
from astraml_ray.spec.text_augmentation import CaseNoise, RandomDeletion, RandomMask, RandomSwap

TEXTS = [f"the quick brown fox {i} jumps over the lazy dog" for i in range(500)]
KEYS = row_keys(1, 2, np.arange(500))
MEANS = Means("[MASK]", "[UNK]")


def apply(augmentation: object) -> list[str]:
    return augment_texts(TEXTS, KEYS, [augmentation], MEANS)  # type: ignore[list-item]


def test_same_key_same_text_and_other_key_other_text() -> None:
    rule = RandomDeletion(type="random_deletion", rate=0.3)
    assert apply(rule) == apply(rule)
    assert augment_texts(TEXTS, row_keys(1, 3, np.arange(500)), [rule], MEANS) != apply(rule)


def test_deletion_rate_and_last_word() -> None:
    words = sum(len(t.split()) for t in apply(RandomDeletion(type="random_deletion", rate=0.2)))
    assert abs(1 - words / (500 * 10) - 0.2) < 0.03
    assert all(t.split() for t in apply(RandomDeletion(type="random_deletion", rate=1.0)))


def test_swap_keeps_the_words() -> None:
    swapped = apply(RandomSwap(type="random_swap", rate=0.3))
    assert all(sorted(a.split()) == sorted(b.split()) for a, b in zip(TEXTS, swapped, strict=True))
    assert sum(a != b for a, b in zip(TEXTS, swapped, strict=True)) > 400


def test_mask_and_case_rates() -> None:
    masked = sum(t.split().count("[MASK]") for t in apply(RandomMask(type="random_mask", rate=0.25)))
    assert abs(masked / 5000 - 0.25) < 0.03
    flipped = apply(CaseNoise(type="case_noise", rate=0.5))
    assert all(a.lower() == b.lower() for a, b in zip(TEXTS, flipped, strict=True))
    letters = sum(c.isupper() for t in flipped for c in t) / sum(c.isalpha() for t in flipped for c in t)
    assert abs(letters - 0.5) < 0.05


def test_probability_leaves_rows_alone() -> None:
    changed = apply(RandomMask(type="random_mask", rate=1.0, probability=0.3))
    assert abs(sum(a != b for a, b in zip(TEXTS, changed, strict=True)) / 500 - 0.3) < 0.07


def test_blank_texts_stay() -> None:
    rules = [RandomDeletion(type="random_deletion"), RandomSwap(type="random_swap")]
    assert augment_texts(["", "  "], KEYS[:2], rules, MEANS) == ["", "  "]


def test_uniforms_are_uniform_and_independent_of_the_count() -> None:
    draws = uniforms(KEYS[0], 20_000)
    assert abs(draws.mean() - 0.5) < 0.01
    assert np.array_equal(uniforms(KEYS[0], 5), draws[:5])
    assert len(np.unique(row_keys(0, 0, np.arange(10_000)))) == 10_000
