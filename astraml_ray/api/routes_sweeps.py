"""Routes of sweeps: how one goes, its trials, and a job of a trial's parameters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field

from astraml_ray.access.effective import request_of
from astraml_ray.access.permissions import Permission
from astraml_ray.api.answers import JsonAnswer
from astraml_ray.api.errors import NotASweepError, ParameterError
from astraml_ray.api.importance import Importance, importance_of, parameter_paths
from astraml_ray.api.openapi import BODY_CODES, JOB_CODES, KEY_HEADER, body_of, problems
from astraml_ray.api.parameters import decode_cursor, encode_cursor
from astraml_ray.api.problems import did_you_mean
from astraml_ray.api.requests import Body, changes_of, known_job, refuse_secrets
from astraml_ray.api.routes_jobs import CREATED, KEY_CODES, RULE_CODES, key_of, make
from astraml_ray.api.schemas_sweeps import Sweep, Trial, TrialPage
from astraml_ray.api.services import ApiServices, Requires, Services, caller_of
from astraml_ray.api.submission import Creation
from astraml_ray.api.views_sweeps import cost_view, scales_of, sweep_view, trial_view
from astraml_ray.errors import TrialNotFoundError
from astraml_ray.spec.documents import changed
from astraml_ray.store.access import find_origin
from astraml_ray.store.jobs import JobRecord
from astraml_ray.store.trials import (
    TRIAL_STATUSES,
    TrialRecord,
    TrialSort,
    best_trial,
    cost_of,
    count_trials,
    find_sweep,
    get_trial,
    list_trials,
    sort_key,
)

__all__ = ["router"]

router = APIRouter(prefix="/v2.1", tags=["sweeps"])

BEST = "best"
_CODES = ("not_a_sweep", *JOB_CODES)
_STATES = "|".join(TRIAL_STATUSES)
_STATUS = {"pattern": f"^({_STATES})(,({_STATES}))*$"}
_TRIAL_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_FLOAT = r"-?\d{1,17}(?:\.\d{1,20})?(?:e[+-]?\d{1,3})?"
"""As `repr` writes a finite number: at most 17 digits, after up to 3 zeros; from 1e16 and below 1e-4, an exponent."""
_CURSORS: dict[TrialSort, re.Pattern[str]] = {
    "number": re.compile(rf"number:(\d{{1,9}}):({_TRIAL_ID})"),
    "metric": re.compile(rf"metric:({_FLOAT}):(\d{{1,9}}):({_TRIAL_ID})"),
}
_MOST = 10_000
"""Trials that an estimate of importance looks at: the best ones."""

StatusFilter = Annotated[str, Field(json_schema_extra=_STATUS)]


@router.get(
    "/jobs/{job_id}/sweep",
    summary="Look at a sweep",
    dependencies=[Depends(Requires(Permission.JOB_READ))],
    responses={**problems(*_CODES), 200: {"model": Sweep}},
)
def show_sweep(
    request: Request,
    services: ApiServices,
    job_id: str,
    importance: Annotated[bool, Query(description="Estimate it: the first estimate of a process takes seconds")] = True,
) -> JsonAnswer:
    """What it is after, how many trials are where, the best one so far, what it has taken, and what matters."""
    job = _known_sweep(request, services, job_id)
    with services.store.read() as conn:
        sweep, counts, best = find_sweep(conn, job_id), count_trials(conn, job_id), best_trial(conn, job_id)
        cost = cost_view(job, cost_of(conn, job_id), now=services.clock())
        trials = list_trials(conn, job_id, sort="metric", limit=_MOST, with_history=False)
    scales = scales_of(job.spec, trials, parameter_paths(trials))
    shares = importance_of(trials, scales) if importance else Importance(None, 0, "it was not asked for")
    return JsonAnswer(sweep_view(job, sweep, counts=counts, best=best, cost=cost, scales=scales, importance=shares))


@router.get(
    "/jobs/{job_id}/trials",
    summary="List a sweep's trials",
    dependencies=[Depends(Requires(Permission.JOB_READ))],
    responses={**problems(*_CODES), 200: {"model": TrialPage}},
)
def show_trials(
    request: Request,
    services: ApiServices,
    job_id: str,
    status: Annotated[list[StatusFilter] | None, Query(description="States; repeated, or with commas")] = None,
    sort: Annotated[Literal["number", "metric"], Query(description="`metric`: the best one first")] = "number",
    history: Annotated[bool, Query(description="With the values of all evaluations")] = False,
    cursor: Annotated[str | None, Query(description="next_cursor of the page before, of the same order")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> JsonAnswer:
    """A page of trials. While they run, a trial may change its place in the order of the metric."""
    _known_sweep(request, services, job_id)
    states, after = _states(status) if status else None, _after(cursor, sort)
    with services.store.read() as conn:
        found = list_trials(conn, job_id, sort=sort, status=states, after=after, limit=limit + 1, with_history=history)
    page = found[:limit]
    more = encode_cursor(_cursor(page[-1], sort)) if len(found) > limit else None
    return JsonAnswer({"data": [trial_view(one, with_history=history) for one in page], "next_cursor": more})


@router.get(
    "/jobs/{job_id}/trials/{trial_id}",
    summary="Look at a trial",
    dependencies=[Depends(Requires(Permission.JOB_READ))],
    responses={**problems(*_CODES, "trial_not_found"), 200: {"model": Trial}},
)
def show_trial(request: Request, services: ApiServices, job_id: str, trial_id: str) -> JsonAnswer:
    """One trial, with its history; `best` is the best one so far."""
    _known_sweep(request, services, job_id)
    return JsonAnswer(trial_view(_trial(services, job_id, trial_id)))


@router.post(
    "/jobs/{job_id}/trials/{trial_id}:retrain",
    status_code=201,
    summary="Train with a trial's parameters",
    dependencies=[Depends(Requires(Permission.JOB_SUBMIT))],
    responses={
        **problems(*_CODES, *BODY_CODES, *KEY_CODES, *RULE_CODES, "trial_not_found"),
        201: CREATED,
    },
    openapi_extra={"requestBody": body_of("RetrainRequest", required=False), "parameters": [KEY_HEADER]},
)
def retrain_trial(request: Request, services: ApiServices, job_id: str, trial_id: str, body: Body) -> JsonAnswer:
    """A new job, no sweep: its spec with the parameters of a trial, at full length; `best` is the best one so far."""
    parent = _known_sweep(request, services, job_id)
    changes = changes_of(body)
    refuse_secrets({**changes, "project_id": parent.project_id})
    trial = _trial(services, job_id, trial_id)
    with services.store.read() as conn:
        origin = find_origin(conn, job_id)
    # What was asked for then: policies lay what they say now on top.
    asked = request_of(origin.provenance) if origin else dict(parent.spec)
    asked = {name: value for name, value in asked.items() if name not in ("sweep", "schedule")}
    document = changed(asked, {**trial.parameters, **changes})
    # A repeated request is the same one, even if another trial is the best one by now.
    asks = {"parent_id": parent.id, "trial_id": trial_id, "set": changes}
    creation = Creation(
        "POST /v2.1/jobs/{id}/trials/{id}:retrain",
        caller_of(request),
        document,
        key_of(request),
        parent.id,
        "retrain",
        asks=asks,
    )
    return make(request, services, creation)


def _known_sweep(request: Request, services: Services, job_id: str) -> JobRecord:
    job = known_job(request, services, job_id)
    if not job.spec.get("sweep"):
        raise NotASweepError(f"job {job.id} has no sweep in its spec", param="job_id")
    return job


def _trial(services: Services, job_id: str, trial_id: str) -> TrialRecord:
    with services.store.read() as conn:
        if trial_id == BEST:
            best = best_trial(conn, job_id)
            if best is None:
                raise TrialNotFoundError(f"no trial of job {job_id} has a value yet", param="trial_id", hint="wait")
            return best
        if not re.fullmatch(_TRIAL_ID, trial_id):
            raise TrialNotFoundError(f"there is no trial {trial_id[:80]!r}", param="trial_id")
        return get_trial(conn, job_id, trial_id)


def _states(texts: Sequence[str]) -> list[str]:
    words = [word for text in texts for word in text.split(",")]
    for word in words:
        if word not in TRIAL_STATUSES:
            hint = did_you_mean(word, TRIAL_STATUSES)
            raise ParameterError(f"a trial has no status {word[:80]!r}", param="status", hint=hint)
    return words


def _cursor(trial: TrialRecord, sort: TrialSort) -> str:
    return ":".join([sort, *map(str, sort_key(trial, sort))])


def _after(cursor: str | None, sort: TrialSort) -> tuple[Any, ...] | None:
    """Where the page begins."""
    text = decode_cursor(cursor, _CURSORS[sort])
    if text is None:
        return None
    match = _CURSORS[sort].fullmatch(text)
    assert match is not None
    *score, number, trial_id = match.groups()
    return (*map(float, score), int(number), trial_id)
