"""Sweeps and their trials: a row each, which is written again as a trial goes on."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from sqlalchemy import Connection, case, func, select, tuple_, update

from astraml_ray.errors import TrialNotFoundError
from astraml_ray.store.plain import plain_data
from astraml_ray.store.statements import upsert
from astraml_ray.store.sweep_tables import sweeps, trials

__all__ = [
    "ENDED",
    "OPEN",
    "TRIAL_STATUSES",
    "Cost",
    "SweepRecord",
    "TrialRecord",
    "TrialSort",
    "best_trial",
    "close_trials",
    "cost_of",
    "count_trials",
    "find_sweep",
    "find_trial",
    "get_trial",
    "list_trials",
    "save_sweep",
    "save_trial",
    "sort_key",
]

TrialSort = Literal["number", "metric"]

TRIAL_STATUSES = ("pending", "running", "succeeded", "stopped", "failed", "cancelled")
OPEN = ("pending", "running")
ENDED = ("succeeded", "stopped", "failed", "cancelled")
_RANKED = ("running", "succeeded", "stopped", "cancelled")
"""What may be the best one: a failed trial's values led to its failure."""
_NO_SCORE = 1.7976931348623157e308
"""Last in every order, on both databases; infinity and null are not."""


@dataclass(frozen=True)
class SweepRecord:
    """What a sweep is after; None is not known yet. `planned` is how many trials it makes in all."""

    job_id: str
    metric: str | None = None
    mode: str | None = None
    planned: int | None = None
    algorithm: str | None = None
    scheduler: str | None = None


@dataclass(frozen=True)
class TrialRecord:
    """A trial's row; the columns are explained in sweep_tables.py. Times are seconds since the epoch."""

    job_id: str
    trial_id: str
    number: int
    status: str
    parameters: dict[str, Any]
    metric: float | None = None
    best_metric: float | None = None
    best_step: int | None = None
    step: int | None = None
    epoch: float | None = None
    rung: int | None = None
    reason: str | None = None
    error: dict[str, Any] | None = None
    run_path: str | None = None
    parent: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    cpu_seconds: float = 0.0
    history: Sequence[Sequence[float]] = ()
    score: float = _NO_SCORE


@dataclass(frozen=True)
class Cost:
    """What the trials of a sweep took together, in seconds of one trial, one GPU, one CPU."""

    seconds: float
    gpu_seconds: float
    cpu_seconds: float


def save_sweep(conn: Connection, record: SweepRecord) -> None:
    """Writes what a sweep is after, and ranks the trials that came before it was known."""
    values = vars(record)
    query = upsert(conn, sweeps).values(values)
    conn.execute(query.on_conflict_do_update(index_elements=["job_id"], set_=values))
    sign = -1.0 if record.mode == "max" else 1.0
    score = case((trials.c.best_metric.is_(None), _NO_SCORE), else_=trials.c.best_metric * sign)
    conn.execute(update(trials).where(trials.c.job_id == record.job_id).values(score=score))


def find_sweep(conn: Connection, job_id: str) -> SweepRecord | None:
    """What a sweep is after; None before it has said so."""
    row = conn.execute(select(sweeps).where(sweeps.c.job_id == job_id)).mappings().one_or_none()
    return SweepRecord(**row) if row else None


def save_trial(conn: Connection, record: TrialRecord, *, mode: str | None) -> None:
    """Writes a trial's row, or writes it again.

    Args:
        conn: A connection that writes.
        record: The trial; its score is found here.
        mode: Of its sweep: whether greater values are better ("max").
    """
    plain = replace(
        record,
        parameters=plain_data(record.parameters),
        error=plain_data(record.error),
        history=plain_data(list(record.history)),
        metric=_finite(record.metric),
        best_metric=_finite(record.best_metric),
        epoch=_finite(record.epoch),
    )
    best = plain.best_metric
    values = {**vars(plain), "score": _NO_SCORE if best is None else -best if mode == "max" else best}
    query = upsert(conn, trials).values(values)
    conn.execute(query.on_conflict_do_update(index_elements=["job_id", "trial_id"], set_=values))


def close_trials(conn: Connection, job_id: str, *, reason: str | None, now: float) -> None:
    """Ends the trials that a job's end has left open."""
    query = update(trials).where(trials.c.job_id == job_id, trials.c.status.in_(OPEN))
    why = func.coalesce(trials.c.reason, reason)
    conn.execute(query.values(status="cancelled", reason=why, ended_at=func.coalesce(trials.c.ended_at, now)))


def find_trial(conn: Connection, job_id: str, trial_id: str) -> TrialRecord | None:
    """A trial, or None."""
    query = select(*_columns()).where(trials.c.job_id == job_id, trials.c.trial_id == trial_id)
    row = conn.execute(query).mappings().one_or_none()
    return TrialRecord(**row) if row else None


def get_trial(conn: Connection, job_id: str, trial_id: str) -> TrialRecord:
    """A trial.

    Raises:
        TrialNotFoundError: There is none.
    """
    found = find_trial(conn, job_id, trial_id)
    if found is None:
        raise TrialNotFoundError(f"job {job_id} has no trial {trial_id[:80]!r}", param="trial_id")
    return found


def best_trial(conn: Connection, job_id: str) -> TrialRecord | None:
    """The trial with the best value so far; None before there is a value. The earlier one of two alike."""
    found = list_trials(conn, job_id, sort="metric", status=_RANKED, limit=1)
    return found[0] if found and found[0].best_metric is not None else None


def sort_key(record: TrialRecord, sort: TrialSort) -> tuple[Any, ...]:
    """Where a trial is in an order: what the next page begins after."""
    key = (record.number, record.trial_id)
    return (record.score, *key) if sort == "metric" else key


def list_trials(
    conn: Connection,
    job_id: str,
    *,
    sort: TrialSort = "number",
    status: Collection[str] | None = None,
    after: tuple[Any, ...] | None = None,
    limit: int,
    with_history: bool = True,
) -> list[TrialRecord]:
    """A page of a job's trials.

    Args:
        conn: A connection.
        job_id: The job.
        sort: As they were made, or the best one first; those without a value are last.
        status: Only in these states.
        after: The `sort_key` of the last one of the page before.
        limit: How many at most.
        with_history: Whether the curves are wanted too.
    """
    names = ["score", "number", "trial_id"] if sort == "metric" else ["number", "trial_id"]
    order = [trials.c[name] for name in names]
    query = select(*_columns(with_history=with_history)).where(trials.c.job_id == job_id)
    if status is not None:
        query = query.where(trials.c.status.in_(list(status)))
    if after is not None:
        query = query.where(tuple_(*order) > after)
    rows = conn.execute(query.order_by(*order).limit(limit)).mappings()
    return [TrialRecord(**row) for row in rows]


def count_trials(conn: Connection, job_id: str) -> dict[str, int]:
    """How many trials a job has in each state; every state is in it."""
    query = select(trials.c.status, func.count()).where(trials.c.job_id == job_id).group_by(trials.c.status)
    return dict.fromkeys(TRIAL_STATUSES, 0) | dict(conn.execute(query).tuples().all())


def cost_of(conn: Connection, job_id: str) -> Cost:
    """What all trials of a job took together."""
    sums = [func.coalesce(func.sum(trials.c[field.name]), 0.0) for field in fields(Cost)]
    return Cost(*map(float, conn.execute(select(*sums).where(trials.c.job_id == job_id)).one()))


def _columns(*, with_history: bool = True) -> list[Any]:
    return [column for column in trials.columns if with_history or column.name != "history"]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
