"""Routes of the service itself: probes, metrics, the cluster, the spec's schema, the catalogue of errors."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends
from starlette.responses import Response

from astraml_ray import __version__
from astraml_ray.access.permissions import Permission
from astraml_ray.api.answers import JsonAnswer, iso_time
from astraml_ray.api.catalogue import CATALOGUE
from astraml_ray.api.errors import ErrorCodeNotFoundError, NotReadyError
from astraml_ray.api.openapi import STORE_CODES, problems
from astraml_ray.api.problems import did_you_mean
from astraml_ray.api.prometheus import CONTENT_TYPE, exposition
from astraml_ray.api.queries import strict_query
from astraml_ray.api.schemas_records import Cluster, ErrorCode, ErrorCodeList, Health, Readiness
from astraml_ray.api.services import ApiServices, Requires, Services
from astraml_ray.api.views import catalogue_view
from astraml_ray.errors import StoreError
from astraml_ray.spec import JobSpec
from astraml_ray.store.jobs import count_by_status
from astraml_ray.store.leases import LeaseRecord, find_lease

__all__ = ["router"]

router = APIRouter(tags=["service"])

_LEASE = "controller"


@router.get(
    "/healthz",
    summary="Whether the process lives",
    dependencies=[Depends(strict_query)],
    responses={**problems(), 200: {"model": Health}},
)
async def healthz() -> JsonAnswer:
    """Answers whatever the state of everything else is."""
    return JsonAnswer({"status": "ok", "version": __version__})


@router.get(
    "/readyz",
    summary="Whether the service can do its work",
    dependencies=[Depends(strict_query)],
    responses={**problems("not_ready"), 200: {"model": Readiness}},
)
def readyz(services: ApiServices) -> JsonAnswer:
    """The database answers, and a controller is in charge."""
    failures = _failures(services)
    if failures:
        members = {"problems": [{"param": name, "message": text, "hint": None} for name, text in failures.items()]}
        detail = "; ".join(f"{name}: {text}" for name, text in failures.items())
        raise NotReadyError(detail, members=members)
    return JsonAnswer({"status": "ready", "checks": {"store": "ok", "controller": "ok"}})


@router.get(
    "/metrics",
    summary="Metrics of the service for Prometheus",
    dependencies=[Depends(Requires(Permission.CLUSTER_READ, organisation=True))],
    response_class=Response,
    responses={**problems(*STORE_CODES), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def prometheus(services: ApiServices) -> Response:
    """Jobs by status, the controller's lease, and what this process is doing."""
    with services.store.read() as conn:
        counts, lease = count_by_status(conn), find_lease(conn, _LEASE)
    text = exposition(counts, lease, services.admission, now=services.clock())
    return Response(text, headers={"Content-Type": CONTENT_TYPE})


@router.get(
    "/v2.1/cluster",
    summary="What the service stands on",
    dependencies=[Depends(Requires(Permission.CLUSTER_READ, organisation=True))],
    responses={**problems(*STORE_CODES), 200: {"model": Cluster}},
)
def show_cluster(services: ApiServices) -> JsonAnswer:
    """The controller in charge, the jobs by status, and the cluster as the controller sees it."""
    with services.store.read() as conn:
        counts, lease = count_by_status(conn), find_lease(conn, _LEASE)
    cluster = services.cluster() if services.cluster else None
    jobs = {status.value: count for status, count in counts.items()}
    return JsonAnswer({"controller": _controller(lease, services.clock()), "jobs": jobs, "cluster": cluster})


@router.get(
    "/v2.1/schema",
    summary="JSON Schema of a job spec",
    dependencies=[Depends(Requires(None))],
    responses={**problems(), 200: {"content": {"application/json": {"schema": {"type": "object"}}}}},
)
def show_schema() -> JsonAnswer:
    """For editors, and for programs that build specs."""
    schema: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return JsonAnswer({**schema, **JobSpec.model_json_schema()})


@router.get(
    "/v2.1/errors",
    summary="All error codes",
    dependencies=[Depends(Requires(None))],
    responses={**problems(), 200: {"model": ErrorCodeList}},
)
def list_errors() -> JsonAnswer:
    """Every code that a request or a job can fail with, and what to do."""
    return JsonAnswer({"data": [catalogue_view(entry) for entry in CATALOGUE.values()]})


@router.get(
    "/v2.1/errors/{code}",
    summary="One error code",
    dependencies=[Depends(Requires(None))],
    responses={**problems("error_code_not_found"), 200: {"model": ErrorCode}},
)
def show_error(code: str) -> JsonAnswer:
    """What a code means, and what to do."""
    if code not in CATALOGUE:
        hint = did_you_mean(code, list(CATALOGUE))
        raise ErrorCodeNotFoundError(f"there is no error code {code[:80]!r}", param="code", hint=hint)
    return JsonAnswer(catalogue_view(CATALOGUE[code]))


def _failures(services: Services) -> dict[str, str]:
    try:
        with services.store.read() as conn:
            lease = find_lease(conn, _LEASE)
    except StoreError as error:
        return {"store": error.message}
    if lease is None:
        return {"controller": "no controller is in charge"}
    overdue = services.clock() - lease.expires_at
    return {"controller": f"its lease ran out {overdue:.0f} s ago"} if overdue >= 0 else {}


def _controller(lease: LeaseRecord | None, now: float) -> dict[str, Any] | None:
    if lease is None:
        return None
    return {
        "holder": lease.holder,
        "token": lease.token,
        "expires_at": iso_time(lease.expires_at),
        "alive": lease.expires_at > now,
    }
