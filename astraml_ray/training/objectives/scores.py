"""Metrics out of a confusion matrix."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["macro_f1", "matthews"]

Confusion = npt.NDArray[np.float64]


def macro_f1(confusion: Confusion) -> float:
    """Mean F1 of the classes that occur, in truth (rows) or in prediction (columns)."""
    seen = confusion.sum(0) + confusion.sum(1)
    return float((2 * np.diag(confusion)[seen > 0] / seen[seen > 0]).mean()) if seen.any() else 0.0


def matthews(confusion: Confusion) -> float:
    """Matthews' correlation coefficient, for any number of classes (Gorodkin 2004); 0 where it is not defined."""
    total, right = confusion.sum(), np.trace(confusion)
    true, predicted = confusion.sum(1), confusion.sum(0)
    spread = (total**2 - predicted @ predicted) * (total**2 - true @ true)
    return float((right * total - true @ predicted) / math.sqrt(spread)) if spread > 0 else 0.0
