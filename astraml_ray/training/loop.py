"""The train loop: one function, read from top to bottom. It knows nothing of Ray."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch.nn.parallel import DistributedDataParallel

from astraml_ray.data.microbatches import MicroBatch, Position
from astraml_ray.errors import MemoryExhaustedError, NumericError
from astraml_ray.spec.hyperparams import EarlyStopping, Hyperparams, Interval
from astraml_ray.training.batching import (
    Batch,
    collate,
    count_targets,
    empty_batch,
    overhead_tokens,
)
from astraml_ray.training.checkpoint import CheckpointStore, Progress, restore, snapshot
from astraml_ray.training.collectives import World
from astraml_ray.training.evaluation import EvaluationRows, evaluate
from astraml_ray.training.objective import Objective
from astraml_ray.training.optimizer import build_optimizer, build_scheduler
from astraml_ray.training.timetable import Timetable

__all__ = ["Outcome", "Reporter", "train"]


class Reporter(Protocol):
    """Where the loop tells what it does, and hears that it should stop."""

    def report(self, record: dict[str, Any]) -> None:
        """Takes one record: `step`, `epoch`, and metrics named `train/…` or `validation/…`."""

    def flush(self) -> None:
        """Makes the records durable; a checkpoint follows, and a resumed run keeps the records before it."""

    def stop_requested(self) -> bool:
        """Whether this worker was asked to stop."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        reason: `completed`, `early_stopping` or `stopped`.
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

    Raises:
        NumericError: The loss or the gradient is not finite.
        MemoryExhaustedError: A forward or backward did not fit.
    """
    optimizer = build_optimizer(model, hyper)
    scheduler = build_scheduler(optimizer, hyper, timetable)
    precision = _Precision(hyper.precision, world.device)
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
    cut: dict[str, Any] = {
        "classification": objective.classification,
        "pad_id": objective.pad_id,
        "overhead": overhead_tokens(world.device),
        "most": timetable.batch_size,
    }
    source = batches(timetable.position(progress.step))
    tally = _Tally(world.device)
    reason = "completed"
    model.train()
    saved_step = progress.step

    def save() -> None:
        nonlocal saved_step
        if world.world_rank == 0 and saved_step != progress.step:
            reporter.flush()
            checkpoints.save(progress, snapshot(model, optimizer, scheduler, precision.scaler))
        saved_step = progress.step

    while True:
        step = progress.step
        if progress.scored < step and (step % eval_steps == 0 or step == total):
            metrics = _evaluate(model, validation, objective, world, precision, reporter, cut)
            if metrics is None:
                reason = "stopped"
                break
            progress = _judge(progress, metrics, hyper, tally.interval_loss())
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
        window = list(itertools.islice(source, timetable.window(step)))
        waited = time.perf_counter() - started
        parts = [part for micro in window for part in collate(micro.table, **cut)]
        targets, stops = world.sum([count_targets(parts, shifted=objective.shifted), reporter.stop_requested()])
        if stops:
            # Nothing of this step is done: resuming begins with its first row.
            reason = "stopped"
            break
        parts = parts or [empty_batch(classification=objective.classification, pad_id=objective.pad_id)]
        loss = torch.zeros((), dtype=torch.float64, device=world.device)
        with _memory_errors(step, parts):
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
        tally.add(loss, targets, norm, rows=sum(micro.rows for micro in window), waited=waited, started=started)
        looks = [look_every, eval_steps, save_steps or eval_steps]
        if progress.step in (last, total) or any(progress.step % every == 0 for every in looks):
            rate = {"train/learning_rate": scheduler.get_last_lr()[0]}
            reporter.report({**_place(timetable, progress.step), **rate, **tally.record(world, step=progress.step)})
    if reason == "stopped" or progress.step == stop_after:
        save()
    checkpoints.wait()
    return Outcome(reason, progress)


def _evaluate(
    model: torch.nn.Module,
    validation: EvaluationRows | None,
    objective: Objective,
    world: World,
    precision: _Precision,
    reporter: Reporter,
    cut: dict[str, Any],
) -> dict[str, float] | None:
    if validation is None:
        return {}
    return evaluate(
        model, validation, objective, world, cut=cut, autocast=precision.autocast, interrupted=reporter.stop_requested
    )


def _judge(progress: Progress, metrics: dict[str, float], hyper: Hyperparams, train_loss: float) -> Progress:
    """Progress after an evaluation: is this the best model so far?"""
    if not math.isfinite(metrics.get("loss", 0.0)):
        raise _not_finite("validation loss", progress.step)
    rule = hyper.early_stopping or EarlyStopping()
    value = metrics.get(rule.monitor.removeprefix("validation/"), math.nan)
    patience = progress.patience.after(value, progress.step, rule)
    best = metrics if patience.best_step == progress.step else progress.best_metrics
    return replace(progress, scored=progress.step, patience=patience, best_metrics=best, train_loss=train_loss)


def _not_finite(what: str, step: int) -> NumericError:
    return NumericError(
        f"the {what} is not finite at step {step}",
        param="/hyperparams/lr",
        hint="lower lr, add warmup_steps, set max_grad_norm, or use precision fp32 or bf16",
    )


def _place(timetable: Timetable, step: int) -> dict[str, Any]:
    return {"step": step, "epoch": round(step / timetable.steps_per_epoch, 4)}


def _seed(seed: int, step: int, world: World) -> None:
    """Dropout of a step follows from its key, whatever ran before in this process."""
    torch.manual_seed((seed * 1_000_003 + step) * 4099 + world.world_rank & 0x7FFF_FFFF_FFFF_FFFF)


@contextlib.contextmanager
def _memory_errors(step: int, parts: list[Batch]) -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        text = str(error)
        if (
            isinstance(error, RuntimeError)
            and not isinstance(error, torch.OutOfMemoryError)
            and "allocate memory" not in text
        ):
            raise
        shape = max((tuple(part.input_ids.shape) for part in parts), key=lambda s: s[0] * s[1])
        raise MemoryExhaustedError(
            f"step {step + 1} did not fit into memory; its largest part has {shape[0]} sequences of {shape[1]} tokens",
            param="/hyperparams/batch_size",
            hint="halve batch_size and double gradient_accumulation_steps (same result), or lower max_length",
        ) from error


class _Precision:
    """fp32, or autocast to bf16 or fp16; fp16 scales its losses."""

    def __init__(self, wanted: str, device: torch.device) -> None:
        if wanted == "auto":
            wanted = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
        self._device = device.type
        self._dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[wanted]
        self.scaler = torch.amp.GradScaler(device.type, enabled=wanted == "fp16")

    def autocast(self) -> Any:
        """The context of a forward."""
        return contextlib.nullcontext() if self._dtype is None else torch.autocast(self._device, self._dtype)

    def step(self, optimizer: Any, model: torch.nn.Module, max_norm: float | None) -> torch.Tensor:
        """Clips and steps; returns the gradient's norm before clipping."""
        self.scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm if max_norm is not None else math.inf)
        self.scaler.step(optimizer)
        self.scaler.update()
        # fp16 skips a step whose scaled gradient overflows, and lowers the scale: that is no failure.
        return norm if not self.scaler.is_enabled() else torch.nan_to_num(norm, posinf=0.0, nan=0.0)


class _Tally:
    """Sums between two looks, kept on the device, and between two evaluations."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)
        self._targets = self._rows = self._waited = 0.0
        self._interval = [0.0, 0.0]
        self._since: float | None = None

    def add(self, loss: Any, targets: float, norm: Any, *, rows: int, waited: float, started: float) -> None:
        """Counts one step."""
        self._since = self._since or started
        self._sums += torch.stack([loss, norm.double()])
        self._norm = norm
        self._targets += targets
        self._rows += rows
        self._waited += waited

    def record(self, world: World, *, step: int) -> dict[str, float]:
        """The metrics since the last look; starts anew.

        Raises:
            NumericError: A loss or a gradient since then is not finite.
        """
        loss, norms = self._sums.tolist()
        (loss,) = world.sum([loss])
        if not (math.isfinite(loss) and math.isfinite(norms)):
            what = "loss" if not math.isfinite(loss) else "gradient"
            raise _not_finite(what, step)
        elapsed = time.perf_counter() - (self._since or 0.0)
        mean = loss / max(1.0, self._targets)
        self._interval[0] += loss
        self._interval[1] += self._targets
        record = {
            "train/loss": mean,
            "train/gradient_norm": float(self._norm),
            "train/rows_per_second": self._rows / elapsed,
            "data/wait_share": self._waited / elapsed,
        }
        self._sums.zero_()
        self._targets = self._rows = self._waited = 0.0
        self._since = None
        return record

    def interval_loss(self) -> float:
        """Mean loss since the evaluation before; starts anew."""
        mean = self._interval[0] / max(1.0, self._interval[1])
        self._interval = [0.0, 0.0]
        return mean
