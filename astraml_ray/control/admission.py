"""Who of the queue starts now, and why the others wait. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from astraml_ray.errors import ResourcesError
from astraml_ray.spec.job import Resources
from astraml_ray.spec.placement import Placement, place

__all__ = ["Capacity", "Demand", "Hold", "Start", "Waiting", "admit", "demand_of"]

# A job that does not fit is overtaken by smaller ones for this long. Then what it lacks is held back for it, but
# not for ever either: it may be waiting for a run of weeks.
_OVERTAKEN_S = 600.0
_HELD_S = 1800.0
_CYCLE_S = _HELD_S + _OVERTAKEN_S

_DATA_CPUS = 1.0
_FAR_BACK = 100


@dataclass(frozen=True)
class Demand:
    """What a running job takes of the cluster."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Capacity:
    """The cluster, and what of it is free.

    Attributes:
        cpus: Logical CPUs in all.
        gpus: GPUs in all.
        free_cpus: Not taken by active jobs or by others on the cluster.
        free_gpus: The same of GPUs.
        local_cores: Cores of this machine if the cluster is this machine alone, else None.
    """

    cpus: float
    gpus: float
    free_cpus: float
    free_gpus: float
    local_cores: int | None = None

    def holds(self, demand: Demand) -> bool:
        """Whether it fits into what is free."""
        return demand.cpus <= self.free_cpus + 1e-6 and demand.gpus <= self.free_gpus + 1e-6

    def less(self, demand: Demand) -> Capacity:
        """What is left when a job has started."""
        return replace(self, free_cpus=self.free_cpus - demand.cpus, free_gpus=self.free_gpus - demand.gpus)


@dataclass(frozen=True)
class Waiting:
    """A queued job. `not_before`: it was tried and waits until then."""

    job_id: str
    resources: Resources
    priority: int
    queued_at: float
    not_before: float | None = None


@dataclass(frozen=True)
class Start:
    """The job starts now."""

    job_id: str
    placement: Placement


@dataclass(frozen=True)
class Hold:
    """The job waits: why, and which changes of its spec would start it now."""

    job_id: str
    message: str
    would_start_with: dict[str, Any] | None = None


def demand_of(placement: Placement, cluster_cpus: float) -> Demand:
    """What a placement takes, with a CPU for the data tasks where the cluster has it."""
    workers = placement.workers * placement.cpus_per_worker
    return Demand(
        workers + min(_DATA_CPUS, max(0.0, cluster_cpus - workers)), placement.workers * placement.gpus_per_worker
    )


def admit(queue: Sequence[Waiting], capacity: Capacity, *, now: float) -> list[Start | Hold]:
    """Decides on every queued job: by priority, then by age, smaller ones overtaking for a while.

    Returns:
        One decision for each job, in the queue's order.
    """
    decisions: list[Start | Hold] = []
    reserved: tuple[str, Demand] | None = None
    for ahead, job in enumerate(sorted(queue, key=lambda w: (-w.priority, w.queued_at, w.job_id))):
        if job.not_before is not None and job.not_before > now:
            at = datetime.fromtimestamp(job.not_before, tz=timezone.utc)
            decisions.append(Hold(job.job_id, f"is tried again at {at:%H:%M:%S} UTC"))
            continue
        try:
            placement = _place(job.resources, capacity)
        except ResourcesError as error:
            # It may fit once the cluster grows; until then it is in nobody's way.
            decisions.append(Hold(job.job_id, _told(error), _alternative(job.resources, capacity)))
            continue
        demand = demand_of(placement, capacity.cpus)
        if capacity.holds(demand) and not _takes_from(reserved, demand, capacity):
            decisions.append(Start(job.job_id, placement))
            capacity = capacity.less(demand)
            continue
        decisions.append(
            Hold(job.job_id, _lack(demand, capacity, ahead, reserved), _alternative(job.resources, capacity))
        )
        if reserved is None and not capacity.holds(demand) and _is_held_for(now - job.queued_at):
            reserved = (job.job_id, demand)
    return decisions


def _place(resources: Resources, capacity: Capacity) -> Placement:
    return place(resources, cpus=capacity.cpus, gpus=capacity.gpus, local_cores=capacity.local_cores)


def _is_held_for(waited: float) -> bool:
    """Whether a job that waited for so long has what it lacks held back for it."""
    return waited >= _OVERTAKEN_S and (waited - _OVERTAKEN_S) % _CYCLE_S < _HELD_S


def _takes_from(reserved: tuple[str, Demand] | None, demand: Demand, capacity: Capacity) -> bool:
    """Whether a start would take what an older job lacks, or leave it lacking more."""
    if reserved is None:
        return False
    wanted = reserved[1]
    pairs = [
        (demand.cpus, capacity.free_cpus, wanted.cpus),
        (demand.gpus, capacity.free_gpus, wanted.gpus),
    ]
    return any(taken > 0 and free - taken < want for taken, free, want in pairs)


def _told(error: ResourcesError) -> str:
    return error.message.removeprefix("the run ")


def _lack(demand: Demand, capacity: Capacity, ahead: int, reserved: tuple[str, Demand] | None) -> str:
    queue = _place_in_queue(ahead)
    if demand.gpus > capacity.free_gpus:
        return f"needs {demand.gpus:g} GPUs; {max(0.0, capacity.free_gpus):g} of {capacity.gpus:g} are free{queue}"
    if demand.cpus > capacity.free_cpus:
        return f"needs {demand.cpus:g} CPUs; {max(0.0, capacity.free_cpus):g} of {capacity.cpus:g} are free{queue}"
    held = reserved[0] if reserved else "another job"
    return f"what it needs is free, but held for {held}, which has waited longer{queue}"


def _place_in_queue(ahead: int) -> str:
    """Far back it is told roughly, so that one start does not rewrite the reasons of thousands."""
    if ahead > _FAR_BACK:
        return f"; more than {_FAR_BACK} jobs before it in the queue"
    return f"; {ahead} job{'s' if ahead != 1 else ''} before it in the queue" if ahead else ""


def _alternative(resources: Resources, capacity: Capacity) -> dict[str, Any] | None:
    """The least change of the spec with which the job would start now."""
    for change in _changes(resources):
        changed = resources.model_copy(update=dict(change.items()))
        try:
            demand = demand_of(_place(changed, capacity), capacity.cpus)
        except ResourcesError:
            continue
        if capacity.holds(demand):
            return {f"resources.{name}": value for name, value in change.items() if value != getattr(resources, name)}
    return None


def _changes(resources: Resources) -> list[dict[str, Any]]:
    """Smaller askings, the nearest first."""
    gpus = resources.gpus if isinstance(resources.gpus, int) else 0
    found: list[dict[str, Any]] = [{"gpus": n, "workers": None} for n in _down_from(gpus)]
    if not gpus:
        found += [{"workers": n} for n in _down_from(resources.workers or 1) if n]
    if resources.cpus_per_worker is not None:
        found += [
            {"cpus_per_worker": None},
            *({"gpus": n, "workers": None, "cpus_per_worker": None} for n in _down_from(gpus)),
        ]
    return found


def _down_from(count: int) -> list[int]:
    """Below a count: all small ones, and powers of two of large ones."""
    return [n for n in range(count - 1, -1, -1) if n < 16 or n & (n - 1) == 0 or n > count - 4]
