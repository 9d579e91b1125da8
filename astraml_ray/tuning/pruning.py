"""Which trials are stopped before their end: Ray Tune's own rules, asked one evaluation at a time, and explained.

A pruner's state follows from the evaluations that it was told, in their order: told them again, it decides as before.
Tune itself does not keep the state of its schedulers over a restart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler

from astraml_ray.spec.sweep import Sweep
from astraml_ray.tuning.trials import Goal, trial_id

__all__ = ["Pruner", "Verdict", "make_pruner"]

_BRACKETS = 3
_MIN_TRIALS = 3


@dataclass(frozen=True)
class Verdict:
    """What becomes of a trial after an evaluation.

    Attributes:
        stop: Whether it is stopped.
        rung: The last rung that it has reached, from 1; None if there is none yet, or there are no rungs.
        reason: Why it is stopped.
    """

    stop: bool = False
    rung: int | None = None
    reason: str | None = None


class Pruner(Protocol):
    """Decides over trials."""

    def decide(self, number: int, evaluation: int, value: float | None) -> Verdict:
        """Takes an evaluation of a trial, and tells whether it goes on.

        Args:
            number: Of the trial.
            evaluation: From 1.
            value: Of the sweep's metric; None if it was not finite.
        """


def make_pruner(sweep: Sweep, goal: Goal, evaluations: int) -> Pruner:
    """The pruner of a sweep.

    Args:
        sweep: Of the job.
        goal: What is compared.
        evaluations: Of the longest trial.
    """
    if sweep.scheduler in ("asha", "hyperband"):
        return _Halving(sweep, goal, evaluations)
    if sweep.scheduler == "median":
        return _Median(sweep, goal)
    return _Nothing()


class _Nothing:
    def decide(self, number: int, evaluation: int, value: float | None) -> Verdict:
        return Verdict()


@dataclass(frozen=True)
class _Standing:
    """Stands for a trial, for Tune's schedulers: they know trials by their ids."""

    trial_id: str


class _Halving:
    """ASHA; or HyperBand, which is ASHA in several brackets, the later ones with later first rungs."""

    def __init__(self, sweep: Sweep, goal: Goal, evaluations: int) -> None:
        self._sweep = sweep
        self._goal = goal
        self._brackets: list[_Rungs] = [_Rungs(sweep, first, evaluations) for first in _first_rungs(sweep, evaluations)]

    def decide(self, number: int, evaluation: int, value: float | None) -> Verdict:
        bracket = 0
        if len(self._brackets) > 1:
            # Fewer trials in the brackets that give each of them more.
            weights = [float(self._sweep.reduction_factor) ** -place for place in range(len(self._brackets))]
            bracket = self._sweep.keyed("bracket", number).choices(range(len(weights)), weights)[0]
        stop, rung, asked = self._brackets[bracket].decide(number, evaluation, self._goal.reward(value))
        if not stop:
            return Verdict(rung=rung)
        told = "nothing finite" if value is None else f"{value:.5g}"
        wanted = f"{-asked if self._goal.lower else asked:.5g}"
        name = self._sweep.scheduler
        return Verdict(True, rung, f"{name}_rung_{rung}: {told} is worse than the {wanted} that rung {rung} asks for")


def _first_rungs(sweep: Sweep, evaluations: int) -> list[int]:
    """The evaluation of each bracket's first rung."""
    count = 1 if sweep.scheduler == "asha" else _BRACKETS
    firsts = [sweep.grace * sweep.reduction_factor**place for place in range(count)]
    return [first for first in firsts if first <= evaluations] or [evaluations]


class _Rungs:
    """One bracket."""

    def __init__(self, sweep: Sweep, first: int, evaluations: int) -> None:
        self._rule = AsyncHyperBandScheduler(
            time_attr="evaluation",
            metric="reward",
            mode="max",
            max_t=max(first, evaluations),
            grace_period=first,
            reduction_factor=sweep.reduction_factor,
            # At its last evaluation a trial ends by itself.
            stop_last_trials=False,
        )
        self._added: set[int] = set()

    def decide(self, number: int, evaluation: int, reward: float) -> tuple[bool, int | None, float]:
        """Whether to stop; the last rung reached; what it asked for."""
        trial: Any = _Standing(trial_id(number))
        if number not in self._added:
            self._added.add(number)
            self._rule.on_trial_add(None, trial)
        bracket = self._rule._brackets[0]
        rungs = [(milestone, recorded) for milestone, recorded in reversed(bracket._rungs) if evaluation >= milestone]
        asked = bracket.cutoff(rungs[-1][1]) if rungs else None
        result = {"evaluation": evaluation, "reward": reward}
        stop = self._rule.on_trial_result(None, trial, result) == TrialScheduler.STOP
        return stop, len(rungs) or None, 0.0 if asked is None else float(asked)


class _Median:
    """Stops a trial whose best value is worse than the median of the averages that others had until then."""

    def __init__(self, sweep: Sweep, goal: Goal) -> None:
        self._goal = goal
        self._rule = MedianStoppingRule(
            time_attr="evaluation",
            metric="reward",
            mode="max",
            grace_period=sweep.grace,
            min_samples_required=_MIN_TRIALS,
        )
        self._trials: dict[int, Any] = {}
        self._stopped: set[int] = set()

    def decide(self, number: int, evaluation: int, value: float | None) -> Verdict:
        if number in self._stopped:
            return Verdict()  # Tune's rule takes no more of it
        trial = self._trials.setdefault(number, _Standing(trial_id(number)))
        result = {"evaluation": evaluation, "reward": self._goal.reward(value)}
        if self._rule.on_trial_result(_NoOthers(), trial, result) != TrialScheduler.STOP:
            return Verdict()
        self._stopped.add(number)
        means = [self._rule._running_mean(other, evaluation) for other in self._others(trial, evaluation)]
        median = float(np.median([mean for mean in means if np.isfinite(mean)]))
        best = self._rule._best_result(trial)
        told, wanted = (f"{-v if self._goal.lower else v:.5g}" for v in (best, median))
        return Verdict(True, None, f"median: its best, {told}, is worse than {wanted}, the median of the others so far")

    def _others(self, trial: Any, evaluation: int) -> Iterable[Any]:
        return [other for other in self._rule._trials_beyond_time(evaluation) if other != trial]


class _NoOthers:
    """In place of Tune's controller: nobody waits whom a trial would have to make room for."""

    def get_live_trials(self) -> list[Any]:
        return []
