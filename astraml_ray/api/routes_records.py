"""Routes of what a job leaves behind while it runs: events, log lines, metrics."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.responses import Response

from astraml_ray.access.permissions import Permission
from astraml_ray.api.answers import JsonAnswer
from astraml_ray.api.errors import ParameterError
from astraml_ray.api.feeds import EventFeed, LineFilter, LogFeed
from astraml_ray.api.openapi import JOB_CODES, event_stream, problems
from astraml_ray.api.parameters import parse_time
from astraml_ray.api.requests import is_head, known_job, slot_of
from astraml_ray.api.schemas_records import EventPage, LogPage, Metrics
from astraml_ray.api.services import ApiServices, Requires, Services
from astraml_ray.api.streams import Look, SseAnswer
from astraml_ray.api.views import RESOLUTION_NAMES, event_view, line_view, series_view
from astraml_ray.errors import RequestError
from astraml_ray.store.events import list_events
from astraml_ray.store.logs import read_lines
from astraml_ray.store.metrics import Series, list_names, query_windows

__all__ = ["router"]

router = APIRouter(prefix="/v2.1", tags=["records"])

_MAX = 2**63 - 1
_MAX_WINDOWS = 1_000
_MAX_ANSWER = 50_000  # windows of all series of one answer
_RESOLUTIONS = {name: seconds for seconds, name in RESOLUTION_NAMES.items()}

After = Annotated[int, Query(ge=0, le=_MAX, description="Only what has a greater number")]
Follow = Annotated[bool, Query(description="Stream server-sent events until the job has ended")]
LastEventId = Annotated[
    str | None,
    Header(description="Number of the last event of a cut stream; stronger than `after`", pattern="^[0-9]{0,18}$"),
]
Small = Annotated[int | None, Query(ge=0, le=2**31 - 1)]
Step = Annotated[int | None, Query(ge=0, le=_MAX)]
MetricName = Annotated[str, Query(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f]+$")]
Moment = {"format": "date-time"}


@router.get(
    "/jobs/{job_id}/events",
    summary="Read or follow a job's events",
    dependencies=[Depends(Requires(Permission.JOB_READ))],
    responses={**problems(*JOB_CODES), 200: {"model": EventPage, "content": event_stream("Event")}},
)
def show_events(
    request: Request,
    services: ApiServices,
    job_id: str,
    after: After = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    follow: Follow = False,
    last_event_id: LastEventId = None,
) -> Response:
    """What happened to the job, numbered without gaps."""
    job = known_job(request, services, job_id)
    after = int(last_event_id) if last_event_id else after
    if follow:
        return _stream(request, services, EventFeed(services.store, job_id).look, after)
    with services.store.read() as conn:
        events = list_events(conn, job_id, after=after, limit=limit)
    last = events[-1].seq if events else after
    views = [event_view(event) for event in events]
    return JsonAnswer({"data": views, "next_after": last, "has_more": last < job.event_seq})


@router.get(
    "/jobs/{job_id}/logs",
    summary="Read or follow a job's log",
    dependencies=[Depends(Requires(Permission.JOB_READ))],
    responses={**problems(*JOB_CODES), 200: {"model": LogPage, "content": event_stream("LogLineObject")}},
)
def show_logs(
    request: Request,
    services: ApiServices,
    job_id: str,
    after: After = 0,
    limit: Annotated[int, Query(ge=1, le=5000)] = 1000,
    rank: Annotated[Small, Query(description="Only of this worker")] = None,
    attempt: Annotated[Small, Query(description="Only of this attempt")] = None,
    level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"] | None, Query(description="This or above")
    ] = None,
    tail: Annotated[int | None, Query(ge=1, le=5000, description="Only the last so many")] = None,
    follow: Follow = False,
    last_event_id: LastEventId = None,
) -> Response:
    """Lines of all workers in the order in which they arrived. A page may be short before the log's end.

    Followed, each line is an event whose id is the line's; `gap` tells how many lines are missing, and `end` that
    the job has ended and everything is delivered.
    """
    known_job(request, services, job_id)
    if last_event_id:
        after, tail = int(last_event_id), None
    lines = LineFilter(rank=rank, attempt=attempt, level=level)
    if follow:
        return _stream(request, services, LogFeed(services.store, job_id, lines, tail=tail).look, after)
    with services.store.read() as conn:
        found, last = read_lines(
            conn, job_id, after=after, limit=limit, rank=rank, attempt=attempt, level=level, tail=tail
        )
        newest = LogFeed.newest(conn, job_id)
    return JsonAnswer({"data": [line_view(line) for line in found], "next_after": last, "has_more": last < newest})


@router.get(
    "/jobs/{job_id}/metrics",
    summary="Query a job's metrics",
    dependencies=[Depends(Requires(Permission.JOB_READ))],
    responses={**problems(*JOB_CODES), 200: {"model": Metrics}},
)
def show_metrics(
    request: Request,
    services: ApiServices,
    job_id: str,
    name: Annotated[list[MetricName] | None, Query(description="All by default", max_length=100)] = None,
    resolution: Annotated[Literal["auto", "30s", "5m", "1h"], Query()] = "auto",
    start: Annotated[str | None, Query(alias="from", json_schema_extra=Moment)] = None,
    end: Annotated[str | None, Query(alias="to", json_schema_extra=Moment)] = None,
    from_step: Step = None,
    to_step: Step = None,
) -> JsonAnswer:
    """Windows by time or by step. They keep extremes and NaNs at every resolution.

    `auto` is the finest resolution that still holds the whole range, in 1,000 windows of a metric at most.
    """
    known_job(request, services, job_id)
    bounds = {
        "start": parse_time("from", start),
        "end": parse_time("to", end),
        "step_from": from_step,
        "step_to": to_step,
    }
    _check_order(bounds)
    series = _query(services, job_id, name, _RESOLUTIONS.get(resolution, "auto"), bounds)
    used = series[0].resolution if series else _RESOLUTIONS.get(resolution, 30)
    return JsonAnswer(
        {"job_id": job_id, "resolution": RESOLUTION_NAMES[used], "series": [series_view(one) for one in series]}
    )


def _query(
    services: Services, job_id: str, names: list[str] | None, resolution: Any, bounds: dict[str, Any]
) -> list[Series]:
    with services.store.read() as conn:
        wanted = sorted(set(names)) if names else list_names(conn, job_id)
        most = min(_MAX_WINDOWS, _MAX_ANSWER // max(1, len(wanted)))
        try:
            return query_windows(conn, job_id, names=wanted, resolution=resolution, max_windows=most, **bounds)
        except RequestError as error:
            raise ParameterError(error.message, param=error.param, hint=error.hint) from None


def _check_order(bounds: dict[str, Any]) -> None:
    for low, high, names in (("start", "end", "from and to"), ("step_from", "step_to", "from_step and to_step")):
        if None not in (bounds[low], bounds[high]) and bounds[low] > bounds[high]:
            raise ParameterError(f"{names} are in the wrong order", param=names.split()[0], hint="exchange them")


def _stream(request: Request, services: Services, look: Look, after: int) -> Response:
    if is_head(request):
        return Response(media_type="text/event-stream")
    slot_of(request).become_stream()
    return SseAnswer(services, look, after=after)
