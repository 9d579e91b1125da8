"""Making jobs: exactly one per idempotency key, in one transaction with the key."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection

from astraml_ray.access.effective import Outcome
from astraml_ray.access.fields import normalised
from astraml_ray.access.permissions import Permission
from astraml_ray.access.tokens import Principal
from astraml_ray.api.keyed import Keyed, Made, once
from astraml_ray.api.rules import project_of, resolve
from astraml_ray.api.scheduling import insert_schedule
from astraml_ray.api.services import Services
from astraml_ray.api.views import job_path, job_view
from astraml_ray.api.views_schedules import schedule_path, schedule_view
from astraml_ray.control.making import Request, insert_job
from astraml_ray.errors import Problem, SpecError
from astraml_ray.spec import JobSpec
from astraml_ray.spec.loading import parse_spec
from astraml_ray.spec.migration import CURRENT_VERSION

__all__ = ["Creation", "make_job", "nudge", "place_of"]

_LOG = logging.getLogger(__name__)

Relation = Literal["resume", "clone", "retrain"]


@dataclass(frozen=True)
class Creation:
    """A job to be made.

    Attributes:
        route: Scope of the key, together with the project.
        principal: Who asks for it.
        document: What is asked for, as a spec of the current version; policies come on top.
        key: The idempotency key, if the client sent one.
        parent_id: The job that is resumed or cloned, or the sweep whose trial is trained again.
        relation: Which of these.
        sent: The request as it came, if that is another document.
        api_version: Of that request.
        migration: What moved, of a request of an older version.
        scheduled: It must have a schedule.
        asks: What the request says, where the document is made from what may change meanwhile.
    """

    route: str
    principal: Principal
    document: dict[str, Any]
    key: str | None = None
    parent_id: str | None = None
    relation: Relation | None = None
    sent: dict[str, Any] | None = None
    api_version: str = CURRENT_VERSION
    migration: list[dict[str, Any]] | None = None
    scheduled: bool = False
    asks: dict[str, Any] | None = None

    @property
    def project_id(self) -> str:
        """The project that the job is for."""
        return project_of(self.document)

    def request(self) -> dict[str, Any]:
        """What two requests with one key must have in common, however they are written; policies have no part in it.

        Raises:
            SpecError: The document is no plain data.
        """
        if self.asks is not None:
            return self.asks
        try:
            spec = parse_spec(self.document).canonical()
        except SpecError:
            # A policy's defaults may make it whole.
            spec = _plain(self.document)
        return spec if self.parent_id is None else {"parent_id": self.parent_id, "spec": spec}


def make_job(services: Services, creation: Creation) -> Made:
    """Makes the job, or of a spec with a schedule that, unless its key has made one already.

    Raises:
        SpecError: The spec is invalid, or asks for what the service does not do.
        AccessError: The rules of the project stand against it; see `rules`.
        KeyReusedError: The key has made a job of another request.
        KeyInFlightError: Another request with the key may be making one.
        StoreError: The database failed; nothing is made.
    """
    keyed = Keyed(creation.project_id, creation.route, creation.key, creation.request())

    def make() -> Made:
        outcome = resolve(services, creation.principal, creation.project_id, creation.document)
        create = _maker(creation, outcome.spec)
        with services.store.write() as conn:
            made = keyed.known(conn)
            if made is None:
                now = services.clock()
                made = create(conn, now, creation, outcome)
                keyed.remember(conn, made, now=now)
        return made

    made = once(services, keyed, make)
    if not made.replayed:
        nudge(services)
    return made


def place_of(made: Made) -> str:
    """Where the job or schedule is."""
    return schedule_path(made.schedule_id) if made.schedule_id else job_path(str(made.job_id))


def _maker(creation: Creation, spec: JobSpec) -> Callable[..., Made]:
    """What makes what is asked for.

    Raises:
        SpecError: It should have a schedule and has none, or the other way round.
        PermissionDeniedError: The caller may make a job, but no schedule; or the other way round.
    """
    if spec.schedule is None:
        if creation.scheduled:
            raise SpecError([Problem("/schedule", "is required", 'such as {"cron": "0 2 * * *"}')])
        return _create
    if creation.parent_id is not None:
        message = "a job that is resumed or cloned runs once"
        raise SpecError([Problem("/schedule", message, "leave it out; POST /v2.1/schedules makes a schedule")])
    for permission in (Permission.SCHEDULE_MANAGE, Permission.JOB_SUBMIT):
        creation.principal.require(permission, spec.project_id)
    return _create_schedule


def nudge(services: Services) -> None:
    """Tells the controller; it looks by itself too, so that nothing depends on this."""
    try:
        services.nudge()
    except Exception:
        _LOG.warning("the controller could not be told", exc_info=True)


def _create(conn: Connection, now: float, creation: Creation, outcome: Outcome) -> Made:
    job = insert_job(conn, _asked(creation), outcome, now=now)
    return Made(201, job_view(job, submitted_by=creation.principal.subject), job.id)


def _create_schedule(conn: Connection, now: float, creation: Creation, outcome: Outcome) -> Made:
    schedule = insert_schedule(conn, _asked(creation), creation.document, outcome, now=now)
    return Made(201, schedule_view(schedule, now=now), None, schedule.id)


def _asked(creation: Creation) -> Request:
    sent = creation.document if creation.sent is None else creation.sent
    return Request(
        creation.principal, sent, creation.api_version, creation.migration, creation.parent_id, creation.relation
    )


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    try:
        return normalised(document)
    except ValueError as error:
        raise SpecError([Problem("", f"is not plain data: {error}")]) from error
