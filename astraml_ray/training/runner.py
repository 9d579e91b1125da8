"""Runs a spec: prepare, then one attempt after another until it is done, from the last checkpoint each time."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray

from astraml_ray.errors import AstraError, RepeatedFailureError, RunStopped
from astraml_ray.spec import JobSpec
from astraml_ray.spec.placement import Placement, place
from astraml_ray.training.attempt import Attempt, Watcher
from astraml_ray.training.checkpoint import FolderCheckpoints
from astraml_ray.training.failures import AttemptFailure, Decision, decide, divisor_after, error_class
from astraml_ray.training.orphans import remove_orphans
from astraml_ray.training.preparation import RunInputs, store_inputs
from astraml_ray.training.receipt import build_result, read_result, write_account
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.training.translation.stage import translate_rows

__all__ = ["Watcher", "new_run_id", "run_attempts", "start_run"]

_UNTOUCHED: dict[str, Any] = {"reason": "stopped"}


def new_run_id(spec: JobSpec) -> str:
    """A name for the run's folder, sortable by time."""
    base = spec.name or spec.model.name.rstrip("/").rsplit("/", 1)[-1] or "run"
    clean = "".join(c if c.isalnum() or c in "._-" else "-" for c in base).strip(".-_")[:60]
    return f"{clean or 'run'}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"


def start_run(inputs: RunInputs, folder: RunFolder, local_cores: int | None) -> tuple[RunInputs, Placement]:
    """Fits the run to the cluster, and writes the resolved spec and the inputs into its folder.

    Raises:
        ResourcesError: The cluster cannot hold the run.
        StorageError: The folder cannot be written.
    """
    total = ray.cluster_resources()
    placement = place(
        inputs.spec.resources, cpus=total.get("CPU", 0.0), gpus=total.get("GPU", 0.0), local_cores=local_cores
    )
    resources = inputs.spec.resources.model_copy(
        update={
            "gpus": placement.workers * placement.gpus_per_worker,
            "workers": placement.workers,
            "cpus_per_worker": placement.cpus_per_worker,
            "threads_per_worker": placement.threads,
        }
    )
    spec = inputs.spec.model_copy(update={"resources": resources})
    inputs = replace(inputs, spec=spec)
    store_inputs(inputs, folder)
    return inputs, placement


def run_attempts(
    inputs: RunInputs,
    folder: RunFolder,
    placement: Placement,
    watcher: Watcher,
    *,
    history: Sequence[AttemptFailure] = (),
    stop_after: int | None = None,
) -> dict[str, Any]:
    """Trains to the end, trying again from the last checkpoint where that may help.

    A run that is over already answers with its result. Whatever happens, no actor and no placement group is left.

    Args:
        inputs: Of the run.
        folder: Of the run.
        placement: What the workers get.
        watcher: Who follows it. Besides records it gets the events `attempt_started` and `attempt_failed`, and those
            of translate_rows.
        history: Failures of earlier attempts, if whoever watched them was restarted.
        stop_after: See loop.train; such a run writes no result.

    Returns:
        The result object of `astraml run --output json`; also written as result.json, beside receipt.json. Its
        `status` is `cancelled` if the run was stopped and its best model kept.

    Raises:
        RunStopped: The watcher asked for it; the run is saved.
        AstraError: What failed, when trying again does not help.
    """
    if stop_after is None and (result := read_result(folder)) is not None:
        return result
    inputs = replace(inputs, translations=inputs.translations or folder.uri)
    remove_orphans()
    checkpoints = FolderCheckpoints(folder, keep=inputs.spec.checkpoint.keep)
    failures = list(history)
    started = time.time()
    while True:
        if _wants_to_leave(watcher):
            raise _stopped(folder, checkpoints.latest_progress().step)
        start, divisor = checkpoints.latest_progress().step, divisor_after(failures)
        number = len(failures) + 1
        watcher.on_event(_started(number, start, divisor))
        attempt = Attempt(inputs, folder, placement, watcher, start=start, divisor=divisor, stop_after=stop_after)
        try:
            outcome = attempt.run() if translate_rows(inputs, placement, watcher) else _UNTOUCHED
            break
        except AstraError as error:
            step = checkpoints.latest_progress().step
            failures.append(AttemptFailure(error.code, error.message, step, attempt.last_step, error.rank))
            decision = _decide(error, failures, inputs, placement)
            watcher.on_event(_failed(number, error, failures[-1], decision))
            if not decision.retry and not (error.retryable and _wants_to_leave(watcher)):
                raise _final(error, decision) from error
        watcher.stop.wait(decision.delay_s)
    if outcome["reason"] == "stopped":
        late = watcher.grace_s if attempt.forced else None
        raise _stopped(folder, outcome.get("steps", checkpoints.latest_progress().step), late=late)
    result = build_result(inputs, folder, outcome, attempts=number, divisor=divisor)
    if stop_after is None:
        write_account(result, inputs, folder, outcome, started=started)
    return result


def _wants_to_leave(watcher: Watcher) -> bool:
    return watcher.stop.mode == "now"


def _decide(error: AstraError, failures: Sequence[AttemptFailure], inputs: RunInputs, placement: Placement) -> Decision:
    hyper = inputs.spec.hyperparams
    return decide(
        error,
        failures,
        max_retries=inputs.spec.limits.max_retries,
        micro_rows=hyper.batch_size,
        workers=placement.workers,
        accumulation=hyper.gradient_accumulation_steps,
        jitter=random.random(),
    )


def _final(error: AstraError, decision: Decision) -> AstraError:
    """The error that a run ends with: the last one, or that it is always the same."""
    if decision.reason == error.code:
        error.message = decision.message
        return error
    final = RepeatedFailureError(decision.message, param=error.param, hint=error.hint)
    final.rank = error.rank
    return final


def _stopped(folder: RunFolder, step: int, *, late: float | None = None) -> RunStopped:
    lost = f"; the workers were ended after {late:g} s, and what they did since is lost" if late else ""
    stopped = RunStopped(
        f"stopped and saved at step {step}{lost}" if step else f"stopped before the first checkpoint{lost}",
        param=folder.uri,
        hint=f"go on: astraml run --resume {folder.uri}",
    )
    stopped.step = step
    return stopped


def _started(number: int, start: int, divisor: int) -> dict[str, Any]:
    message = f"attempt {number} starts " + (f"from step {start}" if start else "at the beginning")
    return {"event": "attempt_started", "message": message, "attempt": number, "step": start, "divisor": divisor}


def _failed(number: int, error: AstraError, failure: AttemptFailure, decision: Decision) -> dict[str, Any]:
    return {
        "event": "attempt_failed",
        "message": decision.message,
        "attempt": number,
        "error": {**error.as_dict(), "class": error_class(error), "retryable": error.retryable, "rank": error.rank},
        "step": failure.step,
        "failed_step": failure.failed_step,
        "next": "retry" if decision.retry else "give_up",
        "delay_s": round(decision.delay_s, 3),
        "divisor": decision.divisor,
    }
