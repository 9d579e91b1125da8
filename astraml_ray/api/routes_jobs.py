"""Routes of jobs: submit, list, look, cancel, resume, clone, and the dry run."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from astraml_ray.access.effective import Outcome, policy_notes, request_of
from astraml_ray.access.gate import require_cancel
from astraml_ray.access.permissions import Permission
from astraml_ray.api.answers import JsonAnswer
from astraml_ray.api.dry_runs import DRY_RUN_CODES, dry_run
from astraml_ray.api.errors import NotResumableError, ParameterError
from astraml_ray.api.keyed import check_key
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
    changes_of,
    known_job,
    known_schedule,
    refuse_secrets,
    spec_of,
)
from astraml_ray.api.rules import authorize_submission, project_of, resolve
from astraml_ray.api.schemas import AttemptList, Job, JobPage, ValidationReport
from astraml_ray.api.schemas_schedules import ScheduleObject
from astraml_ray.api.services import ApiServices, Requires, Services, authorize_project, caller_of
from astraml_ray.api.submission import Creation, make_job, nudge, place_of
from astraml_ray.api.views import attempt_view, is_resumable, job_view
from astraml_ray.control.secrets import grant_to_dry_run
from astraml_ray.spec.documents import changed
from astraml_ray.spec.states import JobStatus
from astraml_ray.store.access import find_origin, submitters_of
from astraml_ray.store.attempts import list_attempts
from astraml_ray.store.jobs import JobRecord, list_jobs, request_cancel
from astraml_ray.store.occurrences import occasions_of

__all__ = ["CREATED", "KEY_CODES", "RULE_CODES", "SUBMIT", "SUBMITTED", "key_of", "make", "router"]

router = APIRouter(prefix="/v2.1", tags=["jobs"])

SUBMIT = "POST /v2.1/jobs"
"""The scope of a submission's idempotency key, whichever version the request is of."""
KEY_CODES = ("idempotency_key_invalid", "idempotency_key_reused", "idempotency_key_in_flight")
CREATED: dict[str, Any] = {
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
SUBMITTED: dict[str, Any] = {
    **CREATED,
    "model": Job | ScheduleObject,
    "description": "The job is stored, and will run; of a spec with a `schedule`, that is stored",
}
RULE_CODES = (
    "inline_secret",
    "invalid_spec",
    "policy_unreadable",
    "policy_violation",
    "project_archived",
    "quota_exceeded",
    "secret_not_found",
    "target_not_allowed",
)
"""What a spec can be refused for."""
StatusFilter = Annotated[str, Field(json_schema_extra={"pattern": STATUS_PATTERN})]
LabelFilter = Annotated[str, Field(json_schema_extra={"pattern": LABEL_PATTERN})]
Moment = {"format": "date-time"}


@router.post(
    "/jobs",
    status_code=201,
    summary="Submit a job",
    dependencies=[Depends(Requires(Permission.JOB_SUBMIT))],
    responses={**problems(*BODY_CODES, *KEY_CODES, *STORE_CODES, *RULE_CODES), 201: SUBMITTED},
    openapi_extra={"requestBody": body_of("JobSpec", required=True, yaml=True), "parameters": [KEY_HEADER]},
)
def submit_job(request: Request, services: ApiServices, body: Body) -> JsonAnswer:
    """Stores a job, durably, before it answers. The body is a job spec, as JSON or as YAML.

    A spec with a `schedule` makes a schedule instead, which is the answer; that needs `schedule.manage` too.
    """
    return make(request, services, Creation(SUBMIT, caller_of(request), spec_of(body), key_of(request)))


@router.get(
    "/jobs",
    summary="List jobs",
    dependencies=[Depends(Requires(Permission.JOB_READ))],
    responses={**problems("schedule_not_found", *STORE_CODES), 200: {"model": JobPage}},
)
def list_all_jobs(
    request: Request,
    services: ApiServices,
    project_id: Annotated[
        str | None, Query(description="Only of this project", json_schema_extra={"pattern": PROJECT_PATTERN})
    ] = None,
    status: Annotated[list[StatusFilter] | None, Query(description="States; repeated, or with commas")] = None,
    label: Annotated[list[LabelFilter] | None, Query(description="key=value; all of them", max_length=16)] = None,
    schedule_id: Annotated[str | None, Query(description="Only those that this schedule has made")] = None,
    created_after: Annotated[str | None, Query(json_schema_extra=Moment)] = None,
    created_before: Annotated[str | None, Query(json_schema_extra=Moment)] = None,
    cursor: Annotated[str | None, Query(description="next_cursor of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> JsonAnswer:
    """A page of jobs, newest first, without their specs."""
    visible = caller_of(request).projects_with(Permission.JOB_READ)
    if project_id is not None:
        authorize_project(request, parse_project(project_id))
    if schedule_id is not None:
        known_schedule(request, services, schedule_id)
    with services.store.read() as conn:
        found = list_jobs(
            conn,
            project_id=project_id,
            project_ids=visible,
            status=parse_states(status) if status else None,
            labels=parse_labels(label or []),
            created_after=parse_time("created_after", created_after),
            created_before=parse_time("created_before", created_before),
            schedule_id=schedule_id,
            before_id=decode_cursor(cursor),
            limit=limit + 1,
        )
        page = found[:limit]
        submitters = submitters_of(conn, [job.id for job in page])
        occasions = occasions_of(conn, [job.id for job in page])
    more = encode_cursor(page[-1].id) if len(found) > limit else None
    views = [
        job_view(job, submitted_by=submitters.get(job.id), occasion=occasions.get(job.id), with_spec=False)
        for job in page
    ]
    return JsonAnswer({"data": views, "next_cursor": more})


@router.get(
    "/jobs/{job_id}",
    summary="Look at a job",
    dependencies=[Depends(Requires(Permission.JOB_READ))],
    responses={**problems(*JOB_CODES), 200: {"model": Job}},
)
def show_job(request: Request, services: ApiServices, job_id: str) -> JsonAnswer:
    """The job object."""
    job = known_job(request, services, job_id)
    with services.store.read() as conn:
        submitter, occasion = submitters_of(conn, [job_id]).get(job_id), occasions_of(conn, [job_id]).get(job_id)
    return JsonAnswer(job_view(job, submitted_by=submitter, occasion=occasion))


@router.get(
    "/jobs/{job_id}/attempts",
    summary="List the attempts at a job",
    dependencies=[Depends(Requires(Permission.JOB_READ))],
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
    dependencies=[Depends(Requires(Permission.JOB_CANCEL_OWN))],
    responses={
        **problems(*JOB_CODES, *BODY_CODES, "job_terminal", "invalid_transition"),
        200: {"model": Job, "description": "It was queued, and is cancelled"},
        202: {"model": Job, "description": "It is asked to stop, and to save itself"},
    },
    openapi_extra={"requestBody": body_of("CancelRequest", required=False)},
)
def cancel_job(request: Request, services: ApiServices, job_id: str, body: Body) -> JsonAnswer:
    """Cancels a queued job at once, and asks an active one to stop. It may be repeated.

    Another's job needs the permission `job.cancel.any`.
    """
    job = known_job(request, services, job_id)
    mode = body.fields(["mode"]).get("mode", "now")
    if mode not in ("now", "keep_best"):
        raise ParameterError("mode is now or keep_best", param="/mode")
    with services.store.read() as conn:
        submitter, occasion = submitters_of(conn, [job_id]).get(job_id), occasions_of(conn, [job_id]).get(job_id)
    require_cancel(caller_of(request), job.project_id, submitter)
    with services.store.write() as conn:
        job = request_cancel(conn, job_id, mode, now=services.clock())
    nudge(services)
    view = job_view(job, submitted_by=submitter, occasion=occasion)
    return JsonAnswer(view, status_code=200 if job.status.terminal else 202)


@router.post(
    "/jobs/{job_id}/resume",
    status_code=201,
    summary="Resume a job",
    dependencies=[Depends(Requires(Permission.JOB_RESUME))],
    responses={
        **problems(*JOB_CODES, *BODY_CODES, *KEY_CODES, *RULE_CODES, "job_not_resumable"),
        201: CREATED,
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
    return make(
        request, services, Creation(route, caller_of(request), parent.spec, key_of(request), parent.id, "resume")
    )


@router.post(
    "/jobs/{job_id}/clone",
    status_code=201,
    summary="Clone a job",
    dependencies=[Depends(Requires(Permission.JOB_SUBMIT))],
    responses={**problems(*JOB_CODES, *BODY_CODES, *KEY_CODES, *RULE_CODES), 201: CREATED},
    openapi_extra={"requestBody": body_of("CloneRequest", required=False), "parameters": [KEY_HEADER]},
)
def clone_job(request: Request, services: ApiServices, job_id: str, body: Body) -> JsonAnswer:
    """A new job with the spec of another, and changes of it."""
    parent = known_job(request, services, job_id)
    changes = changes_of(body)
    refuse_secrets({**changes, "project_id": parent.project_id})
    with services.store.read() as conn:
        origin = find_origin(conn, job_id)
    # What was asked for then: policies lay what they say now on top.
    asked = request_of(origin.provenance) if origin else parent.spec
    document = changed(asked, changes)
    route = "POST /v2.1/jobs/{id}/clone"
    return make(request, services, Creation(route, caller_of(request), document, key_of(request), parent.id, "clone"))


@router.post(
    "/jobs:validate",
    summary="Try a job without submitting it",
    dependencies=[Depends(Requires(Permission.JOB_SUBMIT))],
    responses={
        **problems(
            *BODY_CODES,
            *STORE_CODES,
            *RULE_CODES,
            *DRY_RUN_CODES,
            "model",
            "resources",
        ),
        200: {"model": ValidationReport},
    },
    openapi_extra={"requestBody": body_of("JobSpec", required=True, yaml=True)},
)
async def validate_job(request: Request, services: ApiServices, body: Body) -> JsonAnswer:
    """The resolved spec, what the dataset holds, and warnings. Reads the bucket for real; stores nothing."""
    outcome, grant = await run_in_threadpool(_resolved, request, services, body)
    report = await dry_run(services, lambda: services.validator.validate(outcome.document, grant=grant))
    return JsonAnswer({**report, "policies": policy_notes(outcome.provenance)})


def _resolved(request: Request, services: Services, body: RawBody) -> tuple[Outcome, str | None]:
    """What would run, and a grant for the credentials that it would read the dataset with."""
    document = spec_of(body)
    authorize_submission(request, project_of(document))
    caller = caller_of(request)
    outcome = resolve(services, caller, project_of(document), document)
    now = services.clock()
    return outcome, grant_to_dry_run(services.store, services.keys, outcome.spec, caller.subject, now=now)


def make(request: Request, services: Services, creation: Creation) -> JsonAnswer:
    """Makes a job for whoever may have it made, and answers with it."""
    authorize_submission(request, creation.project_id)
    made = make_job(services, creation)
    return JsonAnswer(made.body, status_code=made.status, headers={"Location": place_of(made), **made.headers})


def key_of(request: Request) -> str | None:
    """The request's idempotency key."""
    return check_key(request.headers.getlist("idempotency-key"))


def _not_resumable(job: JobRecord) -> NotResumableError:
    if job.status in (JobStatus.FAILED, JobStatus.CANCELLED):
        return NotResumableError(f"job {job.id} had not begun its run; clone it", param=job.id)
    return NotResumableError(f"job {job.id} is {job.status.value}", param=job.id)
