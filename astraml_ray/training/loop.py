"""The train loop: one function, read from top to bottom. It knows nothing of Ray."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch.nn.parallel import DistributedDataParallel

from astraml_ray.data.microbatches import MicroBatch, Position
from astraml_ray.spec.hyperparams import EarlyStopping, Hyperparams, Interval
from astraml_ray.training.ahead import ahead
from astraml_ray.training.batching import Batch, Cut, cutting
from astraml_ray.training.checkpoint import CheckpointStore, Progress, restore, snapshot
from astraml_ray.training.collectives import World
from astraml_ray.training.evaluation import EvaluationRows, evaluate
from astraml_ray.training.memory import memory_errors
from astraml_ray.training.narration import Narrator
from astraml_ray.training.objectives.objective import Objective
from astraml_ray.training.optimizer import build_optimizer, build_scheduler
from astraml_ray.training.precision import Precision
from astraml_ray.training.stop import STOP_CODES
from astraml_ray.training.tally import Tally, not_finite
from astraml_ray.training.timetable import Timetable

__all__ = ["Outcome", "Reporter", "train"]

_STOPS = {STOP_CODES["now"]: "stopped", STOP_CODES["keep_best"]: "stopped_keep_best"}


class Reporter(Protocol):
    """Where the loop tells what it does, and hears that it should stop."""

    def report(self, record: dict[str, Any]) -> None:
        """Takes one record: `step`, `epoch`, and metrics named `train/…` or `validation/…`."""

    def flush(self) -> None:
        """Makes the records durable; a checkpoint follows, and a resumed run keeps the records before it."""

    def stop_requested(self) -> int:
        """Whether this worker was asked to stop, and how: one of STOP_CODES, or 0. Only world rank 0 is asked."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        reason: `completed`, `early_stopping`, `stopped` or `stopped_keep_best`.
        progress: Where it ended.
    """

    reason: str
    progress: Progress


def train(
    model: torch.nn.Module,
    batches: Callable[[Position], Iterator[MicroBatch]],
    *,
    timetable: Timetable,
    hyper: Hyperparams,
    objective: Objective,
    validation: EvaluationRows | None,
    checkpoints: CheckpointStore,
    reporter: Reporter,
    world: World,
    seed: int = 0,
    checkpoint_every: Interval | None = None,
    stop_after: int | None = None,
    divisor: int = 1,
) -> Outcome:
    """Trains a model from its newest checkpoint, or from the start, to the end of the timetable.

    Args:
        model: On `world.device`; changed in place.
        batches: This worker's micro-batches from a position on.
        timetable: The steps of the run.
        hyper: Hyperparameters.
        objective: The loss and the scores.
        validation: This worker's share of the validation set.
        checkpoints: Written by world rank 0, read by all.
        reporter: Of this worker.
        world: The workers.
        seed: Dropout follows from (seed, step, world_rank), so it needs no place in a checkpoint.
        checkpoint_every: More checkpoints than one per evaluation.
        stop_after: Leaves, saved, after this step (counted from the run's start).
        divisor: Cuts a micro-batch into this many parts at least, to save memory; the result is the same.

    Raises:
        NumericError: The loss or the gradient is not finite.
        MemoryExhaustedError: A forward or backward did not fit.
    """
    optimizer = build_optimizer(model, hyper)
    scheduler = build_scheduler(optimizer, hyper, timetable)
    precision = Precision(hyper.precision, world.device)
    progress = Progress()
    if (saved := checkpoints.latest()) is not None:
        progress = saved[0]
        restore(saved[1], model, optimizer, scheduler, precision.scaler)
    wrapped: Any = DistributedDataParallel(model, gradient_as_bucket_view=True) if world.world_size > 1 else model
    no_sync = wrapped.no_sync if world.world_size > 1 else contextlib.nullcontext

    total = timetable.total_steps
    last = min(total, stop_after or total)
    eval_steps = hyper.eval_interval().in_steps(timetable.steps_per_epoch)
    save_steps = checkpoint_every.in_steps(timetable.steps_per_epoch) if checkpoint_every else None
    # Reading a number off a GPU stalls it; on a CPU it is there already.
    look_every = 1 if world.device.type == "cpu" else 10
    cut = cutting(timetable.batch_size, world, divisor=divisor)
    narrator = Narrator(world, timetable)
    narrator.begin(model, progress, precision=precision.name, rows_at_a_time=cut.most)
    steps_left = range(progress.step, last)
    prepared = _prepared(batches, timetable, steps_left, objective=objective, cut=cut, world=world)
    tally = Tally(world.device, interval=progress.interval)
    reason = "completed"
    model.train()
    saved_step = progress.step

    def save() -> None:
        nonlocal saved_step
        if world.world_rank == 0 and saved_step != progress.step:
            reporter.flush()
            checkpoints.save(progress, snapshot(model, optimizer, scheduler, precision.scaler))
        saved_step = progress.step

    with ahead(prepared) as steps:
        while True:
            step = progress.step
            if progress.scored < step and (step % eval_steps == 0 or step == total):
                metrics = _evaluate(model, validation, objective, world, precision, reporter, cut)
                if metrics is None:
                    reason = "stopped"
                    break
                progress = replace(_judge(progress, metrics, hyper, tally.interval_loss()), interval=tally.interval)
                narrator.evaluation(progress, metrics, hyper.early_stopping)
                scores = {f"validation/{name}": value for name, value in metrics.items()}
                waiting = {"early_stopping/waited": progress.patience.waited}
                reporter.report({**_place(timetable, step), **scores, **waiting})
                save()
                if progress.patience.exhausted(hyper.early_stopping) and step < total:
                    reason = "early_stopping"
                    break
            elif save_steps is not None and step % save_steps == 0:
                save()
            if step >= last:
                break

            _seed(seed, step, world)
            started = time.perf_counter()
            own = next(steps)
            waited = time.perf_counter() - started
            targets, stops = world.sum([own.targets, reporter.stop_requested()])
            if stops:
                # Nothing of this step is done: resuming begins with its first row.
                reason = _STOPS[int(stops)]
                break
            parts = own.parts or [objective.empty_batch()]
            loss = torch.zeros((), dtype=torch.float64, device=world.device)
            with memory_errors(functools.partial(_did_not_fit, step + 1, parts)):
                for index, part in enumerate(parts):
                    with no_sync() if index < len(parts) - 1 else contextlib.nullcontext():
                        with precision.autocast():
                            part_loss = objective.loss_sum(wrapped, part.to(world.device))
                        # DDP averages over workers; the step's loss is a sum over all of them by its targets.
                        precision.scaler.scale(part_loss * (world.world_size / max(1.0, targets))).backward()  # type: ignore[no-untyped-call]
                    loss += part_loss.detach().double()
                norm = precision.step(optimizer, model, hyper.max_grad_norm)
            scheduler.step()
            optimizer.zero_grad(set_to_none=True)

            progress = replace(progress, step=step + 1)
            tally.add(loss, targets, norm, rows=own.rows, waited=waited, started=started)
            looks = [look_every, eval_steps, save_steps or eval_steps]
            if progress.step in (last, total) or any(progress.step % every == 0 for every in looks):
                rate = {"train/learning_rate": scheduler.get_last_lr()[0]}
                record = {**_place(timetable, progress.step), **rate, **tally.record(world, step=progress.step)}
                progress = replace(progress, interval=tally.interval)
                reporter.report(record)
                narrator.step(record)
    narrator.end(reason, progress)
    if reason in _STOPS.values() or progress.step == stop_after:
        save()
    checkpoints.wait()
    return Outcome(reason, progress)


@dataclass(frozen=True)
class _Step:
    """What a worker computes in an optimizer step.

    Attributes:
        parts: Each is one forward.
        rows: Over all workers.
        targets: Of this worker.
    """

    parts: list[Batch]
    rows: int
    targets: float


def _prepared(
    batches: Callable[[Position], Iterator[MicroBatch]],
    timetable: Timetable,
    steps: range,
    *,
    objective: Objective,
    cut: Cut,
    world: World,
) -> Iterator[_Step]:
    """A worker's part of each step, cut and padded: everything but the computing."""
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)  # of this thread: memory is pinned for it
    source = batches(timetable.position(steps.start))
    for step in steps:
        window = list(itertools.islice(source, timetable.window(step)))
        parts = [part for micro in window for part in objective.collate(micro.table, cut)]
        targets = sum(map(objective.targets, parts))
        yield _Step([part.pinned(world.device) for part in parts], sum(micro.rows for micro in window), targets)


def _evaluate(
    model: torch.nn.Module,
    validation: EvaluationRows | None,
    objective: Objective,
    world: World,
    precision: Precision,
    reporter: Reporter,
    cut: Cut,
) -> dict[str, float] | None:
    if validation is None:
        return {}
    with memory_errors(lambda: f"the evaluation did not fit into memory, at {cut.most} rows at a time"):
        return evaluate(
            model,
            validation,
            objective,
            world,
            cut=cut,
            autocast=precision.autocast,
            # Who wants the best model wants to know whether this is it.
            interrupted=lambda: reporter.stop_requested() == STOP_CODES["now"],
        )


def _judge(progress: Progress, metrics: dict[str, float], hyper: Hyperparams, train_loss: float) -> Progress:
    """Progress after an evaluation: is this the best model so far?"""
    if not math.isfinite(metrics.get("loss", 0.0)):
        raise not_finite("validation loss", progress.step)
    rule = hyper.early_stopping or EarlyStopping()
    value = metrics.get(rule.monitor.removeprefix("validation/"), math.nan)
    patience = progress.patience.after(value, progress.step, rule)
    best = metrics if patience.best_step == progress.step else progress.best_metrics
    return replace(progress, scored=progress.step, patience=patience, best_metrics=best, train_loss=train_loss)


def _place(timetable: Timetable, step: int) -> dict[str, Any]:
    return {"step": step, "epoch": round(step / timetable.steps_per_epoch, 4)}


def _seed(seed: int, step: int, world: World) -> None:
    """Dropout of a step follows from its key, whatever ran before in this process."""
    torch.manual_seed((seed * 1_000_003 + step) * 4099 + world.world_rank & 0x7FFF_FFFF_FFFF_FFFF)


def _did_not_fit(step: int, parts: Sequence[Batch]) -> str:
    rows, *rest = max((part.shape for part in parts), key=math.prod)
    what = f"sequences of {rest[0]} tokens" if len(rest) == 1 else f"images of {'x'.join(map(str, rest))}"
    return f"step {step} did not fit into memory; its largest part has {rows} {what}"
