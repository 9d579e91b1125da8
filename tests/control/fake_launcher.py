"""A cluster that is only pretended, for tests of the controller alone."""

from __future__ import annotations

from astraml_ray.control.admission import Capacity


class FakeLauncher:
    """A cluster that is only pretended."""

    def __init__(self, capacity: Capacity) -> None:
        self.cluster = capacity
        self.running: set[str] = set()
        self.started: list[str] = []
        self.killed: list[str] = []

    def capacity(self) -> Capacity:
        """As it was set."""
        return self.cluster

    def runners(self) -> set[str]:
        """Started and neither killed nor lost."""
        return set(self.running)

    def start(self, job_id: str) -> None:
        """Notes it."""
        self.started.append(job_id)
        self.running.add(job_id)

    def kill(self, job_id: str) -> None:
        """Notes it."""
        self.killed.append(job_id)
        self.running.discard(job_id)

    def sweep(self) -> None:
        """Nothing is left of what is only pretended."""
