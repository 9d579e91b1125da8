"""Which other row of its shuffle block a row is mixed with. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from astraml_ray.data.keyed import uniforms_of

__all__ = ["partners", "with_partners"]

_STREAM = 1 << 22  # images.mixing has the next ones
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
    draws = uniforms_of(keys, 1, _STREAM)[:, 0]
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


def with_partners(rows: pa.Table, partners: pa.Table, mixed: npt.NDArray[np.bool_]) -> pa.Table:
    """Rows with the columns of their partners beside their own, null where there is none.

    Args:
        rows: By role.
        partners: As many as are mixed, in order.
        mixed: (rows,).
    """
    places = pa.array(np.cumsum(mixed) - 1, mask=~mixed)
    for name in partners.column_names:
        rows = rows.append_column(f"partner_{name}", partners[name].take(places))
    return rows
