"""The sweep under Ray Tune: its searcher, scheduler, callback and stopper, all of which ask the director."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from astraml_ray.settings import apply_tune_environment
from astraml_ray.spec.placement import Placement
from astraml_ray.training.failures import classify
from astraml_ray.tuning.director import Director
from astraml_ray.tuning.trainable import Shared, TrialPlace
from astraml_ray.tuning.trials import Course

__all__ = ["run_trials"]

_ENDLESS = 1_000_000
_TEAM_CPUS = 0.01


def run_trials(
    director: Director, shared: Shared, placement: Placement, *, max_failures: int, over: Callable[[], bool]
) -> None:
    """Runs trials until all have ended, or `over` says so.

    Args:
        director: Of the sweep.
        shared: What trials have in common.
        placement: Of each trial.
        max_failures: How often a trial whose process died is tried again, from its checkpoint.
        over: Asked many times a second.
    """
    apply_tune_environment(trials=director.concurrent)
    # It warns of files that it was told not to write.
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    scratch = Path(tempfile.gettempdir()) / "astraml-ray-tune" / uuid.uuid4().hex
    place: Any = tune.with_parameters(TrialPlace, shared=shared)
    try:
        tune.Tuner(
            tune.with_resources(place, tune.PlacementGroupFactory([_bundle(placement)])),
            tune_config=tune.TuneConfig(
                search_alg=_Search(director),
                scheduler=_Scheduler(director),
                num_samples=_ENDLESS,
                reuse_actors=True,
                trial_name_creator=_name_of,
                trial_dirname_creator=_name_of,
            ),
            run_config=tune.RunConfig(
                name=shared.folder.name,
                storage_path=str(scratch),
                failure_config=tune.FailureConfig(max_failures=max_failures),
                callbacks=[_Callback(director)],
                stop=_Stopper(over),
                verbose=0,
            ),
        ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _bundle(placement: Placement) -> dict[str, float]:
    """What a trial's place takes; several workers have a placement group of their own."""
    if placement.workers > 1:
        return {"CPU": _TEAM_CPUS}
    bundle: dict[str, float] = {"CPU": placement.cpus_per_worker}
    return bundle | ({"GPU": placement.gpus_per_worker} if placement.gpus_per_worker else {})


def _config(director: Director, number: int) -> dict[str, Any]:
    """Tune's configuration of a trial; the plan goes as text, or Tune would take it apart."""
    return {"number": number, "plan": json.dumps(director.plan(number))}


def _number_of(trial: Any) -> int:
    number: int = trial.config["number"]
    return number


def _name_of(trial: Any) -> str:
    return f"t{_number_of(trial):04d}-{trial.trial_id}"


class _Unsaved:
    """What Tune would pickle with its own state, which is never read: the ledger is. Whoever follows the sweep hangs
    on these, with locks and secrets that must not be written anywhere."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (object, ())

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self


class _Search(_Unsaved, Searcher):  # type: ignore[misc]
    def __init__(self, director: Director) -> None:
        super().__init__()
        self._director = director

    def suggest(self, trial_id: str) -> Any:
        if self._director.is_over:
            return Searcher.FINISHED
        number = self._director.next_trial()
        return None if number is None else _config(self._director, number)

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """The director has heard of it from the scheduler."""


class _Scheduler(_Unsaved, TrialScheduler):  # type: ignore[misc]
    def __init__(self, director: Director) -> None:
        super().__init__()
        self._director = director

    def set_search_properties(self, metric: Any, mode: Any, **spec: Any) -> bool:
        return True

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """The director has named it."""

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self._director.interrupted(_number_of(trial))

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Trials are removed only at the end."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        number, told = _number_of(trial), json.loads(result["told"])
        if result["kind"] == "progress":
            if told:
                self._director.progressed(number, told["step"], told["epoch"])
            return str(TrialScheduler.CONTINUE)
        scores = {name: value for name, value in told.items() if "/" in name}
        course = Course(**told["course"])
        answer = self._director.evaluated(number, told["step"], told["epoch"], scores, course)
        if answer == "pause":
            trial.set_config(_config(self._director, number))
            tune_controller.pause_trial(trial, should_checkpoint=False)
            return str(TrialScheduler.NOOP)
        return str(TrialScheduler.STOP if answer == "stop" else TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        number, told = _number_of(trial), json.loads(result["told"])
        if result["kind"] == "finished":
            self._director.finished(number, told["reason"], told["steps"])
        elif result["kind"] == "failed":
            self._director.failed(number, told)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        trials = tune_controller.get_live_trials()
        pending = [t for t in trials if t.status == "PENDING"]
        if pending:
            return min(pending, key=_number_of)
        number = self._director.next_paused()
        chosen = next((t for t in trials if t.status == "PAUSED" and _number_of(t) == number), None)
        if chosen is not None:
            self._director.resume(_number_of(chosen))
        return chosen

    def debug_string(self) -> str:
        return "a sweep"


class _Callback(_Unsaved, tune.Callback):  # type: ignore[misc]
    def __init__(self, director: Director) -> None:
        self._director = director

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._director.started(_number_of(trial))

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        error = trial.get_pickled_error() or trial.get_error() or RuntimeError("the trial's process died")
        self._director.failed(_number_of(trial), classify(error).as_dict())


class _Stopper(_Unsaved, tune.Stopper):  # type: ignore[misc]
    def __init__(self, over: Callable[[], bool]) -> None:
        self._over = over

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._over()
