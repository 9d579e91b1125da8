"""The Ray cluster of `astraml run`: the one of RAY_ADDRESS, or one that lives as long as the run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from astraml_ray.errors import InfrastructureError
from astraml_ray.forkserver.start import runtime_env
from astraml_ray.settings import Settings

__all__ = ["cluster"]

_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "configure_logging": True}


@contextmanager
def cluster(settings: Settings, workers: int) -> Iterator[int | None]:
    """Connects to the cluster of RAY_ADDRESS, or starts one for this run alone.

    Yields:
        The cores of this machine if the cluster is its own, else None.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if settings.ray_address:
        _connect(settings.ray_address)
    else:
        # More logical CPUs than cores, so that the data tasks always find one.
        _start(max(cores, workers) + 2, runtime_env(settings.fork_server))
    try:
        yield None if settings.ray_address else cores
    finally:
        ray.shutdown()


def _connect(address: str) -> None:
    try:
        ray.init(address=address, **_QUIET)
    except Exception as error:
        raise InfrastructureError(
            f"the Ray cluster {address} does not answer: {_first_line(error)}",
            hint="check RAY_ADDRESS, and that the cluster's Ray version and token are this machine's",
        ) from error


def _start(cpus: int, environment: dict[str, Any]) -> None:
    """Starts one on this machine; a second time if it was not up in the 30 s that Ray allows itself."""
    for last in (False, True):
        try:
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, runtime_env=environment, **_QUIET)
            return
        except Exception as error:  # Ray raises just that where a part of it does not come up in time
            if last:
                raise InfrastructureError(
                    f"Ray does not start: {_first_line(error)}",
                    hint="the machine may be too busy: try again, or set RAY_ADDRESS to a cluster that runs",
                ) from error
            ray.shutdown()


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
