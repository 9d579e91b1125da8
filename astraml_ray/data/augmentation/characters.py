"""Augmentations of a text's characters. Mask and unknown tokens stay whole."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from astraml_ray.data.augmentation.draws import Draws, Means
from astraml_ray.spec.text_augmentation import CaseNoise, KeyboardNoise, OcrNoise

__all__ = ["OF_CHARACTERS"]

_ROWS = ("1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm")
_TAKEN_FOR = {
    "0": ("O", "o"),
    "1": ("l", "I"),
    "2": ("Z", "z"),
    "5": ("S", "s"),
    "6": ("G", "b"),
    "8": ("B",),
    "9": ("g", "q"),
    "O": ("0", "Q", "D"),
    "I": ("l", "1", "|"),
    "S": ("5",),
    "B": ("8",),
    "Z": ("2",),
    "G": ("6", "C"),
    "D": ("O", "0"),
    "E": ("F",),
    "W": ("VV",),
    "a": ("o",),
    "b": ("h", "6"),
    "c": ("e", "o"),
    "d": ("cl",),
    "e": ("c",),
    "f": ("t",),
    "g": ("9", "q"),
    "h": ("b", "li"),
    "i": ("l", "1", "j"),
    "l": ("1", "I", "i"),
    "m": ("rn", "nn"),
    "n": ("u", "ri"),
    "o": ("0", "c"),
    "q": ("g", "9"),
    "s": ("5",),
    "t": ("f",),
    "u": ("n", "ii"),
    "v": ("y",),
    "w": ("vv",),
    "y": ("v",),
    "z": ("2",),
}


def _neighbours() -> dict[str, str]:
    """Of each key: those beside it, above it and below it. A row begins half a key to the right of the one above."""
    found = {}
    for y, row in enumerate(_ROWS):
        for x, key in enumerate(row):
            places = [(y, x - 1), (y, x + 1), (y - 1, x), (y - 1, x + 1), (y + 1, x - 1), (y + 1, x)]
            found[key] = "".join(_ROWS[j][i] for j, i in places if 0 <= j < len(_ROWS) and 0 <= i < len(_ROWS[j]))
    return found


_NEIGHBOURS = _neighbours()


def _case_noise(text: str, rule: CaseNoise, draws: Draws, means: Means) -> str:
    chances = _chances(text, draws, means)
    return "".join(c.swapcase() if chance < rule.rate else c for c, chance in zip(text, chances, strict=True))


def _keyboard_noise(text: str, rule: KeyboardNoise, draws: Draws, means: Means) -> str:
    chances, kinds, which = _chances(text, draws, means), draws(len(text), 1), draws(len(text), 2)
    letters, done = list(text), -1
    for place in np.flatnonzero(chances < rule.rate).tolist():
        near = _NEIGHBOURS.get(text[place].lower())
        if near is None or place <= done:
            continue
        other = near[int(which[place] * len(near))]
        other = other.upper() if text[place].isupper() else other
        edit, following = rule.edits[int(kinds[place] * len(rule.edits))], text[place + 1 : place + 2]
        if edit == "insert":
            letters[place] += other
        elif edit == "delete":
            letters[place] = ""
        elif edit == "substitute":
            letters[place] = other
        elif following.lower() in _NEIGHBOURS and chances[place + 1] <= 1:
            letters[place : place + 2] = [following, text[place]]
            done = place + 1
    return _unless_blank("".join(letters), text)


def _ocr_noise(text: str, rule: OcrNoise, draws: Draws, means: Means) -> str:
    chances, which = _chances(text, draws, means), draws(len(text), 1)
    characters = list(text)
    for place in np.flatnonzero(chances < rule.rate).tolist():
        taken_for = _TAKEN_FOR.get(text[place], (text[place],))
        characters[place] = taken_for[int(which[place] * len(taken_for))]
    return "".join(characters)


def _chances(text: str, draws: Draws, means: Means) -> npt.NDArray[np.float64]:
    """A number for each character; 2 within a token that must stay whole."""
    chances = draws(len(text))
    tokens = [re.escape(token) for token in (means.mask, means.unknown) if token]
    for match in re.finditer("|".join(tokens), text) if tokens else ():
        chances[match.start() : match.end()] = 2.0
    return chances


def _unless_blank(changed: str, text: str) -> str:
    return changed if changed.strip() else text


OF_CHARACTERS: dict[str, Callable[[str, Any, Draws, Means], str]] = {
    "case_noise": _case_noise,
    "keyboard_noise": _keyboard_noise,
    "ocr_noise": _ocr_noise,
}
"""By `type`; each takes a text that is not blank, and gives one."""
