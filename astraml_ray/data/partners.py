"""Which other row of its shuffle block a row is mixed with. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from astraml_ray.data.keyed import uniforms

__all__ = ["partners"]

_STREAM = 1 << 21
Indices = npt.NDArray[np.int64]


def partners(own: Indices, keys: npt.NDArray[np.uint64], total: int, classes: Indices | None = None) -> Indices:
    """A partner for each row, by the row's key alone: whoever reads the row draws the same.

    Args:
        own: (rows,) each row's index in its block.
        keys: (rows,) their keys.
        total: Rows of the block.
        classes: (total,) class ids of the block's rows; a partner is then of the row's own class.

    Returns:
        (rows,) indices in the block; a row's own only where there is no other.
    """
    draws = np.array([uniforms(key, 1, _STREAM)[0] for key in keys])
    if classes is None:
        classes = np.zeros(total, np.int64)
    order = np.argsort(classes, kind="stable")
    sizes = np.bincount(classes, minlength=1)
    starts = np.cumsum(sizes) - sizes
    rank = np.empty(total, np.int64)
    rank[order] = np.arange(total) - starts[classes[order]]
    group, size = starts[classes[own]], sizes[classes[own]]
    step = 1 + (draws * (size - 1)).astype(np.int64)
    found: Indices = order[group + (rank[own] + step) % size]
    return found
