"""What the loop adds up between two looks, and what it refuses to go on with."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from astraml_ray.errors import NumericError
from astraml_ray.training.collectives import World

__all__ = ["Tally", "not_finite"]


def not_finite(what: str, step: int) -> NumericError:
    """The error of a loss or a gradient that is not finite."""
    return NumericError(
        f"the {what} is not finite at step {step}",
        param="/hyperparams/lr",
        hint="lower lr, add warmup_steps, set max_grad_norm, or use precision fp32 or bf16",
    )


class Tally:
    """Sums between two looks, kept on the device, and between two evaluations.

    Attributes:
        interval: Sum of the losses since the last evaluation, and number of their targets, as of the last look.
    """

    def __init__(self, device: torch.device, *, interval: tuple[float, float] = (0.0, 0.0)) -> None:
        self.interval = interval
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)
        self._targets = self._rows = self._waited = 0.0
        self._since: float | None = None

    def add(self, loss: Any, targets: float, norm: Any, *, rows: int, waited: float, started: float) -> None:
        """Counts one step."""
        self._since = self._since or started
        self._sums += torch.stack([loss, norm.double()])
        self._norm = norm
        self._targets += targets
        self._rows += rows
        self._waited += waited

    def record(self, world: World, *, step: int) -> dict[str, float]:
        """The metrics since the last look; starts anew.

        Raises:
            NumericError: A loss or a gradient since then is not finite.
        """
        loss, norms = self._sums.tolist()
        (loss,) = world.sum([loss])
        if not (math.isfinite(loss) and math.isfinite(norms)):
            what = "loss" if not math.isfinite(loss) else "gradient"
            raise not_finite(what, step)
        elapsed = time.perf_counter() - (self._since or 0.0)
        mean = loss / max(1.0, self._targets)
        self.interval = (self.interval[0] + loss, self.interval[1] + self._targets)
        record = {
            "train/loss": mean,
            "train/gradient_norm": float(self._norm),
            "train/rows_per_second": self._rows / elapsed,
            "data/wait_share": self._waited / elapsed,
        }
        self._sums.zero_()
        self._targets = self._rows = self._waited = 0.0
        self._since = None
        return record

    def interval_loss(self) -> float:
        """Mean loss since the evaluation before; starts anew."""
        loss, targets = self.interval
        self.interval = (0.0, 0.0)
        return loss / max(1.0, targets)
