"""Population based training: weak trials go on from the weights of strong ones, with values changed a little. Pure.

Ray Tune's own scheduler copies checkpoints that Tune holds, which runs of Ray Train do not give it; there it does
nothing. It also draws from global random numbers, and so could not be repeated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from astraml_ray.spec.sweep import Distribution, Sweep
from astraml_ray.tuning.trials import Goal

__all__ = ["Exploit", "Population", "perturbed"]

_SHARE = 0.25
_RESAMPLE = 0.25
_FACTORS = (0.8, 1.2)


@dataclass(frozen=True)
class Exploit:
    """A trial takes another's place.

    Attributes:
        donor: Number of the trial whose weights are copied.
        parameters: What the trial goes on with.
        reason: Why, for people.
    """

    donor: int
    parameters: dict[str, Any]
    reason: str


class Population:
    """What the trials had last; it follows from the evaluations told, in their order."""

    def __init__(self, sweep: Sweep, goal: Goal) -> None:
        self._sweep = sweep
        self._goal = goal
        self._last: dict[int, float | None] = {}

    def is_turn(self, evaluation: int) -> bool:
        """Whether trials are compared at this evaluation."""
        return evaluation % self._sweep.perturb_every == 0

    def tell(self, number: int, value: float | None) -> None:
        """Takes an evaluation."""
        self._last[number] = value

    def look(self, number: int, evaluation: int, parameters: dict[int, dict[str, Any]]) -> Exploit | None:
        """Whom a trial copies after an evaluation that was told; None if nobody.

        Args:
            number: Of the trial.
            evaluation: Which one it was.
            parameters: Of all trials, by number.
        """
        ranked = sorted(self._last, key=lambda n: (self._goal.reward(self._last[n]), -n))
        count = max(1, math.floor(len(ranked) * _SHARE))
        if not self.is_turn(evaluation) or len(ranked) < 2 or number not in ranked[:count]:
            return None
        draw = self._sweep.keyed("exploit", number, evaluation)
        donor = draw.choice(ranked[-count:])
        changed = {
            path: perturbed(found, parameters[donor][path], draw.random(), draw.random())
            for path, found in self._sweep.parameters.items()
        }
        mine, theirs = (_told(self._last[n]) for n in (number, donor))
        return Exploit(donor, changed, f"pbt: {mine} is among the worst, {theirs} of t{donor:04d} among the best")


def perturbed(found: Distribution, value: Any, kind: float, share: float) -> Any:
    """A value near another, or sometimes any value; always one of the distribution's.

    Args:
        found: Where values come from.
        value: The donor's.
        kind: From 0 to below 1: below a quarter, the value is drawn anew.
        share: From 0 to below 1: which one.
    """
    if kind < _RESAMPLE:
        return found.at(share)
    if found.choice is not None:
        place = found.choice.index(value) + (1 if share >= 0.5 else -1)
        return found.choice[min(len(found.choice) - 1, max(0, place))]
    changed = value * _FACTORS[share >= 0.5]
    if (whole := found.whole) is not None:
        return whole[min(len(whole) - 1, max(0, round((changed - whole.start) / whole.step)))]
    least, most = found.uniform or found.log_uniform or (value, value)
    return float(min(most, max(least, changed)))


def _told(value: float | None) -> str:
    return "nothing finite" if value is None else f"{value:.5g}"
