"""The query of a page of jobs, such that an index gives its rows in order. Pure: builds statements, runs none."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Select, exists, select, union_all

from astraml_ray.spec.states import JobStatus
from astraml_ray.store.records import first_id_of
from astraml_ray.store.tables import job_labels, jobs

__all__ = ["page_of_ids"]

_SLACK_S = 60.0
"""How far the time in an id may be from the time at which its job was written."""


def page_of_ids(
    *,
    project_id: str | None,
    status: Collection[JobStatus] | None,
    labels: Mapping[str, str] | None,
    created: tuple[float | None, float | None],
    parent_id: str | None,
    before_id: str | None,
    limit: int,
) -> Select[Any] | None:
    """The ids of a page, newest first; None if no job can be on it. Arguments as of `list_jobs`."""
    conditions = []
    if project_id is not None:
        conditions.append(jobs.c.project_id == project_id)
    if parent_id is not None:
        conditions.append(jobs.c.parent_id == parent_id)
    after, before = created
    if after is not None:
        conditions.append(jobs.c.created_at > after)
    if before is not None:
        conditions.append(jobs.c.created_at < before)
    pages = []
    for one in _statuses(status):
        query = select(jobs.c.id).where(*conditions, *([] if one is None else [jobs.c.status == one.value]))
        # Few jobs are live, however many there are: then the state leads, not the label.
        leading = one is None or one.terminal
        query, order = _labelled(query, labels or {}, leading=leading)
        query = query.where(*_bounds(order, after, before, before_id))
        pages.append(query.order_by(order.desc()).limit(limit))
    if not pages:
        return None
    if len(pages) == 1:
        return pages[0]
    # One ordered page of each state: an index has them in order only state by state.
    merged = union_all(*(select(page.subquery().c.id) for page in pages)).subquery()
    return select(merged.c.id).order_by(merged.c.id.desc()).limit(limit)


def _statuses(status: Collection[JobStatus] | None) -> Sequence[JobStatus | None]:
    if status is None or set(status) == set(JobStatus):
        return [None]
    return sorted(set(status))


def _labelled(query: Select[Any], labels: Mapping[str, str], *, leading: bool) -> tuple[Select[Any], Any]:
    """The query with its labels, and the column that gives the order: a leading label's key has its jobs in order."""
    order: Any = jobs.c.id
    for key, value in sorted(labels.items()):
        label = job_labels.alias()
        given = [label.c.job_id == jobs.c.id, label.c.key == key, label.c.value == value]
        if leading:
            leading, order = False, label.c.job_id
            query = query.join(label, given[0]).where(*given[1:])
        else:
            query = query.where(exists().where(*given))
    return query, order


def _bounds(order: Any, after: float | None, before: float | None, before_id: str | None) -> list[Any]:
    """Where to begin and to end in the index: else a page with few hits would be looked for through all of it."""
    bounds = []
    if after is not None:
        bounds.append(order >= first_id_of(after - _SLACK_S))
    if before is not None:
        bounds.append(order < first_id_of(before + _SLACK_S))
    if before_id is not None:
        bounds.append(order < before_id)
    return bounds
