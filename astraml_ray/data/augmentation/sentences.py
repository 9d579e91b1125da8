"""Augmentations of whole texts: the order of sentences, two texts of one class, another text that says the same."""

from __future__ import annotations

import re
from collections.abc import Sequence

from astraml_ray.data.augmentation.draws import Draws
from astraml_ray.spec.text_augmentation import MixTexts

__all__ = ["mix_texts", "one_of", "shuffle_sentences"]

_BREAK = re.compile(r"((?<=[.!?…])\s+|(?<=[。！？])\s*|\n\s*)")


def shuffle_sentences(text: str, draws: Draws) -> str:
    """The sentences in another order; what stands between them stays in its place."""
    parts = _BREAK.split(text.strip())
    if not parts[-1]:  # after a last full stop that needs no space
        parts = parts[:-2]
    sentences = parts[::2]
    parts[::2] = [sentences[i] for i in draws(len(sentences)).argsort(kind="stable")]
    return "".join(parts)


def one_of(candidates: Sequence[str], draws: Draws) -> str:
    """One of some texts, all equally likely; an empty one if there are none."""
    return candidates[int(draws(1)[0] * len(candidates))] if candidates else ""


def mix_texts(text: str, other: str, rule: MixTexts, draws: Draws) -> str:
    """A text with a run of its words replaced by as many of another; one without words changes nothing."""
    words, source = text.split(), other.split()
    length = min(max(1, round(rule.rate * len(words))), len(source))
    if not length:
        return text
    start, begin = draws(2)
    to, of = int(start * (len(words) - length + 1)), int(begin * (len(source) - length + 1))
    return " ".join([*words[:to], *source[of : of + length], *words[to + length :]])
