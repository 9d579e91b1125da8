"""What an augmentation works with: random numbers of its row, and words that are not in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from astraml_ray.data.keyed import uniforms

__all__ = ["Draws", "Lexicon", "Means"]

Lexicon = Mapping[str, Sequence[str]]
"""Words in lower case, and what may stand for each."""

_PART = 1 << 12
_GAMMA = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Draws:
    """The random numbers of one augmentation of one row.

    Attributes:
        key: Of the row.
        stream: Of the augmentation.
    """

    key: np.uint64
    stream: int

    def __call__(self, count: int, part: int = 0) -> npt.NDArray[np.float64]:
        """`count` numbers in [0, 1); another part gives others."""
        return uniforms(self.key, count, self.stream + part * _PART)

    def nth(self, index: int) -> Draws:
        """Draws of their own for each word."""
        return Draws(np.uint64(int(self.key) ^ ((index + 1) * _GAMMA & 0xFFFF_FFFF_FFFF_FFFF)), self.stream)


@dataclass(frozen=True)
class Means:
    """What augmentations take besides the row.

    Attributes:
        mask: The token that stands for a masked word.
        unknown: The token that stands for a dropped word.
        lexicons: What was read, by its URI.
    """

    mask: str = ""
    unknown: str = ""
    lexicons: Mapping[str, Lexicon] = field(default_factory=dict)

    def lexicon(self, wanted: str | Lexicon | None) -> Lexicon:
        """The lexicon that an augmentation names or holds."""
        if isinstance(wanted, str):
            return self.lexicons[wanted]
        return wanted or {}
