"""A trial of several workers: an ordinary run of Ray Train, followed from the trial's place."""

from __future__ import annotations

import threading
import time
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from astraml_ray.errors import AstraError, RunStopped
from astraml_ray.spec.placement import Placement
from astraml_ray.training.attempt import Watcher
from astraml_ray.training.failures import classify
from astraml_ray.training.preparation import RunInputs
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.training.runner import run_attempts
from astraml_ray.training.stop import Stop
from astraml_ray.tuning.session import Step, past_records

__all__ = ["TeamSession"]

_POLL_S = 0.2


class _Team:
    """Runs the attempts, as an actor of its own.

    What is started inside a trial's place would be put there too, and it has no room for workers and data tasks.
    """

    def __init__(self) -> None:
        self._stop = Stop()
        self._lock = threading.Lock()
        self._records: list[dict[str, Any]] = []
        self._lines: list[dict[str, Any]] = []

    def run(self, inputs: RunInputs, folder: RunFolder, placement: Placement) -> Step:
        """Trains to the end."""
        watcher = Watcher(self._take, self._stop, self._take_lines)
        try:
            result = run_attempts(inputs, folder, placement, watcher)
        except RunStopped:
            return Step("finished", {"reason": "stopped", "steps": 0})
        except AstraError as error:
            return Step("failed", error.as_dict())
        return Step("finished", result)

    def drain(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """New records, and new log lines."""
        with self._lock:
            records, self._records = self._records, []
            lines, self._lines = self._lines, []
        return records, lines

    def stop(self) -> None:
        """The workers are to save and leave."""
        self._stop.set()

    def _take(self, record: dict[str, Any]) -> None:
        if "event" not in record:
            with self._lock:
                self._records.append(record)

    def _take_lines(self, source: str, lines: list[dict[str, Any]]) -> None:
        with self._lock:
            self._lines += lines


class TeamSession:
    """As a Session, of several workers. They do not wait for answers: a stop comes some steps later."""

    def __init__(self, inputs: RunInputs, folder: RunFolder, metric: str, *, placement: Placement, ship: Any) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._metric = metric
        self._ship = ship
        self._last: dict[str, Any] = {}
        self._steps = [Step("evaluation", record) for record in past_records(folder) if metric in record]
        self._team: Any = ray.remote(_Team).options(num_cpus=0, max_concurrency=3, scheduling_strategy=here).remote()
        self._end: Any = self._team.run.remote(inputs, folder, placement)

    def next(self, timeout_s: float) -> Step:
        """What the trial tells next; progress, if that takes longer."""
        until = time.monotonic() + timeout_s
        while not self._steps:
            ended, _ = ray.wait([self._end], timeout=_POLL_S)
            try:
                self._drain()
                if ended:
                    self._steps.append(ray.get(self._end))
            except ray.exceptions.RayError as error:
                return Step("failed", classify(error).as_dict())
            if not self._steps and time.monotonic() > until:
                return Step("progress", self._last)
        return self._steps.pop(0)

    def end(self) -> None:
        """Stops the workers where they are, and returns once they are saved."""
        try:
            ray.get(self._team.stop.remote())
            ray.wait([self._end])
        except ray.exceptions.RayError:
            pass  # it is gone
        ray.kill(self._team)

    def _drain(self) -> None:
        records, lines = ray.get(self._team.drain.remote())
        if lines:
            self._ship(lines)
        for record in records:
            self._last = {"step": record["step"], "epoch": record["epoch"]}
            if self._metric in record:
                self._steps.append(Step("evaluation", record))
