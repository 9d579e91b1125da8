"""Making jobs: exactly one per idempotency key, in one transaction with the key."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection

from astraml_ray.access.effective import Outcome
from astraml_ray.access.fields import normalised
from astraml_ray.access.permissions import Permission
from astraml_ray.access.tokens import Principal
from astraml_ray.api.errors import KeyInFlightError, KeyInvalidError, KeyReusedError
from astraml_ray.api.rules import project_of, resolve
from astraml_ray.api.scheduling import insert_schedule
from astraml_ray.api.services import Services
from astraml_ray.api.views import job_path, job_view
from astraml_ray.api.views_schedules import schedule_path, schedule_view
from astraml_ray.control.making import Request, insert_job
from astraml_ray.errors import Problem, SpecError, StoreBusyError
from astraml_ray.spec import JobSpec
from astraml_ray.spec.loading import parse_spec
from astraml_ray.spec.migration import CURRENT_VERSION
from astraml_ray.store.idempotency import KeyRecord, KeyTakenError, find_key, store_key

__all__ = ["Creation", "Made", "check_key", "differences", "make_job", "nudge"]

_LOG = logging.getLogger(__name__)
_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_MAX_DIFFERENCES = 50

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


@dataclass(frozen=True)
class Made:
    """What the client is answered, now or again."""

    status: int
    body: dict[str, Any]
    job_id: str | None
    schedule_id: str | None = None
    replayed: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """Where the job or schedule is, and whether the answer is a repetition."""
        replayed = {"Idempotency-Replayed": "true"} if self.replayed else {}
        place = schedule_path(self.schedule_id) if self.schedule_id else job_path(str(self.job_id))
        return {"Location": place, **replayed}


def check_key(values: list[str]) -> str | None:
    """The idempotency key of a request's headers.

    Raises:
        KeyInvalidError: It is not 1 to 255 printable ASCII characters, or there are two.
    """
    if not values:
        return None
    if len(values) > 1:
        raise KeyInvalidError("the header is there twice", param="Idempotency-Key")
    if not _KEY.fullmatch(values[0]):
        found = "is empty" if not values[0] else f"has {len(values[0])} characters, or other ones than printable ASCII"
        raise KeyInvalidError(f"the idempotency key {found}", param="Idempotency-Key")
    return values[0]


def make_job(services: Services, creation: Creation) -> Made:
    """Makes the job, or of a spec with a schedule that, unless its key has made one already.

    Raises:
        SpecError: The spec is invalid, or asks for what the service does not do.
        AccessError: The rules of the project stand against it; see `rules`.
        KeyReusedError: The key has made a job of another request.
        KeyInFlightError: Another request with the key may be making one.
        StoreError: The database failed; nothing is made.
    """
    request = creation.request()
    fingerprint = _digest(request)
    try:
        made = _replayed(services, creation, fingerprint, request)
        if made is None:
            outcome = resolve(services, creation.principal, creation.project_id, creation.document)
            make = _maker(creation, outcome.spec)
            with services.store.write() as conn:
                made = _known(conn, creation, fingerprint, request)
                if made is None:
                    now = services.clock()
                    made = make(conn, now, creation, outcome)
                    _remember(conn, now, creation, fingerprint, request, made)
    except KeyTakenError:
        # Its transaction has ended by now, or this one would still wait for it.
        made = _replayed(services, creation, fingerprint, request)
    except StoreBusyError as error:
        if creation.key is None:
            raise
        raise _in_flight() from error
    if made is None:
        raise _in_flight()
    if not made.replayed:
        nudge(services)
    return made


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


def differences(before: Any, now: Any, pointer: str = "") -> list[dict[str, Any]]:
    """Where two requests differ: pointer, and both values; null for none."""
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for name in sorted({*before, *now}):
            place = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
            found += differences(before.get(name), now.get(name), place)
        return found
    return [] if before == now else [{"param": pointer, "before": before, "now": now}]


def _replayed(services: Services, creation: Creation, fingerprint: str, request: dict[str, Any]) -> Made | None:
    """What is known without waiting for writers."""
    if creation.key is None:
        return None
    with services.store.read() as conn:
        return _known(conn, creation, fingerprint, request)


def _known(conn: Connection, creation: Creation, fingerprint: str, request: dict[str, Any]) -> Made | None:
    if creation.key is None:
        return None
    known = find_key(conn, creation.project_id, creation.route, creation.key)
    if known is None:
        return None
    if known.fingerprint != fingerprint:
        found = differences(known.request, request)
        raise KeyReusedError(
            f"the idempotency key has made {known.job_id or known.schedule_id} of another request",
            param=found[0]["param"] if found else None,
            members={"differs": found[:_MAX_DIFFERENCES]},
        )
    return Made(known.status_code, known.body, known.job_id, known.schedule_id, replayed=True)


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


def _remember(
    conn: Connection, now: float, creation: Creation, fingerprint: str, request: dict[str, Any], made: Made
) -> None:
    if creation.key is None:
        return
    record = KeyRecord(
        project_id=creation.project_id,
        route=creation.route,
        key=creation.key,
        fingerprint=fingerprint,
        request=request,
        status_code=made.status,
        body=made.body,
        job_id=made.job_id,
        created_at=now,
        schedule_id=made.schedule_id,
    )
    store_key(conn, record)


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    try:
        return normalised(document)
    except ValueError as error:
        raise SpecError([Problem("", f"is not plain data: {error}")]) from error


def _digest(request: dict[str, Any]) -> str:
    text = json.dumps(request, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _in_flight() -> KeyInFlightError:
    return KeyInFlightError("another request with this idempotency key may be under way", param="Idempotency-Key")
