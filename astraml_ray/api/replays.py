"""Past jobs submitted again under a policy that is not in force, in thought: page by page, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import Connection

from astraml_ray.access.effective import InForce, request_of
from astraml_ray.access.policies import Policy
from astraml_ray.access.replay import PastJob, ReplayedJob, replay
from astraml_ray.store.access import OriginRecord, find_origin
from astraml_ray.store.access_tables import ORGANISATION
from astraml_ray.store.engine import Store
from astraml_ray.store.jobs import JobRecord, list_jobs
from astraml_ray.store.policies import policies_in_force

__all__ = ["Replayed", "replay_last"]

_PAGE = 50
_LISTED = 100

Both = tuple[InForce | None, InForce | None]


@dataclass
class Replayed:
    """How many jobs there were, how many would have gone differently, and the newest of those."""

    total: int = 0
    changed: int = 0
    rejected: int = 0
    jobs: list[ReplayedJob] = field(default_factory=list)

    def add(self, job: PastJob, policies: Both) -> None:
        """Counts one more job, older than those before."""
        report = replay([job], organisation=policies[0], project=policies[1])
        self.total += 1
        self.changed += len(report.changed)
        self.rejected += len(report.rejected)
        if len(self.jobs) < _LISTED:
            self.jobs += [*report.changed, *report.rejected]


def replay_last(store: Store, scope: str, policy: Policy, *, last: int) -> Replayed:
    """What a policy would have made of the last jobs of its scope; the other policies are those in force now.

    Raises:
        PolicyUnreadableError: A newer release wrote one of those.
        StoreError: The database failed.
    """
    found = Replayed()
    policies: dict[str, Both] = {}
    before: str | None = None
    while found.total < last:
        size = min(_PAGE, last - found.total)
        with store.read() as conn:
            project_id = None if scope == ORGANISATION else scope
            jobs = list_jobs(conn, project_id=project_id, before_id=before, limit=size)
            past = [_past(job, find_origin(conn, job.id)) for job in jobs]
            for name in {job.project_id for job in jobs} - set(policies):
                policies[name] = _policies(conn, name, scope, policy)
        for job, one in zip(jobs, past, strict=True):
            found.add(one, policies[job.project_id])
        if len(jobs) < size:
            break
        before = jobs[-1].id
    return found


def _past(job: JobRecord, origin: OriginRecord | None) -> PastJob:
    """What was asked for, where that is known and its fields are still fields of a job."""
    try:
        request = request_of(origin.provenance) if origin else job.spec
    except ValueError:
        request = job.spec
    return PastJob(job.id, request, job.spec)


def _policies(conn: Connection, project_id: str, scope: str, policy: Policy) -> Both:
    """The organisation's and the project's, with the candidate as the next version of its own."""
    organisation, project = policies_in_force(conn, project_id)
    if scope == ORGANISATION:
        return InForce("organisation", (organisation.version if organisation else 0) + 1, policy), InForce.of(project)
    return InForce.of(organisation), InForce("project", (project.version if project else 0) + 1, policy)
