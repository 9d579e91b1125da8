"""How many workers, GPUs, CPUs and threads a run gets on a cluster. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from astraml_ray.errors import ResourcesError
from astraml_ray.spec.job import Resources

__all__ = ["Placement", "place"]

_DATA_CPUS = 1.0
"""Left for the data tasks; with less, Ray Data starves or hangs."""


@dataclass(frozen=True)
class Placement:
    """What a worker group asks for.

    Attributes:
        workers: Workers in all.
        gpus_per_worker: 0 or 1.
        cpus_per_worker: CPUs asked of Ray, possibly a fraction.
        threads: torch threads of a worker.
    """

    workers: int
    gpus_per_worker: int
    cpus_per_worker: float
    threads: int


def place(resources: Resources, *, cpus: float, gpus: float, local_cores: int | None) -> Placement:
    """Fits a run to a cluster.

    Args:
        resources: From the spec.
        cpus: Logical CPUs of the cluster.
        gpus: GPUs of the cluster.
        local_cores: Cores of this machine if the cluster was started for this run alone, else None.

    Raises:
        ResourcesError: It does not fit; the error says what would.
    """
    wanted = resources.gpus
    if wanted == "auto":
        workers = resources.workers or 1
        wanted = workers if gpus >= workers else 0
    if wanted > gpus:
        raise ResourcesError(
            f"the run needs {wanted} GPU{'s' if wanted > 1 else ''}; the cluster has {gpus:g}",
            param="/resources/gpus",
            hint=f"it would start now with resources.gpus={int(gpus)}",
        )
    workers = wanted or resources.workers or 1
    share = max(0.0, cpus - _DATA_CPUS) / workers
    asked = resources.cpus_per_worker
    if asked is None:
        asked = min(1.0, share) if share > 0 else cpus / (2 * workers)
        asked = max(0.01, int(asked * 100) / 100)
    if asked * workers + min(_DATA_CPUS, 0.25) > cpus:
        raise ResourcesError(
            f"{workers} workers of {asked:g} CPUs and the data tasks need more than the cluster's {cpus:g} CPUs",
            param="/resources/cpus_per_worker",
            hint="leave it out, or lower resources.workers",
        )
    threads = resources.threads_per_worker
    if threads is None:
        threads = max(1, local_cores // workers) if local_cores and not wanted else max(1, round(asked))
    return Placement(workers, 1 if wanted else 0, asked, threads)
