"""What a run may leave behind on the cluster that this process started: nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import ray

from astraml_ray.training.orphans import wait_until

_ACTORS = (
    "RunController",
    "RayTrainWorker",
    "RunChannel",
    "TranslationRun",
    "MapWorker",
    "TrialPlace",
    "_Team",
    "DatasetManager",
    "SplitCoordinator",
    "PlacementGroup",
)


def of_ours(name: str) -> list[int]:
    """Processes below this one that run a Ray actor of a class, or are still ending."""
    listing = subprocess.run(["ps", "-eo", "pid,ppid,stat,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 3) for line in listing.splitlines()[1:]]
    parents = {int(row[0]): int(row[1]) for row in rows}

    def descends(pid: int) -> bool:
        while pid > 1:
            if pid == os.getpid():
                return True
            pid = parents.get(pid, 0)
        return False

    return [int(row[0]) for row in rows if f"ray::{name}" in row[3] and "Z" not in row[2] and descends(int(row[0]))]


def soon(condition: Callable[[], bool]) -> bool:
    """Waits as long as a busy machine may need."""
    return wait_until(condition, timeout_s=180.0)


def assert_nothing_is_left() -> None:
    """No process of a run, no CPU that is taken, no placement group."""
    for name in _ACTORS:
        assert soon(lambda name=name: not of_ours(name)), name  # type: ignore[misc]
    total = ray.cluster_resources()["CPU"]
    assert soon(lambda: ray.available_resources().get("CPU") == total), ray.available_resources()
    assert [group for group in ray.util.placement_group_table().values() if group["state"] != "REMOVED"] == []
