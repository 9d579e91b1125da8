"""Routes of the files that a run has written: its model, checkpoints, records."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response, StreamingResponse

from astraml_ray.access.permissions import Permission
from astraml_ray.api.answers import JsonAnswer
from astraml_ray.api.artifacts import byte_range, disposition, find_artifact, list_artifacts, read_part
from astraml_ray.api.openapi import JOB_CODES, problems
from astraml_ray.api.requests import is_head, known_job, slot_of
from astraml_ray.api.schemas_records import ArtifactList
from astraml_ray.api.services import ApiServices, Requires

__all__ = ["router"]

router = APIRouter(prefix="/v2.1", tags=["artifacts"])

_STORAGE_CODES = ("data", "infrastructure", "storage")
_BYTES: dict[str, Any] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


@router.get(
    "/jobs/{job_id}/artifacts",
    summary="List the files of a job's run",
    dependencies=[Depends(Requires(Permission.ARTIFACT_READ))],
    responses={**problems(*JOB_CODES, *_STORAGE_CODES), 200: {"model": ArtifactList}},
)
def show_artifacts(request: Request, services: ApiServices, job_id: str) -> JsonAnswer:
    """The model, the checkpoints and the records, as far as they are written."""
    job = known_job(request, services, job_id)
    listed, truncated = list_artifacts(job.run_path)
    return JsonAnswer({"data": listed, "truncated": truncated})


@router.get(
    "/jobs/{job_id}/artifacts/{path:path}",
    summary="Download a file of a job's run",
    dependencies=[Depends(Requires(Permission.ARTIFACT_READ))],
    responses={
        **problems(*JOB_CODES, *_STORAGE_CODES, "artifact_not_found", "range_not_satisfiable"),
        200: {"description": "The file", "content": _BYTES},
        206: {"description": "The part that the header Range asked for", "content": _BYTES},
    },
    response_class=Response,
)
def download_artifact(request: Request, services: ApiServices, job_id: str, path: str) -> Response:
    """One file, or with the header `Range` a part of it, so that a download that was cut can go on."""
    job = known_job(request, services, job_id)
    file = find_artifact(job.run_path, path)
    etag = f'"{file.etag}"'
    current = request.headers.get("if-range", etag) == etag
    part = byte_range(request.headers.get("range"), file.size) if current else None
    begin, end = part or (0, file.size)
    headers = {
        "Content-Length": str(end - begin),
        "Content-Disposition": disposition(file.name),
        "Accept-Ranges": "bytes",
        "ETag": etag,
    }
    if part:
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{file.size}"
    status = 206 if part else 200
    if is_head(request):
        return Response(status_code=status, headers=headers, media_type="application/octet-stream")
    slot_of(request).become_stream()
    content = read_part(file, begin, end, services.download_threads)
    return StreamingResponse(content, status, headers, media_type="application/octet-stream")
