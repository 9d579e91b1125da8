"""Random numbers that follow from a key alone, so that a row's fate does not depend on who reads it, or when."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["derived_keys", "row_keys", "uniforms", "uniforms_of"]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
Keys = npt.NDArray[np.uint64]


def _mix(values: Keys) -> Keys:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def row_keys(seed: int, epoch: int, positions: npt.NDArray[np.int64]) -> Keys:
    """A key for each row of an epoch, from (seed, epoch, position in the global order)."""
    with np.errstate(over="ignore"):
        base = _mix(np.array([seed], np.uint64) + _GAMMA) ^ _mix(np.array([epoch], np.uint64) * _GAMMA + _GAMMA)
        return _mix(base + positions.astype(np.uint64) * _GAMMA)


def uniforms(key: np.uint64, count: int, stream: int = 0) -> npt.NDArray[np.float64]:
    """`count` numbers in [0, 1) of a key; another stream gives other numbers."""
    numbers: npt.NDArray[np.float64] = uniforms_of(np.array([key], np.uint64), count, stream)[0]
    return numbers


def uniforms_of(keys: Keys, count: int, stream: int = 0) -> npt.NDArray[np.float64]:
    """What `uniforms` gives for each of many keys, (keys, count)."""
    with np.errstate(over="ignore"):
        starts = _mix(keys + np.uint64(stream + 1) * np.uint64(0xD1342543DE82EF95))
        words = _mix(starts[:, None] + np.arange(1, count + 1, dtype=np.uint64) * _GAMMA)
    numbers: npt.NDArray[np.float64] = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return numbers


def derived_keys(keys: Keys, stream: int) -> Keys:
    """Other keys, one for each."""
    with np.errstate(over="ignore"):
        return _mix(keys ^ _mix(np.array([stream], np.uint64) * _GAMMA + _GAMMA))
