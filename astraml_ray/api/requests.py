"""What the routes read from requests: bodies, and the job or schedule that they name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from astraml_ray.access.denials import InlineSecretError, ProjectNotFoundError
from astraml_ray.access.inline_secrets import find_inline_secrets
from astraml_ray.api.admission import Slot
from astraml_ray.api.bodies import parse_body
from astraml_ray.api.errors import MalformedBodyError, ParameterError
from astraml_ray.api.parameters import JOB_ID
from astraml_ray.api.problems import did_you_mean
from astraml_ray.api.services import Services, authorize_project
from astraml_ray.errors import JobNotFoundError, Problem, ScheduleNotFoundError, SpecError
from astraml_ray.spec.migration import CURRENT_VERSION, KNOWN_VERSIONS
from astraml_ray.store.jobs import JobRecord, get_job
from astraml_ray.store.schedules import ScheduleRecord, find_schedule

__all__ = [
    "Body",
    "RawBody",
    "changes_of",
    "document_of",
    "is_head",
    "known_job",
    "known_schedule",
    "refuse_secrets",
    "slot_of",
    "spec_of",
]


@dataclass(frozen=True)
class RawBody:
    """A body as it came; it is parsed in the route's own thread."""

    content: bytes
    content_type: str | None
    content_encoding: str | None

    def parsed(self) -> Any:
        """Plain data; see `parse_body`."""
        if not self.content.strip():
            raise MalformedBodyError("the body is empty")
        return parse_body(self.content, self.content_type, self.content_encoding)

    def fields(self, known: Sequence[str]) -> dict[str, Any]:
        """The members of an object that is no spec; empty for an empty body.

        Raises:
            ParameterError: It is no object, or has unknown members.
        """
        data = self.parsed() if self.content.strip() else {}
        if not isinstance(data, dict):
            raise ParameterError("the body must be an object", param="", hint="send {}, or nothing")
        unknown = [name for name in data if name not in known]
        if unknown:
            hint = None if known else "this route takes no fields"
            raise ParameterError.of(
                Problem(f"/{name[:200]}", "unknown field", hint or did_you_mean(name, known)) for name in unknown
            )
        return data


async def _raw_body(request: Request) -> RawBody:
    headers = request.headers
    return RawBody(await request.body(), headers.get("content-type"), headers.get("content-encoding"))


Body = Annotated[RawBody, Depends(_raw_body)]
"""A route's parameter: its body."""


def document_of(body: RawBody, *, within: str | None = None) -> dict[str, Any]:
    """The spec in a body as plain data, not checked yet but for secrets, which nothing may repeat.

    Args:
        body: The body.
        within: It may also be the only member of an object, under this name.

    Raises:
        InlineSecretError: There are secrets in it.
    """
    data = body.parsed()
    if within is not None and isinstance(data, dict) and set(data) == {within}:
        data = data[within]
    if not isinstance(data, dict):
        raise ParameterError("a spec is an object of fields", param="", hint="GET /v2.1/schema")
    refuse_secrets(data)
    return data


def spec_of(body: RawBody, *, within: str | None = None) -> dict[str, Any]:
    """As `document_of`, of the current version.

    Raises:
        InlineSecretError: There are secrets in it.
        SpecError: It says that it is of another version.
    """
    document = document_of(body, within=within)
    version = document.get("api_version", CURRENT_VERSION)
    if version != CURRENT_VERSION:
        message = f"this route takes {CURRENT_VERSION}, not {str(version)[:40]!r}; known: {', '.join(KNOWN_VERSIONS)}"
        hint = "`astraml migrate` writes a spec of v1.x as v2.1, and POST /v1/jobs takes it as it is"
        raise SpecError([Problem("/api_version", message, hint)])
    return document


def refuse_secrets(data: dict[str, Any]) -> None:
    """Does nothing for what holds no secrets.

    Raises:
        InlineSecretError: With all places, and none of the values.
    """
    problems = find_inline_secrets(data)
    if problems:
        raise InlineSecretError(problems)


def changes_of(body: RawBody) -> dict[str, Any]:
    """The changes of a spec that a body asks for under `set`, by dotted path.

    Raises:
        ParameterError: It has other members, or what is no path.
    """
    changes = body.fields(["set"]).get("set", {})
    if not isinstance(changes, dict):
        raise ParameterError("set is an object of dotted paths and values", param="/set")
    for path in changes:
        if not path or len(path) > 256 or not all(path.split(".")):
            raise ParameterError(f"{path[:80]!r} is no dotted path", param="/set", hint="such as hyperparams.lr")
    return changes


def known_job(request: Request, services: Services, job_id: str) -> JobRecord:
    """The job of a path, if the caller may use the route on it.

    Raises:
        JobNotFoundError: There is none, or it is of a project that the caller is no member of: nothing tells which.
        PermissionDeniedError: The caller's role in its project lacks the route's permission.
    """
    missing = JobNotFoundError(f"there is no job {job_id[:80]!r}", param="job_id")
    if not JOB_ID.fullmatch(job_id):
        raise missing
    try:
        with services.store.read() as conn:
            job = get_job(conn, job_id)
        authorize_project(request, job.project_id)
    except (JobNotFoundError, ProjectNotFoundError):
        raise missing from None
    return job


def known_schedule(request: Request, services: Services, schedule_id: str) -> ScheduleRecord:
    """The schedule that a request names, if the caller may use the route on it.

    Raises:
        ScheduleNotFoundError: There is none, or it is of a project that the caller is no member of.
        PermissionDeniedError: The caller's role in its project lacks the route's permission.
    """
    missing = ScheduleNotFoundError(f"there is no schedule {schedule_id[:80]!r}", param="schedule_id")
    if not JOB_ID.fullmatch(schedule_id):
        raise missing
    with services.store.read() as conn:
        schedule = find_schedule(conn, schedule_id)
    if schedule is None:
        raise missing
    try:
        authorize_project(request, schedule.project_id)
    except ProjectNotFoundError:
        raise missing from None
    return schedule


def is_head(request: Request) -> bool:
    """Whether only the headers are wanted."""
    return bool(request.scope["state"]["is_head"])


def slot_of(request: Request) -> Slot:
    """The request's place in this process."""
    slot: Slot = request.scope["state"]["slot"]
    return slot
