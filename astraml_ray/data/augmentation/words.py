"""Augmentations of a list of words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from astraml_ray.data.augmentation.draws import Draws, Lexicon, Means
from astraml_ray.spec.text_augmentation import (
    RandomDeletion,
    RandomInsertion,
    RandomMask,
    RandomSwap,
    SpanMask,
    Synonym,
    WordDropout,
)

__all__ = ["OF_WORDS"]

_LONGEST_SPAN = 10
_PUNCTUATION = ".,;:!?…\"'“”‘’«»()[]{}<>-–—*_/\\"


def _random_deletion(words: list[str], rule: RandomDeletion, draws: Draws, means: Means) -> list[str]:
    chances = draws(len(words))
    kept = [word for word, chance in zip(words, chances, strict=True) if chance >= rule.rate]
    return kept or [words[int(chances.argmax())]]


def _random_swap(words: list[str], rule: RandomSwap, draws: Draws, means: Means) -> list[str]:
    words, swaps = list(words), _some(rule.rate, words)
    places = (draws(2 * swaps) * len(words)).astype(int)
    for first, second in zip(places[::2], places[1::2], strict=True):
        words[first], words[second] = words[second], words[first]
    return words


def _random_insertion(words: list[str], rule: RandomInsertion, draws: Draws, means: Means) -> list[str]:
    lexicon, count = means.lexicon(rule.lexicon), _some(rule.rate, words)
    before: list[list[str]] = [[] for _ in range(len(words) + 1)]
    for source, place, which in draws(3 * count).reshape(-1, 3):
        word = words[int(source * len(words))]
        before[int(place * len(before))].append(_instead(word, lexicon, which, means) or word)
    return [word for place, new in enumerate(before) for word in [*new, *words[place : place + 1]]]


def _synonym(words: list[str], rule: Synonym, draws: Draws, means: Means) -> list[str]:
    lexicon, chances, which = means.lexicon(rule.lexicon), draws(len(words)), draws(len(words), 1)
    return [
        (_instead(word, lexicon, which[i], means) if chances[i] < rule.rate else None) or word
        for i, word in enumerate(words)
    ]


def _instead(word: str, lexicon: Lexicon, which: float, means: Means) -> str | None:
    """What stands for a word, with its capitals and what is round it; None if the lexicon does not have it."""
    core = word.strip(_PUNCTUATION)
    choices: Sequence[str] = lexicon.get(core.lower(), ())
    if not core or not choices or word in (means.mask, means.unknown):
        return None
    chosen = choices[int(which * len(choices))]
    if len(core) > 1 and core.isupper():
        chosen = chosen.upper()
    elif core[0].isupper():
        chosen = chosen[0].upper() + chosen[1:]
    start = word.index(core)
    return word[:start] + chosen + word[start + len(core) :]


def _random_mask(words: list[str], rule: RandomMask, draws: Draws, means: Means) -> list[str]:
    return [means.mask if chance < rule.rate else w for w, chance in zip(words, draws(len(words)), strict=True)]


def _word_dropout(words: list[str], rule: WordDropout, draws: Draws, means: Means) -> list[str]:
    unknown = means.unknown or means.mask
    return [unknown if chance < rule.rate else w for w, chance in zip(words, draws(len(words)), strict=True)]


def _span_mask(words: list[str], rule: SpanMask, draws: Draws, means: Means) -> list[str]:
    masked, left = [False] * len(words), _some(rule.rate, words)
    longest = max(_LONGEST_SPAN, round(5 * rule.mean_length))
    # Runs may fall onto one another: after twice as many as can be needed, what is still missing stays unmasked.
    for size, place in draws(4 * left).reshape(-1, 2):
        length = min(_geometric(size, rule.mean_length), longest, left)
        start = int(place * (len(words) - length + 1))
        left -= length - sum(masked[start : start + length])
        masked[start : start + length] = [True] * length
        if left <= 0:
            break
    if rule.unit == "word":
        return [means.mask if hidden else word for word, hidden in zip(words, masked, strict=True)]
    follows = [False, *masked[:-1]]
    shown = zip(words, masked, follows, strict=True)
    return [means.mask if hidden else word for word, hidden, inner in shown if not (hidden and inner)]


def _geometric(chance: float, mean: float) -> int:
    """A number from 1 on whose mean is `mean`."""
    return 1 if mean <= 1 else 1 + int(math.log1p(-chance) / math.log1p(-1 / mean))


def _some(rate: float, words: list[str]) -> int:
    return max(1, round(rate * len(words)))


OF_WORDS: dict[str, Callable[[list[str], Any, Draws, Means], list[str]]] = {
    "random_deletion": _random_deletion,
    "random_swap": _random_swap,
    "random_insertion": _random_insertion,
    "synonym": _synonym,
    "random_mask": _random_mask,
    "span_mask": _span_mask,
    "word_dropout": _word_dropout,
}
"""By `type`; each takes at least one word, and gives at least one."""
