"""How many steps a run has, and where each of them begins. Pure arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass

from astraml_ray.data.microbatches import Position
from astraml_ray.spec.hyperparams import Hyperparams

__all__ = ["Timetable", "lr_factor"]


@dataclass(frozen=True)
class Timetable:
    """The steps of a run.

    An accumulation window never crosses an epoch's end: the last one of an epoch is as short as what is left.

    Attributes:
        rows: Training rows of an epoch.
        batch_size: Rows of a micro-batch over all workers.
        accumulation: Micro-batches of an optimizer step.
        epochs: Epochs asked for.
        max_steps: Bound on the steps, if any.
    """

    rows: int
    batch_size: int
    accumulation: int
    epochs: int
    max_steps: int | None = None

    @classmethod
    def of(cls, hyperparams: Hyperparams, rows: int) -> Timetable:
        """The timetable of a run over `rows` training rows."""
        return cls(
            rows,
            hyperparams.batch_size,
            hyperparams.gradient_accumulation_steps,
            hyperparams.epochs,
            hyperparams.max_steps,
        )

    @property
    def micro_per_epoch(self) -> int:
        return math.ceil(self.rows / self.batch_size)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.micro_per_epoch / self.accumulation)

    @property
    def total_steps(self) -> int:
        steps = self.steps_per_epoch * self.epochs
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def window(self, step: int) -> int:
        """Micro-batches of optimizer step `step` (from 0)."""
        done = step % self.steps_per_epoch * self.accumulation
        return min(self.accumulation, self.micro_per_epoch - done)

    def position(self, step: int) -> Position:
        """Where the rows of optimizer step `step` (from 0) begin."""
        epoch, inside = divmod(step, self.steps_per_epoch)
        return Position(epoch, inside * self.accumulation * self.batch_size)

    def warmup_steps(self, warmup: int | float) -> int:
        """Steps of warm-up; below 1 it is a share of the run."""
        return round(warmup * self.total_steps) if warmup < 1 else int(warmup)


def lr_factor(kind: str, step: int, *, total_steps: int, warmup_steps: int) -> float:
    """The learning rate of step `step` (from 0) as a share of its peak, as in transformers' schedules.

    At `step == total_steps` it is the schedule's end: 0 for cosine and linear, 1 for constant.
    """
    if step < warmup_steps:
        return step / warmup_steps
    if kind == "constant":
        return 1.0
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    if kind == "linear":
        return 1.0 - progress
    return 0.5 * (1.0 + math.cos(math.pi * progress))
