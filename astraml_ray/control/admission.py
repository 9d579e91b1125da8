"""Who of the queue starts now, and why the others wait. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from astraml_ray.access.quotas import Verdict
from astraml_ray.control.allowances import Allowances
from astraml_ray.errors import ResourcesError
from astraml_ray.spec.job import Resources
from astraml_ray.spec.placement import Placement, place

__all__ = ["Capacity", "Demand", "Hold", "Start", "Waiting", "admit", "demand_of"]

# A job that does not fit is overtaken by smaller ones for this long. Then what it lacks is held back for it, but
# not for ever either: it may be waiting for a run of weeks.
_OVERTAKEN_S = 600.0
_HELD_S = 1800.0
_CYCLE_S = _HELD_S + _OVERTAKEN_S

_TOLD_S = 600.0
"""A time far away is told to ten minutes: it moves with every job that runs meanwhile."""
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
    """A queued job.

    Attributes:
        job_id: The job.
        resources: Of it, or of each of its trials.
        priority: Greater goes first.
        queued_at: Seconds since the epoch.
        not_before: It was tried, and waits until then.
        project_id: Whose quota counts.
        trials: How many trials it may have at once; 1 for a job that is no sweep.
    """

    job_id: str
    resources: Resources
    priority: int
    queued_at: float
    not_before: float | None = None
    project_id: str = "default"
    trials: int = 1


@dataclass(frozen=True)
class Start:
    """The job starts now; a sweep with so many trials at once, each with that placement."""

    job_id: str
    placement: Placement
    trials: int = 1


@dataclass(frozen=True)
class Hold:
    """The job waits: why, and which changes of its spec would start it now."""

    job_id: str
    message: str
    would_start_with: dict[str, Any] | None = None


def demand_of(placement: Placement, cluster_cpus: float, trials: int = 1) -> Demand:
    """What so many trials of a placement take, with a CPU for the data tasks where the cluster has it."""
    count = trials * placement.workers
    workers = count * placement.cpus_per_worker
    return Demand(workers + min(_DATA_CPUS, max(0.0, cluster_cpus - workers)), count * placement.gpus_per_worker)


def admit(
    queue: Sequence[Waiting], capacity: Capacity, *, now: float, allowances: Allowances | None = None
) -> list[Start | Hold]:
    """Decides on every queued job: by priority, then by age, smaller ones overtaking for a while.

    Args:
        queue: All that wait.
        capacity: The cluster.
        now: Seconds since the epoch.
        allowances: What quotas leave; left out, there are none. Who waits for a quota is in no other project's way.

    Returns:
        One decision for each job, in the queue's order.
    """
    decisions: list[Start | Hold] = []
    room = _Room(capacity, allowances or Allowances(), now)
    ordered = sorted(queue, key=lambda w: (-w.priority, w.queued_at, w.job_id))
    for ahead, job in enumerate(ordered):
        decision, room = _decide(job, ahead, room)
        decisions.append(decision)
    # A sweep needs room for one trial; for more of them it gets what nobody else is waiting for.
    for turn, job in enumerate(ordered):
        decision = decisions[turn]
        if isinstance(decision, Start) and job.trials > 1:
            decisions[turn], room = _widened(job, decision, room)
    return decisions


@dataclass(frozen=True)
class _Room:
    """What there is for the next job of the queue.

    Attributes:
        capacity: Of the cluster.
        allowances: Of the quotas.
        now: Seconds since the epoch.
        reserved: A job that has waited long, and what is held back for it.
        first_of: By project, a job that has waited long for GPUs of its quota.
    """

    capacity: Capacity
    allowances: Allowances
    now: float
    reserved: tuple[str, Demand] | None = None
    first_of: Mapping[str, str] = field(default_factory=dict)

    def verdict(self, job: Waiting, demand: Demand) -> Verdict:
        return self.allowances.verdict(job.project_id, demand.gpus)

    def takes(self, job: Waiting, demand: Demand) -> bool:
        """Whether the job could start."""
        return self.capacity.holds(demand) and self.verdict(job, demand).decision == "admit"

    def less(self, job: Waiting, demand: Demand) -> _Room:
        """What is left when the job has started."""
        left = self.allowances.less(job.project_id, demand.gpus)
        return replace(self, capacity=self.capacity.less(demand), allowances=left)

    def without(self, job: Waiting, demand: Demand) -> _Room:
        """What there would be if the job had not started."""
        left = self.allowances.less(job.project_id, -demand.gpus, jobs=-1)
        return replace(self, capacity=self.capacity.less(Demand(-demand.cpus, -demand.gpus)), allowances=left)


def _decide(job: Waiting, ahead: int, room: _Room) -> tuple[Start | Hold, _Room]:
    """What becomes of one job, and what that leaves for those after it."""
    if job.not_before is not None and job.not_before > room.now:
        at = datetime.fromtimestamp(job.not_before, tz=timezone.utc)
        return Hold(job.job_id, f"is tried again at {at:%H:%M:%S} UTC"), room
    try:
        placement = _place(job.resources, room.capacity)
    except ResourcesError as error:
        # It may fit once the cluster grows; until then it is in nobody's way.
        return Hold(job.job_id, _told(error), _alternative(job, room)), room
    demand = demand_of(placement, room.capacity.cpus)
    is_late = _is_held_for(room.now - job.queued_at)
    verdict = room.verdict(job, demand)
    if verdict.decision != "admit":
        hold = Hold(job.job_id, _quota_words(verdict), _alternative(job, room))
        if verdict.decision == "wait" and verdict.retry_at is None and is_late:
            room = replace(room, first_of={job.project_id: job.job_id, **room.first_of})
        return hold, room
    if demand.gpus and (first := room.first_of.get(job.project_id)):
        return Hold(job.job_id, f"its project's GPUs are held for {first}, which has waited longer"), room
    fits = room.capacity.holds(demand)
    if fits and not _takes_from(room.reserved, demand, room.capacity):
        return Start(job.job_id, placement), room.less(job, demand)
    hold = Hold(job.job_id, _lack(demand, room.capacity, ahead, room.reserved), _alternative(job, room))
    if room.reserved is None and not fits and is_late:
        room = replace(room, reserved=(job.job_id, demand))
    return hold, room


def _widened(job: Waiting, start: Start, room: _Room) -> tuple[Start, _Room]:
    """A sweep that starts, with as many trials at once as it wants and there is room for now."""
    demand = demand_of(start.placement, room.capacity.cpus)
    room = room.without(job, demand)
    trials = 1
    while trials < job.trials:
        more = demand_of(start.placement, room.capacity.cpus, trials + 1)
        if not room.takes(job, more) or _takes_from(room.reserved, more, room.capacity):
            break
        trials, demand = trials + 1, more
    return replace(start, trials=trials), room.less(job, demand)


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


def _quota_words(verdict: Verdict) -> str:
    message = verdict.message or "the quota is used up"
    if verdict.retry_at is None:
        return message
    at = datetime.fromtimestamp(math.ceil(verdict.retry_at / _TOLD_S) * _TOLD_S, tz=timezone.utc)
    return f"{message}; there is room again at {at:%Y-%m-%d %H:%M} UTC"


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


def _alternative(job: Waiting, room: _Room) -> dict[str, Any] | None:
    """The least change of the spec with which the job would start now."""
    for change in _changes(job.resources):
        changed = job.resources.model_copy(update=dict(change.items()))
        try:
            demand = demand_of(_place(changed, room.capacity), room.capacity.cpus)
        except ResourcesError:
            continue
        if room.takes(job, demand):
            return {
                f"resources.{name}": value for name, value in change.items() if value != getattr(job.resources, name)
            }
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
