"""The Ray cluster of `astraml run`: the one of RAY_ADDRESS, or one that lives as long as the run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from astraml_ray.errors import InfrastructureError
from astraml_ray.settings import Settings

__all__ = ["cluster"]


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
    except Exception as error:  # Ray raises just that where a part of it does not come up in time
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
