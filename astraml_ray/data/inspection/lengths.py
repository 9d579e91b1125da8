"""How long texts are: counts by length, in a memory that does not grow with them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["LengthTally"]

_EXACT = 128
_STEPS = 64
_OCTAVES = 33  # up to 2**40
_BINS = 20
Lengths = npt.NDArray[np.int64]


class LengthTally:
    """Counts of lengths. Those below 128 are counted one by one, longer ones in steps of at most 1/64 of them.

    Attributes:
        rows: Texts counted.
        largest: The longest one's length, exact.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.largest = 0
        self._counts = np.zeros(_EXACT + _OCTAVES * _STEPS, np.int64)

    def add(self, lengths: Lengths) -> None:
        """Counts the lengths of a batch."""
        if len(lengths):
            self.rows += len(lengths)
            self.largest = max(self.largest, int(lengths.max()))
            self._counts += np.bincount(_places(lengths), minlength=len(self._counts))

    def quantile(self, share: float) -> int:
        """The length that at least this share of the texts does not exceed; 0 if there are none."""
        if not self.rows:
            return 0
        place = int(np.searchsorted(np.cumsum(self._counts), math.ceil(share * self.rows)))
        return min(int(_first_of(np.array([place + 1]))[0]) - 1, self.largest)

    def histogram(self) -> list[dict[str, int]]:
        """At most 20 bins of one width up to the 99th percentile, `from` and `to` included; the last has the rest."""
        if not self.rows:
            return []
        width = math.ceil((self.quantile(0.99) + 1) / _BINS)
        used = np.flatnonzero(self._counts)
        bins = np.minimum(_first_of(used) // width, _BINS - 1)
        counts = np.bincount(bins, weights=self._counts[used]).astype(int).tolist()
        ends = [(place + 1) * width - 1 for place in range(len(counts) - 1)] + [self.largest]
        return [
            {"from": place * width, "to": end, "rows": count}
            for place, (end, count) in enumerate(zip(ends, counts, strict=True))
        ]

    def as_dict(self) -> dict[str, Any]:
        """`p50`, `p95`, `p99`, `max` and `histogram`."""
        found: dict[str, Any] = {f"p{share}": self.quantile(share / 100) for share in (50, 95, 99)}
        return {**found, "max": self.largest, "histogram": self.histogram()}


def _places(lengths: Lengths) -> Lengths:
    """The counter of each length."""
    _, exponents = np.frexp(lengths.astype(np.float64))
    shifts = np.clip(exponents.astype(np.int64) - 7, 1, _OCTAVES)
    long = _EXACT + (shifts - 1) * _STEPS + (lengths >> shifts) - _STEPS
    return np.where(lengths < _EXACT, lengths, long)


def _first_of(places: Lengths) -> Lengths:
    """The shortest length of each counter."""
    shifts, steps = np.divmod(places - _EXACT, _STEPS)
    return np.where(places < _EXACT, places, (steps + _STEPS) << np.maximum(shifts + 1, 0))
