"""How many trials run at a time, and what each of them gets. Pure."""

from __future__ import annotations

import math
from dataclasses import replace

from astraml_ray.spec.job import Resources
from astraml_ray.spec.placement import Placement, place
from astraml_ray.spec.sweep import Sweep

__all__ = ["arrange"]

_DATA_CPUS = 1.0
"""Left for the data tasks of trials with several workers; a single worker reads its rows itself."""


def arrange(
    sweep: Sweep,
    resources: Resources,
    *,
    cpus: float,
    gpus: float,
    local_cores: int | None,
    most: int | None = None,
) -> tuple[Placement, int]:
    """Fits trials to a cluster. A trial that has its place needs no more, so trials never wait for each other.

    Args:
        sweep: Of the job.
        resources: Of each trial.
        cpus: Logical CPUs of the cluster.
        gpus: GPUs of the cluster.
        local_cores: Cores of this machine if the cluster is this machine alone, else None.
        most: Trials at a time that the cluster has admitted; None is as many as it holds.

    Returns:
        The placement of a trial, and how many of them there are at a time.

    Raises:
        ResourcesError: The cluster cannot hold a single trial.
    """
    placement = place(resources, cpus=cpus, gpus=gpus, local_cores=local_cores)
    workers = placement.workers
    spare = _DATA_CPUS if workers > 1 else 0.0
    room = math.floor((cpus - spare) / (placement.cpus_per_worker * workers) + 1e-9)
    if placement.gpus_per_worker:
        room = min(room, math.floor(gpus / workers))
    concurrent = max(1, min(room, sweep.most_at_once, most or room))
    if local_cores is None or placement.gpus_per_worker:
        return placement, concurrent
    threads = resources.threads_per_worker
    if sweep.max_concurrent is None:
        concurrent = max(1, min(concurrent, local_cores // (workers * (threads or 1))))
    return replace(placement, threads=threads or max(1, local_cores // (concurrent * workers))), concurrent
