"""Runs a spec: prepare, then TorchTrainer.fit() until it is done, from the last checkpoint each time."""

from __future__ import annotations

import json
import os
import platform
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import ray
import ray.data
import ray.train
import tokenizers
import torch
import transformers
from ray.train.torch import TorchConfig, TorchTrainer

import astraml_ray
from astraml_ray.data.stream import RankDataConfig, ray_stream
from astraml_ray.errors import AstraError, InfrastructureError, RunStopped
from astraml_ray.settings import WORKER_ENVIRONMENT, Settings
from astraml_ray.spec import JobSpec
from astraml_ray.training.channel import RunChannel
from astraml_ray.training.checkpoint import FolderCheckpoints
from astraml_ray.training.failures import classify, retry_delay_s
from astraml_ray.training.placement import Placement, place
from astraml_ray.training.preparation import RunInputs, store_inputs
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.training.timetable import Timetable
from astraml_ray.training.worker import Assignment, split_reader, train_worker

__all__ = ["Watcher", "cluster", "new_run_id", "run_attempts", "start_run"]

_POLL_S = 0.2


@dataclass(frozen=True)
class Watcher:
    """Who follows a run.

    Attributes:
        on_event: Takes records of the workers, and events with a `message`.
        stop: Set when the run should save and leave.
    """

    on_event: Callable[[dict[str, Any]], None]
    stop: threading.Event


def new_run_id(spec: JobSpec) -> str:
    """A name for the run's folder, sortable by time."""
    base = spec.name or spec.model.name.rstrip("/").rsplit("/", 1)[-1] or "run"
    clean = "".join(c if c.isalnum() or c in "._-" else "-" for c in base).strip(".-_")[:60]
    return f"{clean or 'run'}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"


@contextmanager
def cluster(settings: Settings, workers: int) -> Iterator[int | None]:
    """Connects to the cluster of RAY_ADDRESS, or starts one for this run alone.

    Yields:
        The cores of this machine if the cluster is its own, else None.
    """
    quiet = {"log_to_driver": False, "logging_level": "error", "configure_logging": True}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        if settings.ray_address:
            ray.init(address=settings.ray_address, **quiet)
        else:
            # More logical CPUs than cores, so that the data tasks always find one.
            ray.init(address="local", num_cpus=max(cores, workers) + 2, include_dashboard=False, **quiet)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        where = (
            f"the Ray cluster {settings.ray_address} does not answer" if settings.ray_address else "Ray does not start"
        )
        hint = "check RAY_ADDRESS, and that the cluster's Ray version and token are this machine's"
        raise InfrastructureError(
            f"{where}: {(str(error) or type(error).__name__).splitlines()[0]}", hint=hint
        ) from error
    try:
        yield None if settings.ray_address else cores
    finally:
        ray.shutdown()


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
    inputs: RunInputs, folder: RunFolder, placement: Placement, watcher: Watcher, *, stop_after: int | None = None
) -> dict[str, Any]:
    """Trains to the end; failures of the infrastructure are tried again from the last checkpoint.

    Returns:
        The result object of `astraml run --output json`; also written as result.json, beside receipt.json.

    Raises:
        RunStopped: The watcher asked for it; the run is saved.
        AstraError: What failed, when trying again does not help.
    """
    checkpoints = FolderCheckpoints(folder, keep=inputs.spec.checkpoint.keep)
    failures: list[int] = []
    started = time.time()
    while True:
        start = checkpoints.latest_progress().step
        try:
            outcome = _attempt(inputs, folder, placement, watcher, start=start, stop_after=stop_after)
            break
        except AstraError as error:
            failures.append(checkpoints.latest_progress().step)
            delay = retry_delay_s(error, failures, max_retries=inputs.spec.limits.max_retries)
            if delay is None or watcher.stop.is_set():
                raise
            message = f"{error.message}; going on from step {failures[-1]} in {delay:.0f} s"
            watcher.on_event({"event": "retry", "message": message})
            watcher.stop.wait(delay)
    if outcome["reason"] == "stopped":
        raise RunStopped(
            f"stopped and saved at step {outcome['steps']}",
            param=folder.uri,
            hint=f"go on: astraml run --resume {folder.uri}",
        )
    result = _result(inputs, folder, outcome, attempts=len(failures) + 1)
    if stop_after is None:
        folder.write("receipt.json", json.dumps(_receipt(inputs, outcome, started), indent=1).encode())
        folder.write("result.json", json.dumps(result, indent=1).encode())
    return result


def _attempt(
    inputs: RunInputs, folder: RunFolder, placement: Placement, watcher: Watcher, *, start: int, stop_after: int | None
) -> dict[str, Any]:
    """One fit(); it runs in a thread, so that this one can watch and be interrupted."""
    channel = ray.remote(RunChannel).options(num_cpus=0).remote()
    timetable = Timetable.of(inputs.spec.hyperparams, inputs.train_rows)
    assignment = Assignment(inputs, folder, channel, start, placement.threads, stop_after)
    reader = split_reader(inputs, "train", placement.workers)
    dataset = ray_stream(reader, epochs=timetable.epochs, position=timetable.position(start))
    trainer = TorchTrainer(
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
            name=f"{folder.name}-{uuid.uuid4().hex[:8]}",
            storage_path=_scratch(),
            worker_runtime_env={"env_vars": dict(WORKER_ENVIRONMENT)},
        ),
        datasets={"train": dataset},
        dataset_config=RankDataConfig(),
    )
    failure: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=fit, daemon=True, name="fit")
    thread.start()
    seen = asked = False
    outcome: dict[str, Any] | None = None
    alive = True
    while alive:
        thread.join(_POLL_S)
        alive = thread.is_alive()
        records, outcome = ray.get(channel.drain.remote())
        for record in records:
            seen = True
            watcher.on_event(record)
        if watcher.stop.is_set() and not asked:
            asked = True
            if not seen:  # nothing is trained yet, so nothing is lost
                return {"reason": "stopped", "steps": start}
            ray.get(channel.request_stop.remote())
    if failure and outcome is None:
        raise classify(failure[0]) from failure[0]
    ray.kill(channel)
    if outcome is None:
        raise InfrastructureError("the workers ended without a result", hint="see the Ray logs of the session")
    return outcome


def _scratch() -> str:
    """Where Ray Train keeps its own few files; nothing of the run is there."""
    return str(Path(tempfile.gettempdir()) / "astraml-ray-train")


def _result(inputs: RunInputs, folder: RunFolder, outcome: dict[str, Any], *, attempts: int) -> dict[str, Any]:
    hyper = inputs.spec.hyperparams
    rows = {f"{name}_rows": split.total_rows for name, split in inputs.manifest.splits.items()}
    return {
        "status": "succeeded",
        "reason": outcome["reason"],
        "run_id": folder.name,
        "run_path": folder.uri,
        "model_path": folder.path("model"),
        "task": inputs.spec.task,
        "steps": outcome["steps"],
        "best_step": outcome["best_step"],
        "epochs_completed": outcome["epochs_completed"],
        **rows,
        "effective_batch_size": hyper.batch_size * hyper.gradient_accumulation_steps,
        "workers": inputs.spec.resources.workers,
        "attempts": attempts,
        "metrics": outcome["metrics"],
    }


def _receipt(inputs: RunInputs, outcome: dict[str, Any], started: float) -> dict[str, Any]:
    """What it takes to tell whether two runs are the same."""
    return {
        "spec_sha256": inputs.spec.digest(),
        "manifest_sha256": inputs.manifest.digest(),
        "weights_sha256": outcome.get("weights_sha256"),
        "seed": inputs.spec.seed,
        "started_at": started,
        "finished_at": time.time(),
        "versions": {
            "astraml": astraml_ray.__version__,
            "python": platform.python_version(),
            "ray": ray.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
            "numpy": numpy.__version__,
            "pyarrow": pyarrow.__version__,
        },
    }
