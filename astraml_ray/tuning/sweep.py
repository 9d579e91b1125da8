"""Runs a sweep: its trials, and then the best one's model as the run's own."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import ray
import torch

from astraml_ray.errors import AstraError, DataError, InfrastructureError, Problem, RunStopped
from astraml_ray.settings import Settings
from astraml_ray.spec import JobSpec
from astraml_ray.spec.documents import changed
from astraml_ray.spec.loading import parse_spec
from astraml_ray.spec.placement import Placement
from astraml_ray.spec.sweep import Sweep
from astraml_ray.training.attempt import Watcher, run_channel
from astraml_ray.training.channel import SilentReporter
from astraml_ray.training.collectives import World
from astraml_ray.training.failures import classify
from astraml_ray.training.orphans import remove_orphans, remove_own_groups
from astraml_ray.training.preparation import RunInputs, prepare, store_inputs
from astraml_ray.training.receipt import build_result, read_result, write_account
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.training.secrets import ValueOf, masker_of
from astraml_ray.training.translation.stage import translate_rows
from astraml_ray.training.worker import Assignment, best_model, publish_model
from astraml_ray.tuning.director import Director, trial_folder
from astraml_ray.tuning.journal import Journal, read_sweep, write_sweep
from astraml_ray.tuning.ledger import Ledger
from astraml_ray.tuning.places import arrange
from astraml_ray.tuning.session import within_memory
from astraml_ray.tuning.trainable import Shared
from astraml_ray.tuning.trials import (
    augmentations_in,
    check_preparation,
    evaluations_of,
    extremes,
    goal_of,
    seated,
    trial_id,
    trial_inputs,
    watching,
)
from astraml_ray.tuning.tuner import run_trials

__all__ = ["begin_sweep", "prepare_sweep", "run_sweep"]

_LOG = logging.getLogger(__name__)
_DRAIN_S = 0.5


def prepare_sweep(
    spec: JobSpec, settings: Settings, *, secrets: ValueOf | None = None
) -> tuple[RunInputs, list[Problem]]:
    """As prepare, of all trials: what can only be checked with the dataset and the models at hand is checked.

    Raises:
        AstraError: A trial could not be prepared.
    """
    sweep, goal = spec.sweep, goal_of(spec)
    assert sweep is not None
    inputs, warnings = prepare(watching(spec, goal), settings, secrets=secrets)
    if spec.hyperparams.early_stopping is None:
        # Trials have one that never fires, so that the sweep's metric picks their best model.
        warnings = [warning for warning in warnings if not warning.param.startswith("/hyperparams/early_stopping")]
    inputs = replace(inputs, spec=inputs.spec.model_copy(update={"sweep": sweep}))
    check_preparation(inputs, spec.canonical(), goal, settings)
    evaluations = evaluations_of(inputs.spec, inputs.train_rows)
    if sweep.scheduler in ("asha", "hyperband", "median") and evaluations <= sweep.grace:
        message = f"a trial has {evaluations} evaluations, so {sweep.scheduler} never stops one"
        warnings.append(Problem("/sweep/scheduler", message, "lower hyperparams.eval_every, or sweep.grace"))
    return inputs, warnings


def begin_sweep(spec: JobSpec, inputs: RunInputs, folder: RunFolder) -> None:
    """Writes the folder of a sweep.

    Args:
        spec: As it was submitted.
        inputs: Prepared of it.
        folder: Of the sweep.

    Raises:
        StorageError: The folder cannot be written.
    """
    write_sweep(folder, {"document": spec.canonical(), **Ledger(goal_of(spec), cpus=0.0, gpus=0.0).to_dict()})
    store_inputs(inputs, folder)


def run_sweep(
    inputs: RunInputs,
    folder: RunFolder,
    watcher: Watcher,
    settings: Settings,
    *,
    local_cores: int | None,
    most: int | None = None,
) -> dict[str, Any]:
    """Runs a sweep that was begun to its end, or goes on with it; one that is over answers with its result.

    Args:
        inputs: Of the sweep's folder.
        folder: Of the sweep.
        watcher: Who follows it. It gets the events `sweep_started` and `trial` (also of trials that ended in an earlier
            sitting, then without a message), and as a record `sweep/best` after each trial.
        settings: Of this process.
        local_cores: Cores of this machine if the cluster is this machine alone, else None.
        most: Trials at a time that the cluster has admitted; None is as many as it holds.

    Returns:
        As run_attempts, of the best trial, and `sweep`.

    Raises:
        RunStopped: The watcher asked for it; all trials are saved.
        AstraError: What trials failed of, if all of them do.
    """
    if (result := read_result(folder)) is not None:
        return result
    remove_orphans()
    remove_own_groups()
    started = time.time()
    sweep = inputs.spec.sweep
    assert sweep is not None
    data = read_sweep(folder)
    total = ray.cluster_resources()
    placement, concurrent = arrange(
        sweep,
        inputs.spec.resources,
        cpus=total.get("CPU", 0.0),
        gpus=total.get("GPU", 0.0),
        local_cores=local_cores,
        most=most,
    )
    inputs = replace(_placed(inputs, placement), translations=folder.uri)
    _translate(inputs, data["document"], replace(placement, workers=placement.workers * concurrent), watcher)
    with run_channel() as channel:
        shared = Shared(inputs, data["document"], goal_of(parse_spec(data["document"])), folder, placement, channel)
        run = _Sweep(sweep, shared, watcher, concurrent=concurrent, saved=data)
        run.work()
        return run.conclude(settings, started=started, here=local_cores is not None and not placement.gpus_per_worker)


def _placed(inputs: RunInputs, placement: Placement) -> RunInputs:
    resources = inputs.spec.resources.model_copy(
        update={
            "gpus": placement.workers * placement.gpus_per_worker,
            "workers": placement.workers,
            "cpus_per_worker": placement.cpus_per_worker,
            "threads_per_worker": placement.threads,
        }
    )
    return replace(inputs, spec=inputs.spec.model_copy(update={"resources": resources}))


def _translate(inputs: RunInputs, document: Mapping[str, Any], placement: Placement, watcher: Watcher) -> None:
    """Translates the training texts once, for all trials.

    Args:
        inputs: Of the sweep.
        document: As it was submitted.
        placement: The places of all trials that run at a time.
        watcher: Who follows.

    Raises:
        RunStopped: The watcher asked for it.
    """
    for augmentation in augmentations_in(inputs, document):
        variant = replace(inputs, spec=inputs.spec.model_copy(update={"augmentation": augmentation}))
        if not translate_rows(variant, placement, watcher):
            hint = f"go on: astraml run --resume {inputs.translations}"
            raise RunStopped("stopped before the first trial", param=inputs.translations, hint=hint)


class _Sweep:
    """One sitting of a sweep."""

    def __init__(
        self, sweep: Sweep, shared: Shared, watcher: Watcher, *, concurrent: int, saved: Mapping[str, Any]
    ) -> None:
        self._sweep = sweep
        self._shared = shared
        self._watcher = watcher
        self._error: AstraError | None = None
        self._reason: str | None = None
        self._drained = 0.0
        self._ended = 0
        placement = shared.placement
        self._ledger = Ledger(
            shared.goal,
            cpus=placement.workers * placement.cpus_per_worker,
            gpus=placement.workers * placement.gpus_per_worker,
        )
        self._ledger.restore(dict(saved))
        self._director = Director(
            sweep,
            self._ledger,
            Journal(shared.folder, saved),
            shared.folder,
            self._tell,
            evaluations=max(evaluations_of(self._spec_of(values), self._rows) for values in extremes(sweep)),
            concurrent=concurrent,
            masker=masker_of(shared.inputs.spec, shared.inputs.secrets),
        )

    @property
    def _rows(self) -> int:
        return self._shared.inputs.train_rows

    def work(self) -> None:
        """Runs the trials.

        Raises:
            AstraError: The sweep has failed.
            RunStopped: It was asked to stop, now.
        """
        described = self._description()
        message = "{trials} trials, {algorithm} search, {scheduler}, by {metric} ({mode})".format(**described)
        going_on = f"; {len(self._ledger.trials)} are there already" if self._ledger.trials else ""
        self._watcher.on_event({"event": "sweep_started", "message": message + going_on, "sweep": described})
        # Whoever was told died, or had not heard it yet, or is of a new job.
        self._director.tell_ended()
        if not self._director.is_over and not self._over():
            try:
                limits = self._shared.inputs.spec.limits
                run_trials(
                    self._director,
                    self._shared,
                    self._shared.placement,
                    max_failures=limits.max_retries,
                    over=self._over,
                )
            except AstraError:
                raise
            except Exception as error:
                raise classify(error) from error
            finally:
                self._drain()
        self._end()

    def _end(self) -> None:
        """What becomes of a sweep whose trials run no more."""
        error = self._error or self._director.hopeless()
        mode = self._watcher.stop.mode
        folder = self._shared.folder
        hint = f"go on: astraml run --resume {folder.uri}"
        self._reason = self._director.end_reason(mode)
        if error is None and self._reason is None:
            error = InfrastructureError("Ray Tune has ended before the trials had", param=folder.uri, hint=hint)
        self._director.close(None if error or mode == "now" else self._reason)
        if error is not None:
            raise error
        if mode == "now":
            ended = sum(trial.ended for trial in self._ledger.trials)
            raise RunStopped(f"stopped and saved with {ended} trials done", param=folder.uri, hint=hint)
        if self._ledger.best() is None:
            if mode is not None:
                raise RunStopped("stopped before the first evaluation of a trial", param=folder.uri, hint=hint)
            raise DataError(
                f"no trial has a {self._shared.goal.metric} that is finite",
                param="/sweep",
                hint="give the budget room for one evaluation, or look at the trials' errors",
            )

    def conclude(self, settings: Settings, *, started: float, here: bool) -> dict[str, Any]:
        """Publishes the best trial's model, and writes the sweep's account."""
        best = self._ledger.best()
        assert best is not None
        shared, folder = self._shared, self._shared.folder
        trial = trial_folder(folder, best.number)
        inputs = trial_inputs(shared.inputs, shared.document, best.parameters, shared.goal, settings, folder=trial)
        arguments = (inputs, trial, folder, shared.placement.threads)
        if here:
            outcome = _publish(*arguments)
        else:
            kind = ray.remote(num_cpus=shared.placement.cpus_per_worker, num_gpus=shared.placement.gpus_per_worker)
            try:
                outcome = ray.get(kind(_publish).remote(*arguments))
            except ray.exceptions.RayError as error:
                raise classify(error) from error
        outcome["reason"] = self._reason
        result = build_result(inputs, folder, outcome, attempts=1, divisor=1)
        result["sweep"] = {
            **self._description(),
            "best_trial": trial_id(best.number),
            "trials": self._director.records(),
            "seconds": round(self._ledger.seconds, 3),
            "gpu_hours": round(self._ledger.gpu_hours, 6),
            "cpu_hours": round(self._ledger.cpu_hours, 6),
        }
        write_account(result, inputs, folder, outcome, started=started)
        return result

    def _description(self) -> dict[str, Any]:
        return {
            "metric": self._shared.goal.metric,
            "mode": self._shared.goal.mode,
            "trials": self._sweep.count,
            "algorithm": self._sweep.kind,
            "scheduler": self._sweep.scheduler,
        }

    def _over(self) -> bool:
        """Whether no trial should run any more."""
        if time.monotonic() - self._drained > _DRAIN_S:
            self._drain()
        self._error = self._error or self._director.hopeless()
        return self._error is not None or self._watcher.stop.is_set() or self._director.used_up()

    def _drain(self) -> None:
        self._drained = time.monotonic()
        _, batches, _ = ray.get(self._shared.channel.drain.remote())
        for source, lines in batches if self._watcher.on_lines is not None else ():
            self._watcher.on_lines(source, lines)  # type: ignore[misc]

    def _tell(self, event: dict[str, Any]) -> None:
        self._watcher.on_event(event)
        ended = sum(trial.ended for trial in self._ledger.trials)
        best = self._ledger.best()
        if ended > self._ended and best is not None:
            self._ended = ended
            record = {"step": ended, "epoch": float(ended), "sweep/best": best.best_metric, "time": time.time()}
            self._watcher.on_event(record)

    def _spec_of(self, values: Mapping[str, Any]) -> JobSpec:
        document = {key: value for key, value in self._shared.document.items() if key != "sweep"}
        return watching(parse_spec(changed(document, values)), self._shared.goal)


def _publish(inputs: RunInputs, trial: RunFolder, folder: RunFolder, threads: int) -> dict[str, Any]:
    """Scores the test set with a trial's best model, and writes it as the sweep's."""
    inputs, device = seated(inputs)

    def score(divisor: int) -> tuple[torch.nn.Module, dict[str, Any]]:
        assignment = Assignment(inputs, trial, None, 0, threads, divisor=divisor)
        return best_model(assignment, World(device=device), SilentReporter())

    model, outcome = within_memory(score, rows=inputs.spec.hyperparams.batch_size)
    return {**outcome, "weights_sha256": publish_model(model, inputs, folder)}
