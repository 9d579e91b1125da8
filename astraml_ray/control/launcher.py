"""Starting, finding and ending runners on Ray."""

from __future__ import annotations

import contextlib
from typing import Any, Protocol

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from astraml_ray.control.admission import Capacity
from astraml_ray.control.runner import Order, Runner, runner_name
from astraml_ray.training.orphans import remove_orphans  # knows Ray only, no torch

__all__ = ["Launcher", "RayLauncher", "on_this_node"]

_PREFIX = runner_name("")


class Launcher(Protocol):
    """What the controller does to the cluster."""

    def capacity(self) -> Capacity:
        """The cluster as it is now."""

    def runners(self) -> set[str]:
        """Ids of the jobs whose runner is there, or is being restarted."""

    def start(self, job_id: str) -> None:
        """Starts a job's runner; one that is there already stays."""

    def kill(self, job_id: str) -> None:
        """Ends a job's runner and all that it started, now."""

    def sweep(self) -> None:
        """Removes what runs that were killed have left on the cluster."""


class RayLauncher:
    """The launcher on the Ray cluster of this process."""

    def __init__(self, namespace: str, *, local_cores: int | None) -> None:
        self._namespace = namespace
        self._local_cores = local_cores

    def capacity(self) -> Capacity:
        """The cluster as Ray sees it."""
        total, free = ray.cluster_resources(), ray.available_resources()
        return Capacity(
            cpus=total.get("CPU", 0.0),
            gpus=total.get("GPU", 0.0),
            free_cpus=free.get("CPU", 0.0),
            free_gpus=free.get("GPU", 0.0),
            local_cores=self._local_cores,
        )

    def runners(self) -> set[str]:
        """By the names of the actors that are not dead."""
        named = ray.util.list_named_actors(all_namespaces=True)
        return {
            actor["name"].removeprefix(_PREFIX)
            for actor in named
            if actor["namespace"] == self._namespace and actor["name"].startswith(_PREFIX)
        }

    def start(self, job_id: str) -> None:
        """A detached actor, which Ray restarts for ever."""
        order = Order(job_id, self._namespace, self._local_cores)
        ray.remote(Runner).options(
            name=runner_name(job_id),
            namespace=self._namespace,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_concurrency=4,
        ).remote(order)

    def kill(self, job_id: str) -> None:
        """Its Train controller, workers and placement group end with it: it owns them."""
        with contextlib.suppress(ValueError):
            ray.kill(ray.get_actor(runner_name(job_id), namespace=self._namespace), no_restart=True)

    def sweep(self) -> None:
        """Placement groups: actors end with their owners."""
        remove_orphans()


def on_this_node() -> Any:
    """The scheduling strategy of actors that need this machine's files."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
