"""The routes that look at a dataset before anything is trained."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool

from astraml_ray.access.permissions import Permission
from astraml_ray.api.answers import JsonAnswer
from astraml_ray.api.dry_runs import DRY_RUN_CODES, dry_run
from astraml_ray.api.openapi import STORE_CODES, problems
from astraml_ray.api.parameters import PROJECT_PATTERN, parse_project
from astraml_ray.api.routes_jobs import RULE_CODES
from astraml_ray.api.rules import authorize_submission, resolve
from astraml_ray.api.schemas_datasets import Inspection, Preview
from astraml_ray.api.services import ApiServices, Requires, Services, caller_of
from astraml_ray.control.secrets import grant_to_dry_run

__all__ = ["router"]

router = APIRouter(prefix="/v2.1", tags=["datasets"])

_NO_MODEL = "none"  # a spec names one; here it is not asked for


@router.get(
    "/datasets:inspect",
    summary="See what a dataset holds",
    dependencies=[Depends(Requires(Permission.JOB_SUBMIT))],
    responses={**problems(*STORE_CODES, *RULE_CODES, *DRY_RUN_CODES), 200: {"model": Inspection}},
)
async def inspect(
    request: Request,
    services: ApiServices,
    path: Annotated[str, Query(description="Prefix or object: s3://bucket/key", min_length=1, max_length=2048)],
    project_id: Annotated[str, Query(description="Whose rules hold", json_schema_extra={"pattern": PROJECT_PATTERN})],
    limit: Annotated[int, Query(description="Rows of each split", ge=1, le=1_000_000)] = 100_000,
) -> JsonAnswer:
    """Rows, classes, lengths, duplicates, and what of train is in validation or test too. Stores nothing.

    The dataset is read as a job of the project would read it: where policies set its endpoint or its credentials, with
    these.
    """
    document, grant = await run_in_threadpool(_resolved, request, services, path, project_id)
    return JsonAnswer(await dry_run(services, lambda: services.validator.inspect(document, limit=limit, grant=grant)))


@router.get(
    "/datasets:preview",
    summary="See what augmentation makes of a dataset",
    dependencies=[Depends(Requires(Permission.JOB_SUBMIT))],
    responses={**problems(*STORE_CODES, *RULE_CODES, *DRY_RUN_CODES), 200: {"model": Preview}},
)
async def preview(
    request: Request,
    services: ApiServices,
    path: Annotated[str, Query(description="Prefix or object: s3://bucket/key", min_length=1, max_length=2048)],
    project_id: Annotated[str, Query(description="Whose rules hold", json_schema_extra={"pattern": PROJECT_PATTERN})],
    augmentation: Annotated[Literal["light", "medium", "strong"], Query(description="By its name")] = "light",
    rows: Annotated[int, Query(description="Rows at most", ge=1, le=64)] = 16,
    draws: Annotated[int, Query(description="Of images: epochs in which each is shown", ge=1, le=8)] = 1,
    seed: Annotated[int, Query(description="Of the run", ge=0, le=2**32 - 1)] = 0,
    image_size: Annotated[int, Query(description="Pixels of a side of the images", ge=8, le=512)] = 224,
) -> JsonAnswer:
    """The first training rows of epoch 0, before and after, as a run with that seed trains on them. Stores nothing.

    Of texts both are texts, of images files in base64. The dataset is read as a job of the project would read it.
    """
    asked = {"augmentation": augmentation, "seed": seed, "hyperparams": {"image_size": image_size}}
    document, grant = await run_in_threadpool(_resolved, request, services, path, project_id, asked)
    work = partial(services.validator.preview, document, rows=rows, draws=draws, grant=grant)
    return JsonAnswer(await dry_run(services, work))


def _resolved(
    request: Request, services: Services, path: str, project_id: str, more: dict[str, Any] | None = None
) -> tuple[dict[str, Any], str | None]:
    """A job of the dataset as the project's rules have it, and a grant for the credentials that it is read with."""
    authorize_submission(request, parse_project(project_id))
    caller = caller_of(request)
    asked = {"project_id": project_id, "dataset": {"path": path}, "model": _NO_MODEL, **(more or {})}
    outcome = resolve(services, caller, project_id, asked, within="/dataset")
    now = services.clock()
    return outcome.document, grant_to_dry_run(services.store, services.keys, outcome.spec, caller.subject, now=now)
