"""One attempt at a run: one fit(), watched from beside it until it ends, or is ended."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from astraml_ray.data.stream import RankDataConfig, ray_stream
from astraml_ray.errors import InfrastructureError
from astraml_ray.settings import WORKER_ENVIRONMENT
from astraml_ray.spec.placement import Placement
from astraml_ray.training.channel import RunChannel
from astraml_ray.training.failures import classify
from astraml_ray.training.fit import Fit, RunTrainer
from astraml_ray.training.preparation import RunInputs, placed
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.training.stop import STOP_CODES, Stop, StopMode
from astraml_ray.training.timetable import Timetable
from astraml_ray.training.worker import Assignment, split_reader, train_worker

__all__ = ["Attempt", "Watcher", "run_channel"]

_LOG = logging.getLogger(__name__)
_POLL_S = 0.2
_FAREWELL_S = 30.0


@dataclass(frozen=True)
class Watcher:
    """Who follows a run.

    Attributes:
        on_event: Takes records of the workers, and events: `event`, a `message` for people, and more.
        stop: Set when the run should stop.
        on_lines: Takes log lines of a source (one process of one attempt), numbered from 1 in each.
        grace_s: How long the workers may take to save when they are to stop now, before they are ended.
    """

    on_event: Callable[[dict[str, Any]], None]
    stop: Stop
    on_lines: Callable[[str, list[dict[str, Any]]], None] | None = None
    grace_s: float = 8.0


class Attempt:
    """One attempt.

    Attributes:
        last_step: The last step that it reported; None if it has reported none.
        forced: It was to stop, and was ended because it took too long.
    """

    def __init__(
        self,
        inputs: RunInputs,
        folder: RunFolder,
        placement: Placement,
        watcher: Watcher,
        *,
        start: int,
        divisor: int = 1,
        stop_after: int | None = None,
    ) -> None:
        self.last_step: int | None = None
        self.forced = False
        self._inputs = placed(inputs, gpus=placement.gpus_per_worker > 0)
        self._folder = folder
        self._placement = placement
        self._watcher = watcher
        self._start = start
        self._divisor = divisor
        self._stop_after = stop_after

    def run(self) -> dict[str, Any]:
        """Runs it to its end.

        Returns:
            The outcome that the workers gave; `{"reason": "stopped"}` if they were ended before they gave one.

        Raises:
            AstraError: Why it failed.
        """
        try:
            with run_channel() as channel:
                return self._follow(channel)
        except ray.exceptions.RayError as error:
            why = f"Ray failed beside the workers: {type(error).__name__}"
            raise InfrastructureError(why, hint="see the Ray logs of the session") from error

    def _follow(self, channel: Any) -> dict[str, Any]:
        fit = Fit(self._trainer(channel))
        try:
            return self._watch(fit, channel)
        except ray.exceptions.RayError:
            # The channel was killed. The workers notice, save and leave.
            fit.join(min(self._watcher.grace_s, _FAREWELL_S))
            raise
        finally:
            if not fit.end():
                _LOG.warning("Ray is still ending the workers of an attempt at %s", self._folder.uri)

    def _watch(self, fit: Fit, channel: Any) -> dict[str, Any]:
        asked: StopMode | None = None
        patience = float("inf")
        while True:
            ended = fit.join(_POLL_S)
            outcome = self._drain(channel)
            if outcome is not None:
                return outcome  # the workers have nothing left to do
            if ended:
                raise self._failure(fit, channel)
            mode = self._watcher.stop.mode
            if mode is not None and mode != asked:
                asked = mode
                if mode == "now":
                    if self.last_step is None:
                        return {"reason": "stopped"}  # nothing is trained yet, so nothing is lost
                    patience = time.monotonic() + self._watcher.grace_s
                ray.get(channel.request_stop.remote(STOP_CODES[mode]))
            if time.monotonic() > patience:
                self.forced = True
                return {"reason": "stopped"}

    def _drain(self, channel: Any) -> dict[str, Any] | None:
        records, batches, outcome = ray.get(channel.drain.remote())
        for record in records:
            self.last_step = record["step"]
            self._watcher.on_event(record)
        if self._watcher.on_lines is not None:
            for source, lines in batches:
                self._watcher.on_lines(source, lines)
        result: dict[str, Any] | None = outcome
        return result

    def _failure(self, fit: Fit, channel: Any) -> Exception:
        if fit.error is None:
            return InfrastructureError("the workers ended without a result", hint="see the Ray logs of the session")
        failure = classify(fit.error, ray.get(channel.failures.remote()), world_size=self._placement.workers)
        failure.__cause__ = failure.__cause__ or (fit.error if failure is not fit.error else None)
        return failure

    def _trainer(self, channel: Any) -> RunTrainer:
        inputs, placement = self._inputs, self._placement
        timetable = Timetable.of(inputs.spec.hyperparams, inputs.train_rows)
        reader = split_reader(inputs, "train", placement.workers)
        assignment = Assignment(
            inputs,
            self._folder,
            channel,
            self._start,
            placement.threads,
            stop_after=self._stop_after,
            divisor=self._divisor,
        )
        return RunTrainer(
            train_worker,
            train_loop_config={"assignment": assignment},
            torch_config=TorchConfig(timeout_s=300),
            scaling_config=ray.train.ScalingConfig(
                num_workers=placement.workers,
                use_gpu=placement.gpus_per_worker > 0,
                resources_per_worker={"CPU": placement.cpus_per_worker, "GPU": placement.gpus_per_worker},
            ),
            # Checkpoints and retries are ours: Ray's are kept out of the way, under a name used once.
            run_config=ray.train.RunConfig(
                name=f"{self._folder.name}-{uuid.uuid4().hex[:8]}",
                storage_path=str(Path(tempfile.gettempdir()) / "astraml-ray-train"),
                worker_runtime_env={"env_vars": dict(WORKER_ENVIRONMENT)},
            ),
            datasets={"train": ray_stream(reader, epochs=timetable.epochs, position=timetable.position(self._start))},
            dataset_config=RankDataConfig(),
        )


@contextlib.contextmanager
def run_channel() -> Iterator[Any]:
    """A channel to this process: on this node, so that it lives as long as this process does, and no longer."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    channel = ray.remote(RunChannel).options(num_cpus=0, scheduling_strategy=here).remote()
    try:
        yield channel
    finally:
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(channel)
