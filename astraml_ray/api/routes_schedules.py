"""Routes of schedules: make, list, look, pause, resume, run now, make up for, delete."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from astraml_ray.access.permissions import Permission
from astraml_ray.api.answers import JsonAnswer
from astraml_ray.api.errors import ParameterError
from astraml_ray.api.firing_once import backfill_once, run_once
from astraml_ray.api.keyed import Made
from astraml_ray.api.openapi import BODY_CODES, KEY_HEADER, STORE_CODES, body_of, problems
from astraml_ray.api.parameters import PROJECT_PATTERN, decode_cursor, parse_project, parse_time
from astraml_ray.api.requests import Body, known_schedule, spec_of
from astraml_ray.api.routes_jobs import KEY_CODES, RULE_CODES, key_of, make
from astraml_ray.api.scheduling import delete, pause, resume
from astraml_ray.api.schemas_schedules import (
    Backfill,
    DeletedSchedule,
    NextTimes,
    Occurrence,
    OccurrencePage,
    ScheduleObject,
    SchedulePage,
)
from astraml_ray.api.services import ApiServices, Caller, Requires, Services, authorize_project, caller_of
from astraml_ray.api.submission import Creation
from astraml_ray.api.views_access import NUMBER, page_view
from astraml_ray.api.views_schedules import next_view, occurrence_view, schedule_view
from astraml_ray.store.occurrences import list_occurrences
from astraml_ray.store.schedules import ScheduleRecord, list_schedules

__all__ = ["router"]

router = APIRouter(prefix="/v2.1/schedules", tags=["schedules"])

_CODES = ("schedule_not_found", *STORE_CODES)
_READ = [Depends(Requires(Permission.JOB_READ))]
_MANAGE = [Depends(Requires(Permission.SCHEDULE_MANAGE))]
_REPLAYED: dict[str, Any] = {
    "Idempotency-Replayed": {
        "description": "This is the answer to an earlier request with the same key",
        "schema": {"type": "string", "enum": ["true"]},
    },
}
_CREATED: dict[str, Any] = {
    "model": ScheduleObject,
    "description": "The schedule is stored, and makes jobs from now on",
    "headers": {"Location": {"description": "The schedule", "schema": {"type": "string"}}, **_REPLAYED},
}
Cursor = Annotated[str | None, Query(description="next_cursor of the page before")]
Limit = Annotated[int, Query(ge=1, le=200)]


@router.post(
    "",
    status_code=201,
    summary="Make a schedule",
    dependencies=_MANAGE,
    responses={**problems(*BODY_CODES, *KEY_CODES, *STORE_CODES, *RULE_CODES, "project_not_found"), 201: _CREATED},
    openapi_extra={"requestBody": body_of("ScheduleRequest", required=True, yaml=True), "parameters": [KEY_HEADER]},
)
def make_schedule(request: Request, services: ApiServices, body: Body) -> JsonAnswer:
    """Stores a schedule. The body is `{"spec": ...}`, or the spec itself, with a `schedule`.

    POST /v2.1/jobs makes one of such a spec too.
    """
    document = spec_of(body, within="spec")
    creation = Creation("POST /v2.1/schedules", caller_of(request), document, key_of(request), scheduled=True)
    return make(request, services, creation)


@router.get(
    "",
    summary="List schedules",
    dependencies=_READ,
    responses={**problems(*STORE_CODES, "project_not_found"), 200: {"model": SchedulePage}},
)
def list_all_schedules(
    request: Request,
    services: ApiServices,
    project_id: Annotated[
        str | None, Query(description="Only of this project", json_schema_extra={"pattern": PROJECT_PATTERN})
    ] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> JsonAnswer:
    """A page of schedules, newest first, without their specs."""
    visible = caller_of(request).projects_with(Permission.JOB_READ)
    if project_id is not None:
        authorize_project(request, parse_project(project_id))
    before, now = decode_cursor(cursor), services.clock()
    with services.store.read() as conn:
        found = list_schedules(conn, project_id=project_id, project_ids=visible, before_id=before, limit=limit + 1)
    return JsonAnswer(
        page_view(found, limit, lambda one: one.id, lambda one: schedule_view(one, now=now, with_spec=False))
    )


@router.get(
    "/{schedule_id}",
    summary="Look at a schedule",
    dependencies=_READ,
    responses={**problems(*_CODES), 200: {"model": ScheduleObject}},
)
def show_schedule(request: Request, services: ApiServices, schedule_id: str) -> JsonAnswer:
    """The schedule object, with the next five times."""
    return _answer(known_schedule(request, services, schedule_id), services)


@router.delete(
    "/{schedule_id}",
    summary="Delete a schedule",
    dependencies=_MANAGE,
    responses={**problems(*_CODES, *BODY_CODES), 200: {"model": DeletedSchedule}},
)
def remove_schedule(
    request: Request, services: ApiServices, caller: Caller, schedule_id: str, body: Body
) -> JsonAnswer:
    """Takes a schedule away, with its occurrences. Its jobs stay, and those that run go on."""
    schedule = known_schedule(request, services, schedule_id)
    body.fields([])
    delete(services.store, schedule, caller, now=services.clock())
    return JsonAnswer({"id": schedule.id})


@router.post(
    "/{schedule_id}/pause",
    summary="Pause a schedule",
    dependencies=_MANAGE,
    responses={**problems(*_CODES, *BODY_CODES), 200: {"model": ScheduleObject}},
    openapi_extra={"requestBody": body_of("PauseRequest", required=False)},
)
def pause_schedule(request: Request, services: ApiServices, caller: Caller, schedule_id: str, body: Body) -> JsonAnswer:
    """Makes no more jobs until it is resumed; jobs that are there go on. It may be repeated."""
    schedule = known_schedule(request, services, schedule_id)
    reason = body.fields(["reason"]).get("reason")
    if reason is not None and not (isinstance(reason, str) and len(reason) <= 1000):
        raise ParameterError("reason is text of at most 1000 characters", param="/reason")
    return _answer(pause(services.store, schedule.id, caller, reason, now=services.clock()), services)


@router.post(
    "/{schedule_id}/resume",
    summary="Resume a schedule",
    dependencies=_MANAGE,
    responses={**problems(*_CODES, *BODY_CODES), 200: {"model": ScheduleObject}},
)
def resume_schedule(
    request: Request, services: ApiServices, caller: Caller, schedule_id: str, body: Body
) -> JsonAnswer:
    """Goes on with what comes from now on; `backfill` makes up for what passed. It may be repeated."""
    schedule = known_schedule(request, services, schedule_id)
    body.fields([])
    return _answer(resume(services.store, schedule.id, caller, now=services.clock()), services)


@router.post(
    "/{schedule_id}/run-now",
    status_code=201,
    summary="Make a schedule's job now",
    dependencies=_MANAGE,
    responses={
        **problems(*_CODES, *BODY_CODES, *KEY_CODES, *RULE_CODES, "project_not_found"),
        201: {"model": Occurrence, "description": "The job is stored, and will run", "headers": _REPLAYED},
    },
    openapi_extra={"parameters": [KEY_HEADER]},
)
def run_schedule_now(
    request: Request, services: ApiServices, caller: Caller, schedule_id: str, body: Body
) -> JsonAnswer:
    """Makes a job at once, for the caller, whatever else runs; also of a schedule that is paused.

    With an idempotency key it makes one, however often it is sent.
    """
    schedule = known_schedule(request, services, schedule_id)
    body.fields([])
    return _made(run_once(services, schedule, caller, key_of(request)))


@router.post(
    "/{schedule_id}/backfill",
    status_code=202,
    summary="Make up for a time that has passed",
    dependencies=_MANAGE,
    responses={
        **problems(*_CODES, *BODY_CODES, *KEY_CODES),
        202: {"model": Backfill, "description": "They wait for their turn", "headers": _REPLAYED},
    },
    openapi_extra={"requestBody": body_of("BackfillRequest", required=True), "parameters": [KEY_HEADER]},
)
def backfill_schedule(
    request: Request, services: ApiServices, caller: Caller, schedule_id: str, body: Body
) -> JsonAnswer:
    """Makes the jobs of the instants that have none, at most 1000; one after the other, unless they may overlap."""
    schedule = known_schedule(request, services, schedule_id)
    given = body.fields(["from", "to"])
    first, last = (_time_in(given, name) for name in ("from", "to"))
    return _made(backfill_once(services, schedule, caller, key_of(request), first=first, last=last))


@router.get(
    "/{schedule_id}/next",
    summary="List the next times",
    dependencies=_READ,
    responses={**problems(*_CODES), 200: {"model": NextTimes}},
)
def list_next_times(
    request: Request, services: ApiServices, schedule_id: str, count: Annotated[int, Query(ge=1, le=100)] = 10
) -> JsonAnswer:
    """In UTC and in local time, with a mark where the clocks are changed; also of a schedule that is paused."""
    schedule = known_schedule(request, services, schedule_id)
    data = next_view(schedule, now=services.clock(), count=count)
    return JsonAnswer({"timezone": schedule.timing["timezone"], "data": data})


@router.get(
    "/{schedule_id}/occurrences",
    summary="List a schedule's occurrences",
    dependencies=_READ,
    responses={**problems(*_CODES), 200: {"model": OccurrencePage}},
)
def list_all_occurrences(
    request: Request, services: ApiServices, schedule_id: str, cursor: Cursor = None, limit: Limit = 50
) -> JsonAnswer:
    """A page of instants that were decided about, the latest first, with their jobs, or why they have none."""
    schedule = known_schedule(request, services, schedule_id)
    last = decode_cursor(cursor, NUMBER)
    with services.store.read() as conn:
        found = list_occurrences(conn, schedule.id, before=None if last is None else int(last), limit=limit + 1)
    return JsonAnswer(page_view(found, limit, lambda one: str(one.instant), occurrence_view))


def _made(made: Made) -> JsonAnswer:
    return JsonAnswer(made.body, status_code=made.status, headers=made.headers)


def _answer(schedule: ScheduleRecord, services: Services) -> JsonAnswer:
    return JsonAnswer(schedule_view(schedule, now=services.clock()))


def _time_in(given: dict[str, Any], name: str) -> float:
    if not isinstance(given.get(name), str):
        raise ParameterError(f"{name} is a time", param=f"/{name}", hint="write it as 2026-11-25T20:50:09Z")
    try:
        return float(parse_time(name, given[name]) or 0.0)
    except ParameterError as error:
        raise ParameterError(error.message, param=f"/{name}", hint=error.hint) from None
