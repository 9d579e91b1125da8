"""A job's run, inside its runner: from the order to the end, whatever happens."""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import asdict
from typing import Any

from astraml_ray.control.outbox import Outbox
from astraml_ray.control.run_secrets import RunSecrets
from astraml_ray.data.changes import digest_of, listing_digest
from astraml_ray.errors import AstraError, ResourcesError, RunStopped
from astraml_ray.settings import load_settings
from astraml_ray.spec.loading import parse_spec
from astraml_ray.spec.placement import Placement
from astraml_ray.spec.schedule import DATASET_UNCHANGED
from astraml_ray.spec.states import JobStatus
from astraml_ray.training.checkpoint import FolderCheckpoints
from astraml_ray.training.failures import AttemptFailure
from astraml_ray.training.fork import continue_from
from astraml_ray.training.logs import LogCapture, capture_logs
from astraml_ray.training.preparation import RunInputs, load_inputs, prepare
from astraml_ray.training.progress import ProgressTracker
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.training.runner import Watcher, run_attempts, start_run
from astraml_ray.training.secrets import dataset_secret
from astraml_ray.training.stop import Stop
from astraml_ray.training.timetable import Timetable
from astraml_ray.tuning.fork import continue_sweep
from astraml_ray.tuning.journal import SWEEP_FILE
from astraml_ray.tuning.sweep import begin_sweep, prepare_sweep, run_sweep

__all__ = ["RunJob"]

_LOG = logging.getLogger(__name__)
_STATUS = {"succeeded": JobStatus.SUCCEEDED, "cancelled": JobStatus.CANCELLED}


class RunJob:
    """One incarnation's work on a job. Everything it tells goes into the outbox."""

    def __init__(self, order: dict[str, Any], *, local_cores: int | None, outbox: Outbox, secrets: RunSecrets) -> None:
        self.stop = Stop()
        self.secrets = secrets
        if order["stop"]:
            self.stop.request(order["stop"])
        self._order = order
        self._local_cores = local_cores
        self._outbox = outbox
        self._attempt = order["attempts"]
        # Attempts that ended without a failure of their own: the run counts from its failures.
        self._earlier = order["attempts"] - len(order["failures"])
        self._folder = RunFolder(order["run_path"])
        # Its lines are numbered from 1 again in each incarnation.
        self._source = f"runner-{uuid.uuid4().hex}"
        self._progress: ProgressTracker | None = None
        # None if it does not matter, or of a controller that does not know of it.
        self._before: dict[str, Any] | None = order.get("trained_before")
        self._dataset: str | None = None

    def _renew_secrets(self, attempt: int, capture: LogCapture | None = None) -> None:
        """An attempt has secrets of its own, and from now on none of them is told."""
        self.secrets.renew(attempt)
        self._outbox.hide(self.secrets.masker)
        if capture is not None:
            capture.hide(self.secrets.masker)
            for warning in self.secrets.masker.warnings:
                _LOG.warning("%s", warning)

    def run(self) -> None:
        """Runs the job to its end, and leaves that end in the outbox."""
        with capture_logs(self._take_lines, rank=None) as capture:
            try:
                self._renew_secrets(self._attempt + 1, capture)
                end = self._train()
            except RunStopped as stopped:
                end = _end(JobStatus.CANCELLED, "cancelled", stopped.message)
            except ResourcesError as error:
                end = _end(JobStatus.QUEUED, error.code, error.message)
            except AstraError as error:
                _LOG.error("%s", error)
                end = _end(JobStatus.FAILED, error.code, error.message, error=error.as_dict())
            except BaseException as error:
                _LOG.exception("the run failed by a fault of this program")
                fault = AstraError(f"{type(error).__name__}: {error}", hint="this is a fault of astraml: report it")
                end = _end(JobStatus.FAILED, fault.code, fault.message, error=fault.as_dict())
        self._outbox.set_state(end={**end, "dataset": self._dataset})

    def _train(self) -> dict[str, Any]:
        if self._has_nothing_new():
            message = f"the dataset is the same as that of {(self._before or {})['job_id']}; nothing was trained"
            return _end(JobStatus.SUCCEEDED, DATASET_UNCHANGED, message)
        inputs = self._inputs()
        if self._before is not None:
            self._dataset = digest_of(inputs.spec.dataset, inputs.manifest.objects)
        if inputs.spec.sweep is not None:
            return self._sweep(inputs)
        if self.stop.is_set() and not self._folder.exists("checkpoints"):
            raise RunStopped("cancelled before the training began")
        inputs, placement = start_run(inputs, self._folder, self._local_cores)
        self._progress = _tracker(inputs)
        self._outbox.set_state(progress=self._progress.snapshot())
        _LOG.info("run %s: %s", self._folder.uri, _described(placement))
        watcher = Watcher(self._take_record, self.stop, on_lines=self._take_attempt_lines)
        result = run_attempts(inputs, self._folder, placement, watcher, history=self._history())
        return _end(_STATUS[result["status"]], result["reason"], None, result=result)

    def _sweep(self, inputs: RunInputs) -> dict[str, Any]:
        """Runs the trials; the job's progress is that of the trials, and follows from them where they are stored."""
        self._outbox.set_state(status=JobStatus.RUNNING.value)
        number = len(self._order["failures"]) + 1
        message = "the sweep starts" if number == 1 else "the sweep goes on"
        self._take_record({"event": "attempt_started", "message": message, "attempt": number, "step": 0, "divisor": 1})
        watcher = Watcher(self._take_record, self.stop, on_lines=self._take_attempt_lines)
        result = run_sweep(
            inputs,
            self._folder,
            watcher,
            load_settings(),
            local_cores=self._local_cores,
            most=self._order.get("trials_at_once"),
        )
        return _end(_STATUS[result["status"]], result["reason"], None, result=result)

    def _has_nothing_new(self) -> bool:
        """Whether the dataset is still what an earlier job of the schedule has trained on. Not when in doubt."""
        if self._before is None or self._before["digest"] is None or self._folder.exists("inputs.json"):
            return False
        spec = parse_spec(self._order["spec"])
        try:
            digest = listing_digest(spec.dataset, dataset_secret(spec, self.secrets.source))
        except AstraError as error:
            # The run meets it too, and tells of it.
            _LOG.warning("the dataset could not be compared: %s", error)
            return False
        return bool(digest == self._before["digest"])

    def _inputs(self) -> RunInputs:
        """Of this run's folder if it was begun, of the run that it goes on with, or made anew."""
        source = self.secrets.source
        if self._folder.exists("inputs.json"):
            return self.secrets.given_to(load_inputs(self._folder, secrets=source))
        if self._order["parent_run_path"]:
            parent = RunFolder(self._order["parent_run_path"])
            (continue_sweep if parent.exists(SWEEP_FILE) else continue_from)(parent, self._folder)
            return self.secrets.given_to(load_inputs(self._folder, secrets=source))
        spec = parse_spec(self._order["spec"])
        prepared = prepare_sweep if spec.sweep is not None else prepare
        inputs, warnings = prepared(spec, load_settings(), secrets=source)
        self._outbox.set_state(warnings=[asdict(warning) for warning in warnings])
        for warning in warnings:
            _LOG.warning("%s", warning)
        inputs = self.secrets.given_to(inputs)
        if spec.sweep is not None:
            begin_sweep(spec, inputs, self._folder)
        return inputs

    def _history(self) -> list[AttemptFailure]:
        """The failures so far; one of a runner that died goes on from the checkpoint that is there now."""
        step: int | None = None
        failures = []
        for failure in self._order["failures"]:
            if failure["step"] is None:
                step = FolderCheckpoints(self._folder, keep=1).latest_progress().step if step is None else step
                data = {"attempt": self._attempt, "step": step}
                message = f"going on from step {step}, where the lost runner had saved"
                self._outbox.add_event("run_resumed", message, data, at=time.time())
            where = step if failure["step"] is None else failure["step"]
            failures.append(
                AttemptFailure(
                    code=failure["code"],
                    message=failure["message"],
                    step=where or 0,
                    failed_step=failure.get("failed_step"),
                    rank=failure.get("rank"),
                )
            )
        return failures

    def _take_record(self, record: dict[str, Any]) -> None:
        """A training record, or an event of the run or of a sweep's trial."""
        now = time.time()
        if record.get("event") == "trial":
            # The events of its start and end are made where it is known whether it has been told before.
            self._outbox.add_trial(record["trial"])
            self._outbox.set_state(status=JobStatus.RUNNING.value)
            return
        if "event" in record:
            if record["event"] == "sweep_started":
                self._outbox.set_state(sweep=record["sweep"])
            data = {key: value for key, value in record.items() if key not in ("event", "message")}
            if "attempt" in data:
                data["attempt"] += self._earlier
                self._attempt = data["attempt"]
            if record["event"] == "attempt_started":
                self._renew_secrets(self._attempt)
            self._outbox.add_event(record["event"], record.get("message"), data, at=now)
            _LOG.info("%s", record.get("message"))
            return
        at = float(record.get("time", now))
        self._outbox.add_metrics(record, at=at)
        if self._progress is not None:
            self._progress.add(record, at)
            self._outbox.set_state(status=JobStatus.RUNNING.value, progress=self._progress.snapshot())

    def _take_lines(self, lines: list[dict[str, Any]]) -> None:
        self._outbox.add_lines(self._source, self._attempt, lines)

    def _take_attempt_lines(self, source: str, lines: list[dict[str, Any]]) -> None:
        self._outbox.add_lines(source, self._attempt, lines)


def _tracker(inputs: RunInputs) -> ProgressTracker:
    hyper = inputs.spec.hyperparams
    timetable = Timetable.of(hyper, inputs.train_rows)
    return ProgressTracker(
        total_steps=timetable.total_steps,
        steps_per_epoch=timetable.steps_per_epoch,
        epochs=hyper.epochs,
        eval_steps=hyper.eval_interval().in_steps(timetable.steps_per_epoch),
        patience=hyper.early_stopping.patience if hyper.early_stopping else None,
    )


def _described(placement: Placement) -> str:
    what = "1 GPU each" if placement.gpus_per_worker else f"{placement.cpus_per_worker:g} CPUs each"
    return (
        f"{placement.workers} worker{'s' if placement.workers != 1 else ''}, {what}, {placement.threads} threads each"
    )


def _end(
    status: JobStatus,
    reason: str,
    message: str | None,
    *,
    result: dict[str, Any] | None = None,
    error: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {"status": status.value, "reason": reason, "message": message, "result": result, "error": error}
