"""What runs in each Ray Train worker: a thin wrapper round the loop, then the test score and the model."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch

from astraml_ray.data.blocks import BlockReader
from astraml_ray.data.microbatches import MicroBatch, Position, micro_batches
from astraml_ray.errors import InfrastructureError, StorageError
from astraml_ray.spec.hyperparams import EarlyStopping, parse_interval
from astraml_ray.training.batching import overhead_tokens
from astraml_ray.training.channel import ChannelReporter, SilentReporter
from astraml_ray.training.checkpoint import WEIGHTS, FolderCheckpoints, load_weights
from astraml_ray.training.collectives import World
from astraml_ray.training.evaluation import EvaluationRows, evaluate
from astraml_ray.training.loop import Outcome, train
from astraml_ray.training.models import build_model
from astraml_ray.training.objective import Objective
from astraml_ray.training.preparation import RunInputs
from astraml_ray.training.records import Recorder
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.training.timetable import Timetable

__all__ = ["Assignment", "split_reader", "train_worker"]


@dataclass(frozen=True)
class Assignment:
    """What one attempt gives its workers.

    Attributes:
        inputs: Of the run.
        folder: Of the run.
        channel: To whoever watches.
        start: Step from which the attempt's stream begins.
        threads: torch threads of a worker.
        stop_after: See loop.train.
    """

    inputs: RunInputs
    folder: RunFolder
    channel: Any
    start: int
    threads: int
    stop_after: int | None = None


def split_reader(inputs: RunInputs, split: str, world_size: int) -> BlockReader:
    """Reads a split: the training rows shuffled and augmented, the others as they are."""
    training = split == "train"
    return BlockReader(
        inputs.manifest,
        inputs.manifest.splits[split],
        inputs.encoder,
        inputs.spec.seed,
        inputs.spec.hyperparams.batch_size,
        world_size,
        inputs.spec.augmentation if training else (),
        shuffle=training,
    )


def train_worker(config: dict[str, Any]) -> None:
    """Ray Train's function."""
    assignment: Assignment = config["assignment"]
    context = ray.train.get_context()
    world = World(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    inputs, folder, spec = assignment.inputs, assignment.folder, assignment.inputs.spec
    torch.set_num_threads(assignment.threads)
    if world.device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)

    model = build_model(spec.task, inputs.config, inputs.blueprint, seed=spec.seed).to(world.device)
    objective = Objective(spec.task, len(inputs.manifest.labels), inputs.tokenizer.pad_token_id)
    checkpoints = FolderCheckpoints(folder, keep=spec.checkpoint.keep)
    timetable = Timetable.of(spec.hyperparams, inputs.train_rows)
    with _reporter(assignment, world) as reporter:
        outcome = train(
            model,
            lambda position: _stream(position, assignment, timetable, world),
            timetable=timetable,
            hyper=spec.hyperparams,
            objective=objective,
            validation=EvaluationRows(split_reader(inputs, "validation", world.world_size), world.world_rank),
            checkpoints=checkpoints,
            reporter=reporter,
            world=world,
            seed=spec.seed,
            checkpoint_every=parse_interval(spec.checkpoint.every) if spec.checkpoint.every else None,
            stop_after=assignment.stop_after,
        )
        world.barrier()
        result = _result(outcome, timetable)
        if outcome.reason != "stopped" and assignment.stop_after is None:
            rule = spec.hyperparams.early_stopping or EarlyStopping()
            best = outcome.progress.patience.best_step if rule.restore_best else None
            if best is not None and best != outcome.progress.step:
                load_weights(_files_of(checkpoints, best, folder)[WEIGHTS], model)
            scores = _test(model, inputs, objective, world)
            result["metrics"] |= scores
            if world.world_rank == 0:
                reporter.report({"step": outcome.progress.step, "epoch": result["epochs"], **scores})
                result["weights_sha256"] = _publish(model, inputs, folder)
        if world.world_rank == 0:
            ray.get(assignment.channel.finish.remote(result))


@contextlib.contextmanager
def _reporter(assignment: Assignment, world: World) -> Iterator[Any]:
    if world.world_rank:
        yield SilentReporter()
        return
    reporter = ChannelReporter(assignment.channel, Recorder(assignment.folder, step=assignment.start))
    try:
        yield reporter
    finally:
        reporter.close()


def _stream(position: Position, assignment: Assignment, timetable: Timetable, world: World) -> Iterator[MicroBatch]:
    """This worker's micro-batches out of the attempt's one Ray Data execution."""
    if position != timetable.position(assignment.start):
        raise InfrastructureError("a checkpoint was written after the stream was planned")
    shard = ray.train.get_dataset_shard("train")
    tables = shard.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2)
    return micro_batches(
        tables,
        rows_per_epoch=timetable.rows,
        batch_size=timetable.batch_size,
        epochs=timetable.epochs,
        world_rank=world.world_rank,
        world_size=world.world_size,
        position=position,
    )


def _files_of(checkpoints: FolderCheckpoints, step: int, folder: RunFolder) -> dict[str, bytes]:
    kept = checkpoints.load(step)
    if kept is None:
        raise StorageError(f"the best checkpoint, of step {step}, is damaged or gone", param=folder.uri)
    return kept[1]


def _result(outcome: Outcome, timetable: Timetable) -> dict[str, Any]:
    progress = outcome.progress
    metrics = {f"validation/{name}": value for name, value in progress.best_metrics.items()}
    if progress.train_loss is not None:
        metrics["train/loss"] = progress.train_loss
    return {
        "reason": outcome.reason,
        "steps": progress.step,
        "epochs": progress.step / timetable.steps_per_epoch,
        "epochs_completed": progress.step // timetable.steps_per_epoch,
        "best_step": progress.patience.best_step,
        "metrics": metrics,
    }


def _test(model: torch.nn.Module, inputs: RunInputs, objective: Objective, world: World) -> dict[str, float]:
    if "test" not in inputs.manifest.splits:
        return {}
    rows = EvaluationRows(split_reader(inputs, "test", world.world_size), world.world_rank)
    size = inputs.spec.hyperparams.batch_size
    cut = {
        "classification": objective.classification,
        "pad_id": objective.pad_id,
        "overhead": overhead_tokens(world.device),
        "most": size,
    }
    metrics = evaluate(model, rows, objective, world, cut=cut, autocast=contextlib.nullcontext) or {}
    return {f"test/{name}": value for name, value in metrics.items()}


def _publish(model: Any, inputs: RunInputs, folder: RunFolder) -> str:
    """Writes `model/`, as from_pretrained reads it; returns the SHA-256 of its weights."""
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary)
        inputs.tokenizer.save_pretrained(temporary)
        digest = hashlib.sha256()
        for file in sorted(Path(temporary).glob("*.safetensors")):
            digest.update(file.read_bytes())
        folder.upload(Path(temporary), "model")
    return digest.hexdigest()
