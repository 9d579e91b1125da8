"""How far a run is and when it will end, from its records. Pure: the time is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["ProgressTracker"]


class ProgressTracker:
    """Follows a run's records.

    Its estimate knows early stopping: it gives the soonest end, should nothing improve any more, and the latest.

    Args:
        total_steps: Steps of the run, if nothing stops it.
        steps_per_epoch: Steps of an epoch.
        epochs: Epochs asked for.
        eval_steps: Steps from one evaluation to the next.
        patience: Of early stopping; None without.
    """

    def __init__(
        self, *, total_steps: int, steps_per_epoch: int, epochs: int, eval_steps: int, patience: int | None
    ) -> None:
        self._total = total_steps
        self._steps_per_epoch = steps_per_epoch
        self._epochs = epochs
        self._eval_steps = eval_steps
        self._patience = patience
        self._waited = 0
        self._step = 0
        self._metrics: dict[str, float] = {}
        self._first: tuple[int, float] | None = None
        self._now = 0.0

    def add(self, record: Mapping[str, Any], now: float) -> None:
        """Takes a record with a `step`; others (events) are passed over.

        Args:
            record: `step`, `epoch` and metrics.
            now: Seconds, of any clock that is always the same one.
        """
        if "step" not in record or "event" in record:
            return
        step = int(record["step"])
        if self._first is None or step < self._step:
            self._first = (step, now)  # the run begins, or goes on from a checkpoint
        self._step, self._now = step, now
        self._waited = int(record.get("early_stopping/waited", self._waited))
        self._metrics |= {name: value for name, value in record.items() if _is_metric(name)}

    def snapshot(self) -> dict[str, Any]:
        """Where the run is, as plain JSON data.

        `eta_s` is the soonest and the latest end in seconds from the last record, None while nothing is known.
        """
        waiting = None if self._patience is None else {"waited": self._waited, "patience": self._patience}
        return {
            "step": self._step,
            "total_steps": self._total,
            "epoch": round(self._step / max(1, self._steps_per_epoch), 4),
            "epochs": self._epochs,
            "fraction": round(self._step / max(1, self._total), 6),
            "eta_s": self._eta(),
            "early_stopping": waiting,
            "metrics": dict(self._metrics),
        }

    def _eta(self) -> list[float] | None:
        if self._step >= self._total:
            return [0.0, 0.0]
        if self._first is None or self._step <= self._first[0]:
            return None
        per_step = (self._now - self._first[1]) / (self._step - self._first[0])
        latest = (self._total - self._step) * per_step
        soonest = latest
        if self._patience is not None:
            ahead = (self._patience - self._waited) * self._eval_steps - self._step % self._eval_steps
            soonest = min(latest, max(0, ahead) * per_step)
        return [round(soonest, 3), round(latest, 3)]


def _is_metric(name: str) -> bool:
    return "/" in name and not name.startswith("early_stopping/")
