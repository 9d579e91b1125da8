"""Routes of jobs: submit, list, look, cancel, resume, clone, and the dry run."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from astraml_ray.api.answers import JsonAnswer
from astraml_ray.api.errors import NotResumableError, OverloadedError, ParameterError, ValidationTimeoutError
from astraml_ray.api.openapi import BODY_CODES, JOB_CODES, KEY_HEADER, STORE_CODES, body_of, problems
from astraml_ray.api.parameters import (
    LABEL_PATTERN,
    PROJECT_PATTERN,
    STATUS_PATTERN,
    decode_cursor,
    encode_cursor,
    parse_labels,
    parse_project,
    parse_states,
    parse_time,
)
from astraml_ray.api.requests import (
    Body,
    RawBody,
    known_job,
    spec_of,
)
from astraml_ray.api.schemas import AttemptList, Job, JobPage, ValidationReport
from astraml_ray.api.services import ApiServices, Requires, Services, authorize_project
from astraml_ray.api.submission import Creation, check_key, make_job, nudge
from astraml_ray.api.views import attempt_view, is_resumable, job_view
from astraml_ray.spec import JobSpec
from astraml_ray.spec.loading import build_spec, parse_spec
from astraml_ray.spec.states import JobStatus
from astraml_ray.store.attempts import list_attempts
from astraml_ray.store.jobs import JobRecord, list_jobs, request_cancel

__all__ = ["router"]

router = APIRouter(prefix="/v2.1", tags=["jobs"])

_KEY_CODES = ("idempotency_key_invalid", "idempotency_key_reused", "idempotency_key_in_flight")
_CREATED: dict[str, Any] = {
    "model": Job,
    "description": "The job is stored, and will run",
    "headers": {
        "Location": {"description": "The job", "schema": {"type": "string"}},
        "Idempotency-Replayed": {
            "description": "This is the answer to an earlier request with the same key",
            "schema": {"type": "string", "enum": ["true"]},
        },
    },
}
StatusFilter = Annotated[str, Field(json_schema_extra={"pattern": STATUS_PATTERN})]
LabelFilter = Annotated[str, Field(json_schema_extra={"pattern": LABEL_PATTERN})]
Moment = {"format": "date-time"}


@router.post(
    "/jobs",
    status_code=201,
    summary="Submit a job",
    dependencies=[Depends(Requires("job.submit"))],
    responses={**problems(*BODY_CODES, *_KEY_CODES, *STORE_CODES, "invalid_spec"), 201: _CREATED},
    openapi_extra={"requestBody": body_of("JobSpec", required=True, yaml=True), "parameters": [KEY_HEADER]},
)
def submit_job(request: Request, services: ApiServices, body: Body) -> JsonAnswer:
    """Stores a job, durably, before it answers. The body is a job spec, as JSON or as YAML."""
    return _make(request, services, Creation("POST /v2.1/jobs", spec_of(body), _key(request)))


@router.get(
    "/jobs",
    summary="List jobs",
    dependencies=[Depends(Requires("job.read"))],
    responses={**problems(*STORE_CODES), 200: {"model": JobPage}},
)
def list_all_jobs(
    request: Request,
    services: ApiServices,
    project_id: Annotated[
        str | None, Query(description="Only of this project", json_schema_extra={"pattern": PROJECT_PATTERN})
    ] = None,
    status: Annotated[list[StatusFilter] | None, Query(description="States; repeated, or with commas")] = None,
    label: Annotated[list[LabelFilter] | None, Query(description="key=value; all of them", max_length=16)] = None,
    created_after: Annotated[str | None, Query(json_schema_extra=Moment)] = None,
    created_before: Annotated[str | None, Query(json_schema_extra=Moment)] = None,
    cursor: Annotated[str | None, Query(description="next_cursor of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> JsonAnswer:
    """A page of jobs, newest first, without their specs."""
    if project_id is not None:
        authorize_project(request, parse_project(project_id))
    with services.store.read() as conn:
        found = list_jobs(
            conn,
            project_id=project_id,
            status=parse_states(status) if status else None,
            labels=parse_labels(label or []),
            created_after=parse_time("created_after", created_after),
            created_before=parse_time("created_before", created_before),
            before_id=decode_cursor(cursor),
            limit=limit + 1,
        )
    page = found[:limit]
    more = encode_cursor(page[-1].id) if len(found) > limit else None
    return JsonAnswer({"data": [job_view(job, with_spec=False) for job in page], "next_cursor": more})


@router.get(
    "/jobs/{job_id}",
    summary="Look at a job",
    dependencies=[Depends(Requires("job.read"))],
    responses={**problems(*JOB_CODES), 200: {"model": Job}},
)
def show_job(request: Request, services: ApiServices, job_id: str) -> JsonAnswer:
    """The job object."""
    return JsonAnswer(job_view(known_job(request, services, job_id)))


@router.get(
    "/jobs/{job_id}/attempts",
    summary="List the attempts at a job",
    dependencies=[Depends(Requires("job.read"))],
    responses={**problems(*JOB_CODES), 200: {"model": AttemptList}},
)
def show_attempts(request: Request, services: ApiServices, job_id: str) -> JsonAnswer:
    """Every try at the job, the first one first."""
    known_job(request, services, job_id)
    with services.store.read() as conn:
        attempts = list_attempts(conn, job_id)
    return JsonAnswer({"data": [attempt_view(attempt) for attempt in attempts]})


@router.post(
    "/jobs/{job_id}/cancel",
    status_code=202,
    summary="Cancel a job",
    dependencies=[Depends(Requires("job.cancel"))],
    responses={
        **problems(*JOB_CODES, *BODY_CODES, "job_terminal", "invalid_transition"),
        200: {"model": Job, "description": "It was queued, and is cancelled"},
        202: {"model": Job, "description": "It is asked to stop, and to save itself"},
    },
    openapi_extra={"requestBody": body_of("CancelRequest", required=False)},
)
def cancel_job(request: Request, services: ApiServices, job_id: str, body: Body) -> JsonAnswer:
    """Cancels a queued job at once, and asks an active one to stop. It may be repeated."""
    known_job(request, services, job_id)
    mode = body.fields(["mode"]).get("mode", "now")
    if mode not in ("now", "keep_best"):
        raise ParameterError("mode is now or keep_best", param="/mode")
    with services.store.write() as conn:
        job = request_cancel(conn, job_id, mode, now=services.clock())
    nudge(services)
    return JsonAnswer(job_view(job), status_code=200 if job.status.terminal else 202)


@router.post(
    "/jobs/{job_id}/resume",
    status_code=201,
    summary="Resume a job",
    dependencies=[Depends(Requires("job.resume"))],
    responses={
        **problems(*JOB_CODES, *BODY_CODES, *_KEY_CODES, "job_not_resumable", "invalid_spec"),
        201: _CREATED,
    },
    openapi_extra={"parameters": [KEY_HEADER]},
)
def resume_job(request: Request, services: ApiServices, job_id: str, body: Body) -> JsonAnswer:
    """A new job that goes on from the last checkpoint of one that failed or was cancelled."""
    parent = known_job(request, services, job_id)
    body.fields([])
    if not is_resumable(parent):
        raise _not_resumable(parent)
    route = "POST /v2.1/jobs/{id}/resume"
    return _make(request, services, Creation(route, parse_spec(parent.spec), _key(request), parent.id, "resume"))


@router.post(
    "/jobs/{job_id}/clone",
    status_code=201,
    summary="Clone a job",
    dependencies=[Depends(Requires("job.submit"))],
    responses={**problems(*JOB_CODES, *BODY_CODES, *_KEY_CODES, "invalid_spec"), 201: _CREATED},
    openapi_extra={"requestBody": body_of("CloneRequest", required=False), "parameters": [KEY_HEADER]},
)
def clone_job(request: Request, services: ApiServices, job_id: str, body: Body) -> JsonAnswer:
    """A new job with the spec of another, and changes of it."""
    parent = known_job(request, services, job_id)
    spec = build_spec(parent.spec, flags=_changes(body), source="clone")
    return _make(request, services, Creation("POST /v2.1/jobs/{id}/clone", spec, _key(request), parent.id, "clone"))


@router.post(
    "/jobs:validate",
    summary="Try a job without submitting it",
    dependencies=[Depends(Requires("job.submit"))],
    responses={
        **problems(
            *BODY_CODES, "invalid_spec", "data", "model", "resources", "infrastructure", "storage", "validation_timeout"
        ),
        200: {"model": ValidationReport},
    },
    openapi_extra={"requestBody": body_of("JobSpec", required=True, yaml=True)},
)
async def validate_job(request: Request, services: ApiServices, body: Body) -> JsonAnswer:
    """The resolved spec, what the dataset holds, and warnings. Reads the bucket for real; stores nothing."""
    spec = await run_in_threadpool(_checked, request, body)
    if not services.validations.acquire(blocking=False):
        raise OverloadedError(f"{services.limits.max_validations} dry runs are under way in this process")
    running = asyncio.get_running_loop().run_in_executor(None, _validate, services, spec)
    try:
        report = await asyncio.wait_for(asyncio.shield(running), services.limits.validation_timeout_s)
    except asyncio.TimeoutError:
        running.add_done_callback(lambda late: late.cancelled() or late.exception())
        raise ValidationTimeoutError(
            f"the dry run took longer than {services.limits.validation_timeout_s:g} s", param="/dataset"
        ) from None
    return JsonAnswer(report)


def _checked(request: Request, body: RawBody) -> JobSpec:
    spec = spec_of(body)
    authorize_project(request, spec.project_id)
    return spec


def _validate(services: Services, spec: JobSpec) -> dict[str, Any]:
    """Holds its place until the work has ended, even if nobody waits for it any more."""
    try:
        return services.validator.validate(spec.canonical())
    finally:
        services.validations.release()


def _make(request: Request, services: Services, creation: Creation) -> JsonAnswer:
    authorize_project(request, creation.spec.project_id)
    made = make_job(services, creation)
    return JsonAnswer(made.body, status_code=made.status, headers=made.headers)


def _key(request: Request) -> str | None:
    return check_key(request.headers.getlist("idempotency-key"))


def _changes(body: RawBody) -> dict[str, Any]:
    changes = body.fields(["set"]).get("set", {})
    if not isinstance(changes, dict):
        raise ParameterError("set is an object of dotted paths and values", param="/set")
    for path in changes:
        if not path or len(path) > 256 or not all(path.split(".")):
            raise ParameterError(f"{path[:80]!r} is no dotted path", param="/set", hint="such as hyperparams.lr")
    return changes


def _not_resumable(job: JobRecord) -> NotResumableError:
    if job.status in (JobStatus.FAILED, JobStatus.CANCELLED):
        return NotResumableError(f"job {job.id} had not begun its run; clone it", param=job.id)
    return NotResumableError(f"job {job.id} is {job.status.value}", param=job.id)
