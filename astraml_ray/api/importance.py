"""How much each parameter of a sweep decides about its result, as PED-ANOVA estimates it. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from astraml_ray.store.trials import ENDED, TrialRecord

__all__ = ["EVALUATOR", "FEWEST", "Importance", "Scale", "importance_of", "parameter_paths", "scale_of"]

Scale = Literal["log", "linear", "choice"]

EVALUATOR = "ped_anova"
FEWEST = 4
"""Trials with a value that an estimate needs."""
_TOP = 5
"""How many of the best trials are held against all: fewer say little."""
_DECADES = 100.0


@dataclass(frozen=True)
class Importance:
    """Shares of all parameters that were varied.

    Attributes:
        shares: Path -> 0 to 1, together 1; None where nothing can be said.
        trials: How many trials it is made of.
        reason: Why nothing can be said.
    """

    shares: Mapping[str, float] | None
    trials: int
    reason: str | None = None


def parameter_paths(trials: Sequence[TrialRecord]) -> list[str]:
    """The parameters that any of the trials has, in the order of the trials."""
    return list(dict.fromkeys(path for trial in trials for path in trial.parameters))


def scale_of(values: Sequence[Any], declared: Any = None) -> Scale:
    """How a parameter's values are to be laid out.

    Args:
        values: Those that trials have.
        declared: Its distribution in the spec, if there is one.
    """
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return "choice"
    if isinstance(declared, Mapping):
        if declared.get("log_uniform"):
            return "log"
        if declared.get("uniform") or declared.get("int_uniform"):
            return "linear"
    positive = [value for value in values if value > 0]
    wide = len(positive) == len(values) > 0 and max(positive) >= _DECADES * min(positive)
    return "log" if wide else "linear"


def importance_of(trials: Sequence[TrialRecord], scales: Mapping[str, Scale]) -> Importance:
    """How much each parameter decides whether a trial is among the best.

    A trial that was stopped early counts with its best value: it is held against the best ones, and never was among
    them. The same trials give the same answer.

    Args:
        trials: Of one sweep, in any order.
        scales: Of each parameter.
    """
    counted = sorted((t for t in trials if t.status in ENDED and t.best_metric is not None), key=lambda t: t.trial_id)
    if len(counted) < FEWEST:
        return Importance(
            None, len(counted), f"needs {FEWEST} trials that have ended with a value; {len(counted)} have"
        )
    if len({trial.score for trial in counted}) == 1:
        return Importance(None, len(counted), "all trials have the same value")
    varied = [path for path in scales if len({_text(trial.parameters.get(path)) for trial in counted}) > 1]
    varied = [path for path in varied if all(path in trial.parameters for trial in counted)]
    if not varied:
        return Importance(None, len(counted), "no parameter has two values")
    return Importance(_shares(counted, {path: scales[path] for path in varied}), len(counted))


def _shares(trials: Sequence[TrialRecord], scales: Mapping[str, Scale]) -> dict[str, float]:
    import optuna  # it brings scikit-learn and pandas, for one of the service's answers

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    columns = {path: [_value(trial.parameters[path], scale) for trial in trials] for path, scale in scales.items()}
    distributions = {path: _distribution(columns[path], scale) for path, scale in scales.items()}
    study = optuna.create_study()
    for at, trial in enumerate(trials):
        values = {path: column[at] for path, column in columns.items()}
        made = optuna.trial.create_trial(params=values, distributions=distributions, value=trial.score)
        study.add_trial(made)
    top = min(0.5, max(0.1, _TOP / len(trials)))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=top)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {path: found[path] for path in scales}


def _distribution(column: Sequence[Any], scale: Scale) -> Any:
    import optuna

    if scale == "choice":
        return optuna.distributions.CategoricalDistribution(sorted(set(column)))
    log = scale == "log" and min(column) > 0
    return optuna.distributions.FloatDistribution(min(column), max(column), log=log)


def _value(value: Any, scale: Scale) -> Any:
    return _text(value) if scale == "choice" else float(value)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
