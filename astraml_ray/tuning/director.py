"""Runs a sweep's affairs: who is next, who goes on, who stops and why. Knows no Ray; every answer is written down."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal

from astraml_ray.data.masking import Masker, mask_data
from astraml_ray.errors import AstraError, SpecError
from astraml_ray.spec.sweep import Sweep
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.training.stop import StopMode
from astraml_ray.tuning.journal import Journal
from astraml_ray.tuning.ledger import Evaluation, Ledger, Trial
from astraml_ray.tuning.population import Population
from astraml_ray.tuning.pruning import make_pruner
from astraml_ray.tuning.space import parameters_of
from astraml_ray.tuning.trials import Course, trial_id

__all__ = ["Answer", "Director", "trial_folder"]

_TOLD_EVERY_S = 1.0
_FAILURES = 3

Answer = Literal["continue", "stop", "pause"]


def trial_folder(folder: RunFolder, number: int) -> RunFolder:
    """The run folder of a trial."""
    return RunFolder(folder.path(f"trials/{trial_id(number)}"))


class Director:
    """Of one sweep. Called by one thread."""

    def __init__(
        self,
        sweep: Sweep,
        ledger: Ledger,
        journal: Journal,
        folder: RunFolder,
        tell: Callable[[dict[str, Any]], None],
        *,
        evaluations: int,
        concurrent: int,
        masker: Masker,
    ) -> None:
        """
        Args:
            sweep: Of the job.
            ledger: What is known; whatever it holds is told again to the rules.
            journal: Keeps the ledger.
            folder: Of the sweep.
            tell: Takes events.
            evaluations: Of the longest trial.
            concurrent: Trials at a time.
            masker: Takes the job's secrets out of errors: they are written down, and told.
        """
        self.ledger = ledger
        self._sweep = sweep
        self._journal = journal
        self._masker = masker
        self._folder = folder
        self._tell = tell
        self.concurrent = concurrent
        self._pruner = make_pruner(sweep, ledger.goal, evaluations)
        self._population = Population(sweep, ledger.goal) if sweep.scheduler == "pbt" else None
        self._told: dict[int, float] = {}
        self._live: set[int] = set()
        self._paused: set[int] = set()
        for found in ledger.results:
            self._judge(found)

    # Who is next

    def next_trial(self) -> int | None:
        """The trial to start now, or to go on with after a restart; None if there is no room, or no more."""
        if len(self._live) >= self.concurrent:
            return None
        busy = self._live | self._paused
        waiting = [t for t in self.ledger.trials if not t.ended and t.number not in busy]
        if waiting:
            number = min(waiting, key=lambda t: (t.step, t.number)).number
        elif len(self.ledger.trials) < self._sweep.count:
            number = len(self.ledger.trials)
            parameters = parameters_of(self._sweep, number, self.ledger.told())
            trial = Trial(number, parameters)
            self.ledger.trials.append(trial)
            self._journal.add(self.ledger, trial)
        else:
            return None
        self._live.add(number)
        return number

    def next_paused(self) -> int | None:
        """The paused trial that is to go on now."""
        if not self._paused or len(self._live) >= self.concurrent:
            return None
        return min(self._paused, key=lambda n: (self.ledger.trials[n].step, n))

    def resume(self, number: int) -> None:
        """A paused trial has a place again."""
        self._paused.discard(number)
        self._live.add(number)

    @property
    def is_over(self) -> bool:
        """Whether all trials have ended."""
        return len(self.ledger.trials) == self._sweep.count and all(t.ended for t in self.ledger.trials)

    def plan(self, number: int) -> dict[str, Any]:
        """What a trial is started with."""
        trial = self.ledger.trials[number]
        return {"number": number, "parameters": trial.parameters, "copied": trial.copied}

    # What happens to it

    def started(self, number: int) -> None:
        """A trial has a place to train in."""
        trial = self.ledger.trials[number]
        anew = trial.started_at is None
        trial.status = "running"
        trial.started_at = trial.started_at or time.time()
        trial.since = time.monotonic()
        self._journal.add(self.ledger, trial)
        values = ", ".join(f"{path}={json.dumps(value)}" for path, value in trial.parameters.items())
        self._tell_trial(trial, f"{trial_id(number)} {'starts' if anew else 'goes on'}: {values}")

    def progressed(self, number: int, step: int, epoch: float) -> None:
        """A trial trains."""
        trial = self.ledger.trials[number]
        trial.step, trial.epoch = max(step, trial.step), max(epoch, trial.epoch)

    def evaluated(self, number: int, step: int, epoch: float, scores: dict[str, float], course: Course) -> Answer:
        """Judges an evaluation; one that was judged before is answered as then.

        Args:
            number: Of the trial.
            step: Of the trial.
            epoch: Of the trial.
            scores: All validation metrics.
            course: Of the trial, by its own number of rows.
        """
        trial = self.ledger.trials[number]
        if step <= trial.judged:
            return "continue"
        raw = scores.get(self.ledger.goal.metric)
        value = raw if raw is not None and math.isfinite(raw) else None
        found = Evaluation(number, step, course.evaluation_at(step), value)
        self.ledger.add(found, epoch)
        stopped = self._judge(found)
        answer: Answer = "continue"
        if found.evaluation < course.evaluations:
            if stopped is not None:
                self._end(trial, "stopped", stopped)
                answer = "stop"
            elif self._population is not None and self._population.is_turn(found.evaluation):
                answer = self._exchange(trial, found)
        self._journal.add(self.ledger, trial, found)
        shown = "not finite" if value is None else f"{value:.4f}"
        what = f"{trial_id(number)} step {step}: {self.ledger.goal.metric} {shown}"
        if answer == "stop":
            self._tell_trial(trial, f"{what}; stopped: {trial.reason}")
        elif trial.reason and answer == "pause":
            self._tell_trial(trial, f"{what}; goes on as {trial_id(trial.parent or 0)}: {trial.reason}")
        elif time.monotonic() - self._told.get(number, 0.0) >= _TOLD_EVERY_S:
            self._tell_trial(trial, what)
        return answer

    def finished(self, number: int, reason: str, step: int) -> None:
        """A trial has come to its own end."""
        trial = self.ledger.trials[number]
        trial.step = step
        self._end(trial, "succeeded", None if reason == "completed" else reason)
        self._journal.add(self.ledger, trial)
        best = "" if trial.best_metric is None else f", {self.ledger.goal.metric} {trial.best_metric:.4f}"
        self._tell_trial(trial, f"{trial_id(number)} is done after {step} steps{best}")

    def failed(self, number: int, error: dict[str, Any]) -> None:
        """A trial has failed, for good."""
        trial = self.ledger.trials[number]
        error = mask_data(error, self._masker)
        trial.error = error
        self._end(trial, "failed", str(error.get("code")))
        self._journal.add(self.ledger, trial)
        self._tell_trial(trial, f"{trial_id(number)} failed: {error.get('message')}")

    def interrupted(self, number: int) -> None:
        """A trial has lost its place, and will get another."""
        self.ledger.trials[number].rest()

    def end_reason(self, mode: StopMode | None) -> str | None:
        """Why the sweep ends as it stands: `completed`, or what cuts it short; None if there is nothing.

        Args:
            mode: How it was asked to stop, if it was.
        """
        if self.is_over:
            cut = any(trial.reason == "budget_used" for trial in self.ledger.trials)
            return "budget_used" if cut else "completed"
        if mode is not None:
            return "stopped_keep_best" if mode == "keep_best" else "stopped"
        return "budget_used" if self.used_up() else None

    def close(self, why: str | None) -> None:
        """The sweep ends: so do the trials that still run, for that reason; None leaves them for another time."""
        for trial in self.ledger.trials:
            if trial.ended:
                continue
            trial.rest()
            if why is None:
                trial.status = "cancelled"
            else:
                self._end(trial, "stopped", why)
            self._tell_trial(trial, f"{trial_id(trial.number)} is stopped at step {trial.step}")
        self._journal.save(self.ledger)

    def hopeless(self) -> AstraError | None:
        """Why the sweep should end now as failed: as good as all of its trials do."""
        ended = [t for t in self.ledger.trials if t.ended]
        failed = [t for t in ended if t.status == "failed"]
        if not failed or len(failed) < len(ended):
            return None
        if len(failed) < min(self._sweep.count, max(_FAILURES, self.concurrent)):
            return None
        (code, _), *_ = Counter((t.error or {}).get("code") for t in failed).most_common(1)
        first = next(t for t in failed if (t.error or {}).get("code") == code)
        error = _error_of(first.error or {})
        error.message = f"all {len(failed)} trials that ended have failed; {trial_id(first.number)}: {error.message}"
        return error

    def used_up(self) -> bool:
        """Whether the budget is."""
        budget, ledger = self._sweep.budget, self.ledger
        return budget is not None and budget.used_up(gpu_hours=ledger.gpu_hours, seconds=ledger.seconds)

    def tell_ended(self) -> None:
        """Tells again of all trials that have ended."""
        for trial in self.ledger.trials:
            if trial.ended:
                self._tell_trial(trial, None)

    def records(self) -> list[dict[str, Any]]:
        """All trials as they are told."""
        return [self.ledger.record(t, trial_folder(self._folder, t.number).uri) for t in self.ledger.trials]

    # Inside

    def _judge(self, found: Evaluation) -> str | None:
        """Tells an evaluation to the rules; returns why they stop the trial, if they do."""
        if self._population is not None:
            self._population.tell(found.number, found.value)
        verdict = self._pruner.decide(found.number, found.evaluation, found.value)
        trial = self.ledger.trials[found.number]
        trial.rung = verdict.rung if verdict.rung is not None else trial.rung
        return verdict.reason if verdict.stop else None

    def _exchange(self, trial: Trial, found: Evaluation) -> Answer:
        """Population based training's turn."""
        assert self._population is not None
        parameters = {t.number: t.parameters for t in self.ledger.trials}
        exploit = self._population.look(trial.number, found.evaluation, parameters)
        if exploit is not None and self._may_copy(trial, self.ledger.trials[exploit.donor]):
            trial.copy(self.ledger.trials[exploit.donor], exploit.parameters, exploit.reason)
        elif len(self._paused) + self._sweep.count - len(self.ledger.trials) == 0:
            return "continue"
        trial.rest()
        self._live.discard(trial.number)
        self._paused.add(trial.number)
        return "pause"

    def _may_copy(self, trial: Trial, donor: Trial) -> bool:
        """Whether a trial's weights may be given up, and the donor has its own already."""
        wanted = any(t.is_copying and t.copied and t.copied["donor"] == trial.number for t in self.ledger.trials)
        return not wanted and not donor.is_copying and self.ledger.best() is not trial

    def _end(self, trial: Trial, status: Literal["succeeded", "stopped", "failed"], reason: str | None) -> None:
        trial.rest()
        trial.status, trial.reason, trial.ended_at = status, reason, time.time()
        self._live.discard(trial.number)
        self._paused.discard(trial.number)

    def _tell_trial(self, trial: Trial, message: str | None) -> None:
        self._told[trial.number] = time.monotonic()
        record = self.ledger.record(trial, trial_folder(self._folder, trial.number).uri)
        self._tell({"event": "trial", "message": message, "trial": record})


def _error_of(data: Mapping[str, Any]) -> AstraError:
    """The error that as_dict told, of its own class."""
    kinds: list[type[AstraError]] = [AstraError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    matching = [kind for kind in kinds if kind.code == data.get("code")]
    error = AstraError.__new__(matching[0] if matching else AstraError)
    AstraError.__init__(error, str(data.get("message")), param=data.get("param"), hint=data.get("hint"))
    if isinstance(error, SpecError):
        error.problems = []
    return error
