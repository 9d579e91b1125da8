"""Which parameters the next trial has. A grid's and a random search's follow from its number alone."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from astraml_ray.spec.sweep import Distribution, Sweep

__all__ = ["Told", "parameters_of"]

_STARTUP = 10
_TRIALS_PER_PARAMETER = 4


@dataclass(frozen=True)
class Told:
    """What is known of an earlier trial.

    Attributes:
        parameters: Its own.
        reward: Of its best evaluation, higher is better; None while there is none.
        ended: Whether it trains no more.
    """

    parameters: dict[str, Any]
    reward: float | None
    ended: bool


def parameters_of(sweep: Sweep, number: int, told: Sequence[Told]) -> dict[str, Any]:
    """The parameters of a trial: a function of the sweep, the number and, for optuna, of what is told."""
    if sweep.kind == "optuna":
        return _suggested(sweep, number, told)
    return sweep.point(number)


def _suggested(sweep: Sweep, number: int, told: Sequence[Told]) -> dict[str, Any]:
    """What Optuna's TPE suggests. The sampler is made anew for each trial, so its state follows from `told`."""
    import optuna

    logging.getLogger("optuna").setLevel(logging.WARNING)
    # The first ones are drawn at random; with few trials in all, fewer.
    startup = min(_STARTUP, max(_TRIALS_PER_PARAMETER, sweep.count // 4))
    sampler = optuna.samplers.TPESampler(
        seed=sweep.keyed("optuna", number).getrandbits(32), n_startup_trials=startup, constant_liar=True
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    space = {path: _distribution(found) for path, found in sweep.parameters.items()}
    for trial in told:
        study.add_trial(_past(trial, sweep, space))
    asked = study.ask(space)
    return {path: _value(found, asked.params[path]) for path, found in sweep.parameters.items()}


def _past(trial: Told, sweep: Sweep, space: dict[str, Any]) -> Any:
    import optuna

    state = optuna.trial.TrialState.RUNNING
    if trial.ended:
        state = optuna.trial.TrialState.FAIL if trial.reward is None else optuna.trial.TrialState.COMPLETE
    return optuna.trial.create_trial(
        state=state,
        params={path: _asked(sweep.parameters[path], value) for path, value in trial.parameters.items()},
        distributions=space,
        value=trial.reward if state == optuna.trial.TrialState.COMPLETE else None,
    )


def _distribution(found: Distribution) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if found.choice is not None:
        return CategoricalDistribution([json.dumps(value) for value in found.choice])
    if (whole := found.whole) is not None:
        return IntDistribution(whole[0], whole[-1], step=whole.step)
    if found.log_uniform is not None:
        return FloatDistribution(*found.log_uniform, log=True)
    assert found.uniform is not None
    return FloatDistribution(*found.uniform)


def _asked(found: Distribution, value: Any) -> Any:
    return json.dumps(value) if found.choice is not None else value


def _value(found: Distribution, asked: Any) -> Any:
    return json.loads(asked) if found.choice is not None else asked
