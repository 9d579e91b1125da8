"""What is known of a sweep: its trials, and every evaluation in the order in which it was judged. Plain data."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from astraml_ray.tuning.space import Told
from astraml_ray.tuning.trials import Goal, trial_id

__all__ = ["ENDED", "Evaluation", "Ledger", "Trial"]

Status = Literal["pending", "running", "succeeded", "stopped", "failed", "cancelled"]
ENDED = frozenset({"succeeded", "stopped", "failed"})
_MAX_POINTS = 200


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of one trial.

    Attributes:
        number: Of the trial.
        step: Its optimizer steps then.
        evaluation: Which one it is of a whole run's, from 1.
        value: Of the sweep's metric; None if it was not finite.
    """

    number: int
    step: int
    evaluation: int
    value: float | None

    def to_list(self) -> list[Any]:
        """Plain JSON data."""
        return [self.number, self.step, self.evaluation, self.value]


@dataclass
class Trial:
    """A trial as it stands.

    Attributes:
        number: From 0.
        parameters: Path -> value.
        copied: Whom its weights are from, and which time it is: `{"donor", "step", "count"}` (PBT).
        judged: Step of its last evaluation in the ledger; earlier ones that come again are known.
        seconds: That it had a place to train in, without the present stretch, which began at `since`.
    """

    number: int
    parameters: dict[str, Any]
    status: Status = "pending"
    step: int = 0
    epoch: float = 0.0
    metric: float | None = None
    best_metric: float | None = None
    best_step: int | None = None
    rung: int | None = None
    reason: str | None = None
    error: dict[str, Any] | None = None
    started_at: float | None = None
    ended_at: float | None = None
    seconds: float = 0.0
    parent: int | None = None
    copied: dict[str, int] | None = None
    judged: int = 0
    since: float | None = field(default=None, repr=False)

    @property
    def ended(self) -> bool:
        """Whether it trains no more."""
        return self.status in ENDED

    @property
    def is_copying(self) -> bool:
        """Whether it was told to go on from another's weights, and has not been evaluated since."""
        return self.copied is not None and self.judged == self.copied["step"]

    def copy(self, donor: Trial, parameters: dict[str, Any], reason: str) -> None:
        """Is told to go on as another: with its weights, and so with its values; those of its own weights are gone."""
        count = self.copied["count"] + 1 if self.copied else 1
        self.copied = {"donor": donor.number, "step": donor.judged, "count": count}
        self.parameters, self.parent, self.reason = parameters, donor.number, reason
        self.judged = self.step = donor.judged
        self.epoch, self.metric = donor.epoch, donor.metric
        self.best_metric, self.best_step = donor.best_metric, donor.best_step

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        plain = asdict(self) | {"seconds": self.used()}
        del plain["since"]
        return plain

    def used(self) -> float:
        """Seconds that it had a place to train in."""
        return self.seconds + (time.monotonic() - self.since if self.since is not None else 0.0)

    def rest(self) -> None:
        """Its place is given up."""
        self.seconds, self.since = self.used(), None


class Ledger:
    """The sweep's memory.

    Attributes:
        trials: By number.
        results: Every evaluation that was judged, in that order.
    """

    def __init__(self, goal: Goal, *, cpus: float, gpus: float) -> None:
        self.goal = goal
        self.trials: list[Trial] = []
        self.results: list[Evaluation] = []
        self._points: dict[int, list[list[Any]]] = {}
        self._cpus = cpus
        self._gpus = gpus
        self._earlier = 0.0
        self._started = time.monotonic()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "seconds": self.seconds,
            "trials": [trial.to_dict() for trial in self.trials],
            "results": [found.to_list() for found in self.results],
        }

    def restore(self, data: dict[str, Any]) -> None:
        """Takes what to_dict gave; whoever was running then is to be run again."""
        self._earlier = data["seconds"]
        names = {one.name for one in fields(Trial)}
        self.trials = [Trial(**{k: v for k, v in plain.items() if k in names}) for plain in data["trials"]]
        for found in data["results"]:
            self._take(Evaluation(*found))
        for trial in self.trials:
            if not trial.ended:
                trial.status = "pending"

    @property
    def size(self) -> float:
        """How much there is to write, in trials: of results, ten take about as much room."""
        return len(self.trials) + len(self.results) / 10

    @property
    def seconds(self) -> float:
        """That the sweep has run."""
        return self._earlier + time.monotonic() - self._started

    @property
    def gpu_hours(self) -> float:
        """Over all trials."""
        return sum(trial.used() for trial in self.trials) * self._gpus / 3600

    @property
    def cpu_hours(self) -> float:
        """Over all trials."""
        return sum(trial.used() for trial in self.trials) * self._cpus / 3600

    def add(self, found: Evaluation, epoch: float) -> None:
        """Takes an evaluation."""
        trial = self.trials[found.number]
        self._take(found)
        trial.judged = trial.step = found.step
        trial.epoch = epoch
        trial.metric = found.value
        if found.value is not None and (
            trial.best_metric is None or self.goal.reward(found.value) > self.goal.reward(trial.best_metric)
        ):
            trial.best_metric, trial.best_step = found.value, found.step

    def best(self) -> Trial | None:
        """The trial whose best evaluation is the best; of equal ones, one that has it from no other, then the first."""
        scored = [t for t in self.trials if t.best_metric is not None and t.status != "failed" and not t.is_copying]
        return max(scored, key=lambda t: (self.goal.reward(t.best_metric), t.copied is None, -t.number), default=None)

    def told(self) -> list[Told]:
        """For a search that learns."""
        return [
            Told(t.parameters, None if t.best_metric is None else self.goal.reward(t.best_metric), t.ended)
            for t in self.trials
        ]

    def record(self, trial: Trial, run_path: str) -> dict[str, Any]:
        """A trial as it is told: to the service, and in the result."""
        seconds = trial.used()
        return {
            "trial_id": trial_id(trial.number),
            "number": trial.number,
            "status": trial.status,
            "parameters": trial.parameters,
            "metric": trial.metric,
            "best_metric": trial.best_metric,
            "best_step": trial.best_step,
            "step": trial.step,
            "epoch": round(trial.epoch, 4),
            "rung": trial.rung,
            "reason": trial.reason,
            "error": trial.error,
            "run_path": run_path,
            "started_at": trial.started_at,
            "ended_at": trial.ended_at,
            "seconds": round(seconds, 3),
            "gpu_seconds": round(seconds * self._gpus, 3),
            "cpu_seconds": round(seconds * self._cpus, 3),
            "history": list(self._history(trial.number)),
            "parent": None if trial.parent is None else trial_id(trial.parent),
        }

    def _take(self, found: Evaluation) -> None:
        self.results.append(found)
        self._points.setdefault(found.number, []).append([found.step, found.value])

    def _history(self, number: int) -> Iterator[list[Any]]:
        """Its evaluations; of many, as many as a chart takes, the last one among them."""
        points = self._points.get(number, [])
        stride = max(1, math.ceil(len(points) / _MAX_POINTS))
        yield from points[(len(points) - 1) % stride :: stride] if points else []
