"""What the loop says while it works: lines for people, on world rank 0 alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import torch

from astraml_ray.spec.hyperparams import EarlyStopping
from astraml_ray.training.checkpoint import Progress
from astraml_ray.training.collectives import World
from astraml_ray.training.timetable import Timetable

__all__ = ["Narrator"]

_LOG = logging.getLogger(__name__)
_STEP_LINE_S = 5.0


class Narrator:
    """Tells where the run is: at its start, every few seconds, at each evaluation, at its end."""

    def __init__(self, world: World, timetable: Timetable) -> None:
        self._world = world
        self._timetable = timetable
        self._last_line = time.monotonic()

    def _say(self, text: str) -> None:
        if self._world.world_rank == 0:
            _LOG.info("%s", text)

    def begin(self, model: torch.nn.Module, progress: Progress, *, precision: str, rows_at_a_time: int) -> None:
        """The run begins, or goes on."""
        world, table = self._world, self._timetable
        count = sum(parameter.numel() for parameter in model.parameters())
        trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        frozen = f", {count - trained:,} of them frozen" if trained < count else ""
        where = f"{world.device.type}, {world.world_size} worker{'s' if world.world_size > 1 else ''}, {precision}"
        self._say(f"training on {where}: {count:,} parameters{frozen}")
        self._say(
            f"{table.total_steps} steps, {table.steps_per_epoch} an epoch, of "
            f"{table.accumulation} x {table.batch_size} rows; at most {rows_at_a_time} of them at a time on a worker"
        )
        self._say(f"going on from step {progress.step}" if progress.step else "starting from step 0")

    def step(self, record: Mapping[str, Any]) -> None:
        """A step's record; told every few seconds."""
        now = time.monotonic()
        if now - self._last_line < _STEP_LINE_S:
            return
        self._last_line = now
        self._say(
            f"step {record['step']}/{self._timetable.total_steps}, epoch {record['epoch']:.2f}: "
            f"loss {record['train/loss']:.4f}, lr {record['train/learning_rate']:.3g}, "
            f"{record['train/rows_per_second']:.0f} rows/s"
        )

    def evaluation(self, progress: Progress, metrics: Mapping[str, float], rule: EarlyStopping | None) -> None:
        """An evaluation's scores, and what they mean to early stopping."""
        scores = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        patience = progress.patience
        if patience.best_step == progress.step:
            standing = "the best so far"
        else:
            of = f" of {rule.patience}" if rule else ""
            standing = f"no better than step {patience.best_step}, {patience.waited}{of} in a row"
        self._say(f"step {progress.step}/{self._timetable.total_steps}, validation: {scores} ({standing})")

    def end(self, reason: str, progress: Progress) -> None:
        """The loop leaves."""
        how = {
            "completed": "the last step is done",
            "early_stopping": f"early stopping: {progress.patience.waited} evaluations brought nothing",
            "stopped": "asked to stop: saving",
            "stopped_keep_best": "asked to stop and keep the best model",
        }[reason]
        self._say(f"step {progress.step}/{self._timetable.total_steps}: {how}")
