"""A Ray cluster of this process alone, the same for both arms that need one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from feeding.case import Case

__all__ = ["runtime"]


@contextmanager
def runtime(case: Case) -> Iterator[None]:
    """Ray with one CPU per core."""
    ray.init(
        address="local",
        num_cpus=len(os.sched_getaffinity(0)),
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
    )
    try:
        yield
    finally:
        ray.shutdown()
