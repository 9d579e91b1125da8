"""Routes of the audit trail: who changed what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import anyio
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response, StreamingResponse

from astraml_ray.access.permissions import Permission
from astraml_ray.api.answers import JsonAnswer, json_bytes
from astraml_ray.api.openapi import STORE_CODES, problems
from astraml_ray.api.parameters import decode_cursor
from astraml_ray.api.requests import is_head, slot_of
from astraml_ray.api.routes_projects import Cursor
from astraml_ray.api.schemas_access import AuditCheck, AuditPage
from astraml_ray.api.services import ApiServices, Requires, Services, authorize_project, caller_of
from astraml_ray.api.views_access import NUMBER, audit_view, page_view
from astraml_ray.store.audit import AuditRecord, broken_audit, list_audit

__all__ = ["router"]

router = APIRouter(prefix="/v2.1", tags=["audit"])

_MAX = 2**63 - 1
_BATCH = 500
_NDJSON = "application/x-ndjson"
_LINES: dict[str, Any] = {_NDJSON: {"schema": {"type": "string"}}}
_Name = Annotated[str | None, Query(max_length=300)]


@dataclass(frozen=True)
class _Filter:
    """Which changes are wanted; None is all."""

    project_id: str | None
    actor: str | None
    action: str | None
    target: str | None

    def find(
        self, services: Services, *, limit: int, before: int | None = None, after: int | None = None
    ) -> list[AuditRecord]:
        scopes = None if self.project_id is None else [self.project_id]
        with services.store.read() as conn:
            return list_audit(
                conn,
                scopes=scopes,
                actor=self.actor,
                action=self.action,
                target=self.target,
                before=before,
                after=after,
                limit=limit,
            )


@router.get(
    "/audit",
    summary="Read who changed what",
    dependencies=[Depends(Requires(Permission.AUDIT_READ))],
    responses={**problems(*STORE_CODES, "project_not_found"), 200: {"model": AuditPage, "content": _LINES}},
)
def list_changes(
    request: Request,
    services: ApiServices,
    project_id: Annotated[str | None, Query(description="Of this project; left out, of the whole installation")] = None,
    actor: Annotated[_Name, Query(description="Whose changes")] = None,
    action: Annotated[_Name, Query(description="Such as policy.changed, or policy for all about policies")] = None,
    target: Annotated[_Name, Query(description="What was changed: a subject, a token's id ...")] = None,
    after: Annotated[int | None, Query(ge=0, le=_MAX, description="Only greater numbers, the oldest first")] = None,
    cursor: Cursor = None,
    limit: Annotated[int | None, Query(ge=1, le=1000, description="50 by default; an export has all")] = None,
    format: Annotated[Literal["json", "jsonl"], Query(description="jsonl: a line each, the oldest first")] = "json",  # noqa: A002
) -> Response:
    """A page of changes: the newest first, or the oldest first with `after`. As `jsonl`, all of them as a stream."""
    if project_id is None:
        caller_of(request).require(Permission.AUDIT_READ, None)
    else:
        authorize_project(request, project_id)
    wanted = _Filter(project_id, actor, action, target)
    last = decode_cursor(cursor, NUMBER)
    reached = None if last is None else int(last)
    if format == "jsonl":
        return _export(request, services, wanted, reached or after or 0, limit)
    size = limit or 50
    if after is not None:
        found = wanted.find(services, after=after if reached is None else reached, limit=size + 1)
    else:
        found = wanted.find(services, before=reached, limit=size + 1)
    return JsonAnswer(page_view(found, size, lambda change: str(change.seq), audit_view))


@router.get(
    "/audit/verify",
    summary="Check that nobody altered the audit trail",
    dependencies=[Depends(Requires(Permission.AUDIT_READ, organisation=True))],
    responses={**problems(*STORE_CODES), 200: {"model": AuditCheck}},
)
def verify_trail(services: ApiServices) -> JsonAnswer:
    """Reads all of it: each change is sealed by the one before it, so that none can be altered or removed unnoticed."""
    with services.store.read() as conn:
        broken = broken_audit(conn)
        newest = next(iter(list_audit(conn, limit=1)), None)
    return JsonAnswer(
        {
            "whole": broken is None,
            "first_broken": broken,
            "entries": newest.seq if newest else 0,
            "seal": newest.digest if newest else None,
        }
    )


def _export(request: Request, services: Services, wanted: _Filter, after: int, limit: int | None) -> Response:
    if is_head(request):
        return Response(media_type=_NDJSON)
    slot_of(request).become_stream()
    return StreamingResponse(_lines(services, wanted, after, limit), media_type=_NDJSON)


async def _lines(services: Services, wanted: _Filter, after: int, limit: int | None) -> AsyncIterator[bytes]:
    """Page by page, each read when the one before it has been sent; no connection to the database is held between."""

    def read(size: int) -> list[AuditRecord]:
        return wanted.find(services, after=after, limit=size)

    left = limit
    while left is None or left > 0:
        size = _BATCH if left is None else min(left, _BATCH)
        found = await anyio.to_thread.run_sync(read, size, limiter=services.download_threads)
        if found:
            after = found[-1].seq
            yield b"".join(json_bytes(audit_view(change)) + b"\n" for change in found)
        if len(found) < size:
            return
        left = None if left is None else left - len(found)
