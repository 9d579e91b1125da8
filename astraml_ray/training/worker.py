"""What runs in each Ray Train worker: a thin wrapper round the loop, then the test score and the model."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from transformers.utils import logging as transformers_logging

from astraml_ray.data.blocks import BlockReader
from astraml_ray.data.encoding.images import ImageEncoder
from astraml_ray.data.kept_tokens import token_keep
from astraml_ray.data.masking import Masker
from astraml_ray.data.microbatches import MicroBatch, Position, micro_batches
from astraml_ray.data.parcels import unpacked
from astraml_ray.data.sampling import make_sampler
from astraml_ray.errors import AstraError, InfrastructureError, StorageError
from astraml_ray.settings import load_settings
from astraml_ray.spec import JobSpec
from astraml_ray.spec.augmentation import augmentations_of
from astraml_ray.spec.hyperparams import EarlyStopping, parse_interval
from astraml_ray.training.batching import cutting
from astraml_ray.training.channel import ChannelReporter, SilentReporter, line_shipper
from astraml_ray.training.checkpoint import FolderCheckpoints, load_weights
from astraml_ray.training.collectives import World
from astraml_ray.training.evaluation import EvaluationRows, evaluate
from astraml_ray.training.image_inputs import save_processor
from astraml_ray.training.logs import capture_logs
from astraml_ray.training.loop import Outcome, Reporter, train
from astraml_ray.training.memory import memory_errors
from astraml_ray.training.models import build_model
from astraml_ray.training.objectives.objective import Objective
from astraml_ray.training.preparation import RunInputs
from astraml_ray.training.records import Recorder
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.training.secrets import ValueOf, masked_error, masker_of, variables_of
from astraml_ray.training.stop import STOP_CODES
from astraml_ray.training.tasks import objective_of
from astraml_ray.training.timetable import Timetable
from astraml_ray.training.translation.place import translation_keep

__all__ = [
    "Assignment",
    "ReaderOf",
    "best_model",
    "finish_model",
    "fit_model",
    "outcome_record",
    "publish_model",
    "set_variables",
    "split_reader",
    "train_worker",
]

_LOG = logging.getLogger(__name__)
ReaderOf = Callable[[RunInputs, str, int], BlockReader]
"""From a run's inputs, a split and the number of workers to the reader of the split."""


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
        divisor: See loop.train.
    """

    inputs: RunInputs
    folder: RunFolder
    channel: Any
    start: int
    threads: int
    stop_after: int | None = None
    divisor: int = 1


def split_reader(inputs: RunInputs, split: str, world_size: int, *, shared: bool = False) -> BlockReader:
    """Reads a split: the training rows shuffled and augmented, the others as they are.

    Args:
        inputs: Of the run.
        split: Its name.
        world_size: Workers that share each batch.
        shared: Other runs read the same rows on this machine, so that even what this one reads once is read again.
    """
    training = split == "train"
    rows = inputs.manifest.splits[split]
    augmentations = augmentations_of(inputs.spec.augmentation, inputs.spec.task) if training else ()
    # The validation set is read at each evaluation.
    reads = 2 if shared else inputs.spec.hyperparams.epochs if training else 1 + (split == "validation")
    return BlockReader(
        inputs.manifest,
        rows,
        inputs.encoder,
        inputs.spec.seed,
        inputs.spec.hyperparams.batch_size,
        world_size,
        augmentations,
        shuffle=training,
        sampler=make_sampler(inputs.manifest, inputs.spec.sampling, seed=inputs.spec.seed) if training else None,
        translations=translation_keep(inputs) if training else None,
        keep=token_keep(inputs.encoder, rows, augmentations, load_settings().cache / "tokens", reads=reads),
    )


def train_worker(config: dict[str, Any]) -> None:
    """Ray Train's function."""
    assignment: Assignment = config["assignment"]
    context = ray.train.get_context()
    world = World(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    failure: BaseException | None = None
    with capture_logs(line_shipper(assignment.channel), rank=world.world_rank) as capture:
        masker = Masker({})
        try:
            spec, values = assignment.inputs.spec, assignment.inputs.secrets
            masker = masker_of(spec, values)
            capture.hide(masker)
            set_variables(spec, values)
            with _reporter(assignment, world) as reporter:
                model, result = _train(assignment, world, reporter)
                if world.world_rank == 0:
                    world.barrier()  # the other workers have said all they had to say
                    if model is not None:
                        result["weights_sha256"] = publish_model(model, assignment.inputs, assignment.folder)
        except BaseException as error:
            _LOG.exception("worker %d of %d failed", world.world_rank, world.world_size)
            failure = masked_error(error, masker)
            _tell_failure(assignment.channel, world, failure)
    if failure is not None:
        raise failure  # here, where Ray finds no other one behind it
    # Whoever watches ends the workers as soon as it has the outcome: everything must be out by then.
    if world.world_rank == 0:
        ray.get(assignment.channel.finish.remote(result))
    else:
        world.barrier()


def set_variables(spec: JobSpec, values: ValueOf | None) -> None:
    """Gives this process the environment that a spec gives its workers."""
    os.environ.update(variables_of(spec, values))


def _tell_failure(channel: Any, world: World, error: BaseException) -> None:
    """Lets whoever watches know which worker failed first, before the others fail for want of it."""
    code = error.code if isinstance(error, AstraError) else None
    failure = {"class": type(error).__name__, "code": code, "message": str(error)[:2000]}
    with contextlib.suppress(ray.exceptions.RayError):
        ray.get(channel.fail.remote(world.world_rank, time.time(), failure))


def _train(assignment: Assignment, world: World, reporter: Reporter) -> tuple[torch.nn.Module | None, dict[str, Any]]:
    """Trains, and scores the test set; returns the model, if it is to be published, and the outcome."""
    timetable = Timetable.of(assignment.inputs.spec.hyperparams, assignment.inputs.train_rows)
    model, outcome = fit_model(
        assignment, world, reporter, batches=lambda position: _stream(position, assignment, timetable, world)
    )
    world.barrier()
    if outcome.reason == "stopped" or assignment.stop_after is not None:
        return None, outcome_record(outcome, timetable)
    return finish_model(model, outcome, assignment, world, reporter)


def fit_model(
    assignment: Assignment,
    world: World,
    reporter: Reporter,
    *,
    batches: Callable[[Position], Iterator[MicroBatch]],
    reader: ReaderOf = split_reader,
) -> tuple[torch.nn.Module, Outcome]:
    """Trains the model of a run from its newest checkpoint to its end.

    Args:
        assignment: What to train.
        world: This worker's place.
        reporter: Of this worker.
        batches: This worker's micro-batches from a position on.
        reader: Gives the reader of a split.

    Returns:
        The model as it is at the end, and how the run ended.
    """
    inputs, spec = assignment.inputs, assignment.inputs.spec
    model = _new_model(assignment, world)
    outcome = train(
        model,
        batches,
        timetable=Timetable.of(spec.hyperparams, inputs.train_rows),
        hyper=spec.hyperparams,
        objective=_objective(inputs),
        validation=EvaluationRows(reader(inputs, "validation", world.world_size), world.world_rank),
        checkpoints=FolderCheckpoints(assignment.folder, keep=spec.checkpoint.keep),
        reporter=reporter,
        world=world,
        seed=spec.seed,
        checkpoint_every=parse_interval(spec.checkpoint.every) if spec.checkpoint.every else None,
        stop_after=assignment.stop_after,
        divisor=assignment.divisor,
    )
    return model, outcome


def finish_model(
    model: torch.nn.Module, outcome: Outcome, assignment: Assignment, world: World, reporter: Reporter
) -> tuple[torch.nn.Module | None, dict[str, Any]]:
    """Puts the best weights into a trained model, and scores the test set.

    Returns:
        The model, None if the run was stopped meanwhile; and the outcome as a record.
    """
    inputs, spec = assignment.inputs, assignment.inputs.spec
    result = outcome_record(outcome, Timetable.of(spec.hyperparams, inputs.train_rows))
    _load_best(model, outcome, assignment, FolderCheckpoints(assignment.folder, keep=spec.checkpoint.keep), world)
    scores = _test(model, assignment, _objective(inputs), world, reporter)
    if scores is None:
        return None, {**result, "reason": "stopped"}
    result["metrics"] |= scores
    reporter.report({"step": outcome.progress.step, "epoch": result["epochs"], **scores})
    return model, result


def best_model(assignment: Assignment, world: World, reporter: Reporter) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The best model that a run's checkpoints hold, with the scores of the test set.

    Raises:
        StorageError: There is no whole checkpoint.
    """
    checkpoints = FolderCheckpoints(assignment.folder, keep=1)
    progress = checkpoints.latest_progress()
    if not progress.step:
        raise StorageError("there is no whole checkpoint", param=assignment.folder.uri)
    model = _new_model(assignment, world)
    load_weights(_weights_of(checkpoints, progress.step, assignment.folder), model)
    scored, record = finish_model(model, Outcome("stopped_keep_best", progress), assignment, world, reporter)
    assert scored is not None, "nobody stops this"
    return scored, record


def _new_model(assignment: Assignment, world: World) -> torch.nn.Module:
    """The model as it is before the first step, and this process set up for it."""
    inputs, spec = assignment.inputs, assignment.inputs.spec
    torch.set_num_threads(assignment.threads)
    if world.device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    with memory_errors(lambda: "the model did not fit into memory", param="/model"):
        model: torch.nn.Module = build_model(spec.task, inputs.config, inputs.blueprint, seed=spec.seed)
        return model.to(world.device)


def _objective(inputs: RunInputs) -> Objective:
    spec = inputs.spec
    return objective_of(
        spec.task,
        inputs.manifest.labels,
        inputs.tokenizer.pad_token_id if inputs.tokenizer is not None else 0,
        images=inputs.encoder if isinstance(inputs.encoder, ImageEncoder) else None,
        augmentations=augmentations_of(spec.augmentation, spec.task),
        smoothing=spec.hyperparams.label_smoothing,
    )


def _load_best(
    model: torch.nn.Module, outcome: Outcome, assignment: Assignment, checkpoints: FolderCheckpoints, world: World
) -> None:
    """Puts the best weights into the model, unless the last ones are wanted, or are the best."""
    rule = assignment.inputs.spec.hyperparams.early_stopping or EarlyStopping()
    best = outcome.progress.patience.best_step
    wanted = rule.restore_best or outcome.reason == "stopped_keep_best"
    if not wanted or best is None or best == outcome.progress.step:
        return
    if world.world_rank == 0:
        _LOG.info("the best model is that of step %d", best)
    load_weights(_weights_of(checkpoints, best, assignment.folder), model)


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
    return micro_batches(
        unpacked(shard.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2)),
        schema=assignment.inputs.encoder.schema,
        rows_per_epoch=timetable.rows,
        batch_size=timetable.batch_size,
        epochs=timetable.epochs,
        world_rank=world.world_rank,
        world_size=world.world_size,
        position=position,
    )


def _weights_of(checkpoints: FolderCheckpoints, step: int, folder: RunFolder) -> bytes:
    data = checkpoints.weights(step)
    if data is None:
        raise StorageError(f"the checkpoint of step {step} is damaged or gone", param=folder.uri)
    return data


def outcome_record(outcome: Outcome, timetable: Timetable) -> dict[str, Any]:
    """How a run ended, as plain data."""
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


def _test(
    model: torch.nn.Module, assignment: Assignment, objective: Objective, world: World, reporter: Reporter
) -> dict[str, float] | None:
    """Scores of the test set, if there is one; None if the run was stopped meanwhile."""
    inputs = assignment.inputs
    if "test" not in inputs.manifest.splits:
        return {}
    rows = EvaluationRows(split_reader(inputs, "test", world.world_size), world.world_rank)
    cut = cutting(inputs.spec.hyperparams.batch_size, world, divisor=assignment.divisor)
    with memory_errors(lambda: f"the test set did not fit into memory, at {cut.most} rows at a time"):
        metrics = evaluate(
            model,
            rows,
            objective,
            world,
            cut=cut,
            autocast=contextlib.nullcontext,
            interrupted=lambda: reporter.stop_requested() == STOP_CODES["now"],
        )
    return None if metrics is None else {f"test/{name}": value for name, value in metrics.items()}


def publish_model(model: Any, inputs: RunInputs, folder: RunFolder) -> str:
    """Writes `model/`, as from_pretrained reads it; returns the SHA-256 of its weights."""
    transformers_logging.disable_progress_bar()  # one file, written at once: a bar would be a line of noise in the log
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary)
        if isinstance(inputs.encoder, ImageEncoder):
            save_processor(inputs.encoder, Path(temporary))
        else:
            inputs.tokenizer.save_pretrained(temporary)
        digest = hashlib.sha256()
        for file in sorted(Path(temporary).glob("*.safetensors")):
            digest.update(file.read_bytes())
        folder.upload(Path(temporary), "model")
    _LOG.info("the model is at %s", folder.path("model"))
    return digest.hexdigest()
