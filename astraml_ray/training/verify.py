"""Runs a stretch of a run again, from one checkpoint to the next, and compares the weights bit for bit."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from typing import Any

from astraml_ray.errors import StorageError
from astraml_ray.settings import Settings
from astraml_ray.spec.placement import place
from astraml_ray.training.checkpoint import WEIGHTS, FolderCheckpoints
from astraml_ray.training.cluster import cluster
from astraml_ray.training.preparation import load_inputs
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.training.runner import Watcher, run_attempts

__all__ = ["verify_run"]


def verify_run(folder: RunFolder, settings: Settings, watcher: Watcher) -> dict[str, Any]:
    """Repeats the stretch between the last two checkpoints (from the start, if there is but one).

    Returns:
        `identical`, the two steps and the weights' hashes.

    Raises:
        StorageError: The run has no checkpoint.
    """
    inputs = replace(load_inputs(folder), translations=folder.uri)
    checkpoints = FolderCheckpoints(folder, keep=1)
    steps = checkpoints.complete_steps()
    if not steps:
        raise StorageError("the run has no checkpoint to compare with", param=folder.uri, hint="train it first")
    start, end = (0, *steps)[-2:]
    with tempfile.TemporaryDirectory(prefix="astraml-verify-") as temporary:
        again = RunFolder(f"{temporary}/{folder.name}")
        kept = FolderCheckpoints(again, keep=2)
        if start and (saved := checkpoints.load(start)) is not None:
            kept.save(*saved)
            kept.wait()
        resources = inputs.spec.resources
        with cluster(settings, resources.workers or 1) as local_cores:
            placement = place(resources, **_totals(), local_cores=local_cores)
            run_attempts(inputs, again, placement, watcher, stop_after=end)
        expected, found = (_weights_hash(store, end) for store in (checkpoints, kept))
    return {
        "identical": expected == found,
        "from_step": start,
        "to_step": end,
        "expected_sha256": expected,
        "found_sha256": found,
    }


def _totals() -> dict[str, float]:
    import ray

    total = ray.cluster_resources()
    return {"cpus": total.get("CPU", 0.0), "gpus": total.get("GPU", 0.0)}


def _weights_hash(checkpoints: FolderCheckpoints, step: int) -> str | None:
    manifest = checkpoints.manifest(step)
    return manifest["files"][WEIGHTS]["sha256"] if manifest else None
