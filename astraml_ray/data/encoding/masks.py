"""Which tokens a masked language model has to predict."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from astraml_ray.data.encoding.schema import IGNORED
from astraml_ray.data.keyed import uniforms

__all__ = ["mask_tokens"]

_MASK_STREAM = 1 << 20


def mask_tokens(
    ids: npt.NDArray[np.int32], special: npt.NDArray[np.bool_], key: np.uint64, share: float, mask_id: int, size: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """BERT's masking: of the chosen tokens 80 % are masked, 10 % replaced, 10 % kept; at least one is chosen."""
    chosen_draw, kind, replacement = uniforms(key, 3 * len(ids), _MASK_STREAM).reshape(3, -1)
    chosen = (chosen_draw < share) & ~special
    if not chosen.any() and not special.all():
        chosen[np.where(special, 2.0, chosen_draw).argmin()] = True
    labels = np.where(chosen, ids, IGNORED).astype(np.int32)
    noisy = np.where(chosen & (kind < 0.8), mask_id, ids)
    noisy = np.where(chosen & (kind >= 0.9), (replacement * size).astype(np.int64), noisy)
    return noisy.astype(np.int32), labels
