"""One trial's training, in a thread: it waits after each evaluation until it is told whether to go on."""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from astraml_ray.data.masking import Masker
from astraml_ray.data.microbatches import MicroBatch, Position, local_blocks, micro_batches
from astraml_ray.errors import AstraError
from astraml_ray.spec.placement import Placement
from astraml_ray.training.checkpoint import FolderCheckpoints
from astraml_ray.training.collectives import World
from astraml_ray.training.failures import AttemptFailure, classify, decide, divisor_after
from astraml_ray.training.logs import capture_logs
from astraml_ray.training.preparation import RunInputs
from astraml_ray.training.records import Recorder, now
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.training.secrets import masked_error, masker_of
from astraml_ray.training.stop import STOP_CODES
from astraml_ray.training.timetable import Timetable
from astraml_ray.training.translation.stage import translate_here
from astraml_ray.training.worker import Assignment, fit_model, outcome_record, set_variables, split_reader
from astraml_ray.tuning.trials import seated

__all__ = ["Session", "Step", "past_records", "within_memory"]

_LOG = logging.getLogger(__name__)

Made = TypeVar("Made")
Ship = Callable[[list[dict[str, Any]]], None]


@dataclass(frozen=True)
class Step:
    """What a trial tells.

    Attributes:
        kind: `evaluation`, `progress`, `finished` or `failed`.
        record: Of an evaluation or of progress, the run's; else the outcome, or the error.
    """

    kind: str
    record: dict[str, Any]


class Session:
    """A trial of one worker, in this process."""

    def __init__(self, inputs: RunInputs, folder: RunFolder, metric: str, *, threads: int, ship: Ship) -> None:
        """Begins, or goes on from the run's newest checkpoint.

        Args:
            inputs: Of the trial.
            folder: Of the trial.
            metric: What evaluations are known by.
            threads: Of torch.
            ship: Takes log lines.
        """
        self._inputs, self._device = seated(inputs)
        self._folder = folder
        self._threads = threads
        self._ship = ship
        self._steps: queue.Queue[Step] = queue.Queue()
        self._delivered = 0
        self._reporter = _Reporter(metric, self._steps)
        self._thread = threading.Thread(target=self._run, daemon=True, name="trial")
        self._thread.start()

    def next(self, timeout_s: float) -> Step:
        """Lets the trial go on, and waits for what it tells next; progress, if that takes longer."""
        self._reporter.answer(self._delivered)
        try:
            step = self._steps.get(timeout=timeout_s)
        except queue.Empty:
            return Step("progress", self._reporter.last)
        self._delivered += step.kind == "evaluation"
        return step

    def end(self) -> None:
        """Stops the trial where it is, and returns once it is saved."""
        self._reporter.stop()
        self._thread.join()

    def _run(self) -> None:
        masker = Masker({})
        with capture_logs(self._ship, rank=0) as capture:
            try:
                spec, values = self._inputs.spec, self._inputs.secrets
                masker = masker_of(spec, values)
                capture.hide(masker)
                set_variables(spec, values)
                self._steps.put(Step("finished", self._train()))
            except BaseException as error:
                _LOG.exception("the trial failed")
                found = classify(masked_error(error, masker))
                self._steps.put(Step("failed", found.as_dict()))

    def _train(self) -> dict[str, Any]:
        """Trains to the end."""

        def step() -> int:
            return FolderCheckpoints(self._folder, keep=1).latest_progress().step

        return within_memory(self._attempt, rows=self._inputs.spec.hyperparams.batch_size, step=step)

    def _attempt(self, divisor: int) -> dict[str, Any]:
        inputs, hyper = self._inputs, self._inputs.spec.hyperparams
        gpus = int(self._device.type == "cuda")
        translate_here(inputs, Placement(1, gpus, 1.0, self._threads))
        world = World(device=self._device)
        timetable = Timetable.of(hyper, inputs.train_rows)
        start = FolderCheckpoints(self._folder, keep=1).latest_progress().step
        assignment = Assignment(inputs, self._folder, None, start, self._threads, divisor=divisor)
        reader = partial(split_reader, shared=True)

        def batches(position: Position) -> Iterator[MicroBatch]:
            tables = local_blocks(reader(inputs, "train", 1), epochs=timetable.epochs, position=position)
            return micro_batches(
                tables,
                schema=inputs.encoder.schema,
                rows_per_epoch=timetable.rows,
                batch_size=timetable.batch_size,
                epochs=timetable.epochs,
                position=position,
            )

        for record in past_records(self._folder):
            self._reporter.tell(record)
        with self._reporter.recording(Recorder(self._folder, step=start)):
            outcome = fit_model(assignment, world, self._reporter, batches=batches, reader=reader)[1]
        return outcome_record(outcome, timetable)


def within_memory(work: Callable[[int], Made], *, rows: int, step: Callable[[], int] = int) -> Made:
    """What work makes; memory that runs out is answered as in any run, by smaller micro-batches.

    Args:
        work: Takes the divisor of the micro-batches.
        rows: Of a micro-batch that is not divided.
        step: Where the work goes on from, after a failure.

    Raises:
        AstraError: What failed, if smaller micro-batches do not help.
    """
    failures: list[AttemptFailure] = []
    while True:
        try:
            return work(divisor_after(failures))
        except AstraError as error:
            failures.append(AttemptFailure(error.code, error.message, step()))
            answer = decide(error, failures, max_retries=0, micro_rows=rows)
            if not answer.retry:
                raise
            _LOG.warning("%s", answer.message)


def past_records(folder: RunFolder) -> list[dict[str, Any]]:
    """Records up to the newest checkpoint: whoever followed may have been killed before it wrote them down."""
    step = FolderCheckpoints(folder, keep=1).latest_progress().step
    if not step or not folder.exists("metrics.jsonl"):
        return []
    lines = [line for line in folder.read("metrics.jsonl").splitlines(keepends=True) if line.endswith(b"\n")]
    records = [json.loads(line) for line in lines]
    return [r for r in records if r["step"] <= step]


class _Reporter:
    """The loop's reporter: holds the loop after an evaluation, until somebody has looked at it."""

    def __init__(self, metric: str, steps: queue.Queue[Step]) -> None:
        self.last: dict[str, Any] = {}
        self._metric = metric
        self._steps = steps
        self._recorder: Recorder | None = None
        self._changed = threading.Condition()
        self._told = 0
        self._answered = 0
        self._code = 0

    @contextlib.contextmanager
    def recording(self, recorder: Recorder) -> Iterator[None]:
        """Keeps records in the run's folder meanwhile."""
        self._recorder = recorder
        try:
            yield
        finally:
            recorder.close()

    def report(self, record: dict[str, Any]) -> None:
        """Takes one record of the loop."""
        record = {**record, "time": now()}
        assert self._recorder is not None
        self._recorder.add(record)
        self.last = {"step": record["step"], "epoch": record["epoch"]}
        self.tell(record)

    def tell(self, record: dict[str, Any]) -> None:
        """Tells an evaluation, of now or of earlier; the loop does no step until it is answered."""
        if self._metric in record:
            with self._changed:
                self._told += 1
            self._steps.put(Step("evaluation", record))

    def flush(self) -> None:
        """As of any reporter."""
        assert self._recorder is not None
        self._recorder.flush()

    def stop_requested(self) -> int:
        """Waits for an answer, if an evaluation is unanswered: the checkpoint is written meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._code or self._answered >= self._told)
            return self._code

    def answer(self, count: int) -> None:
        """So many evaluations, of all that were told, have been looked at: the trial may go on from there."""
        with self._changed:
            self._answered = count
            self._changed.notify_all()

    def stop(self) -> None:
        """The trial is to save and leave."""
        with self._changed:
            self._code = STOP_CODES["now"]
            self._changed.notify_all()
