"""Early stopping: a small state that every worker computes alike, and that is part of the checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from astraml_ray.spec.hyperparams import EarlyStopping

__all__ = ["Patience"]


@dataclass(frozen=True)
class Patience:
    """What early stopping remembers.

    Attributes:
        best: The best monitored value so far.
        best_step: The step that had it.
        waited: Evaluations since.
    """

    best: float | None = None
    best_step: int | None = None
    waited: int = 0

    def after(self, value: float, step: int, rule: EarlyStopping) -> Patience:
        """The state after one more evaluation; a value that is not finite is no improvement."""
        sign = 1.0 if rule.lower_is_better else -1.0
        improved = math.isfinite(value) and (self.best is None or sign * (self.best - value) > rule.min_delta)
        return Patience(value, step, 0) if improved else replace(self, waited=self.waited + 1)

    def exhausted(self, rule: EarlyStopping | None) -> bool:
        """True once `patience` evaluations in a row brought nothing."""
        return rule is not None and self.waited >= rule.patience
