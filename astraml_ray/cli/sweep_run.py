"""`astraml run` of a spec with a sweep: its trials as they go, and the best one at the end."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any

from astraml_ray.cli.outcome import stop_on_signals
from astraml_ray.errors import RunStopped
from astraml_ray.settings import Settings
from astraml_ray.training.stop import Stop

if TYPE_CHECKING:
    from astraml_ray.spec import JobSpec
    from astraml_ray.training.preparation import RunInputs
    from astraml_ray.training.run_folder import RunFolder

__all__ = ["new_sweep", "show_sweep", "sweep_on"]

_MOST_SHOWN = 20


def new_sweep(spec: JobSpec, folder: RunFolder, process: Settings, stop: Stop) -> dict[str, Any]:
    """Runs a sweep in a new folder; returns its result."""
    from astraml_ray.tuning.sweep import begin_sweep, prepare_sweep

    inputs, warnings = prepare_sweep(spec, process)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    begin_sweep(spec, inputs, folder)
    return sweep_on(inputs, folder, process, stop)


def sweep_on(inputs: RunInputs, folder: RunFolder, process: Settings, stop: Stop) -> dict[str, Any]:
    """Runs the trials that a sweep's folder still lacks; returns its result."""
    from astraml_ray.training.attempt import Watcher
    from astraml_ray.training.cluster import cluster
    from astraml_ray.tuning.sweep import run_sweep

    if stop.is_set():
        raise RunStopped("stopped before the training began", hint="nothing was trained; run it again")
    with cluster(process, inputs.spec.resources.workers or 1) as local_cores:
        stop_on_signals(stop)  # ray.init has put its own handlers there
        print(f"run {folder.uri}", file=sys.stderr, flush=True)
        watcher = Watcher(_tell, stop, grace_s=math.inf)
        return run_sweep(inputs, folder, watcher, process, local_cores=local_cores)


def _tell(event: dict[str, Any]) -> None:
    if event.get("message"):
        print(event["message"], file=sys.stderr, flush=True)


def show_sweep(result: dict[str, Any]) -> None:
    """Prints a sweep's result: its trials, the best first, and where the best model is."""
    sweep = result["sweep"]
    trials = sorted(sweep["trials"], key=lambda trial: _rank(trial, lower=sweep["mode"] == "min"))
    print(f"{result['status']}: {result['reason']}, {len(trials)} trials in {sweep['seconds']:.0f} s")
    for trial in trials[:_MOST_SHOWN]:
        value = "-" if trial["best_metric"] is None else f"{trial['best_metric']:.4f}"
        values = ", ".join(f"{path}={_short(given)}" for path, given in trial["parameters"].items())
        print(f"  {trial['trial_id']}  {value:>8}  step {trial['step']:<6} {trial['status']:9}  {values}")
    if len(trials) > _MOST_SHOWN:
        print(f"  and {len(trials) - _MOST_SHOWN} more: {result['run_path']}/sweep.json")
    print(f"best trial {sweep['best_trial']}, by {sweep['metric']}")
    for name, value in sorted(result["metrics"].items()):
        print(f"  {name:24} {value:.4f}")
    print(f"model {result['model_path']}")


def _rank(trial: dict[str, Any], *, lower: bool) -> float:
    value = trial["best_metric"]
    if value is None:
        return math.inf
    return float(value if lower else -value)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
