"""The query of a page of jobs, such that an index gives its rows in order. Pure: builds statements, runs none.

Every page is a stretch of one index, whose last column is the job's id: the columns before it are the *lead*. The
lead is written as bounds of the whole key, and is part of the order, where `lead = value` would mean the same:
PostgreSQL would then be free to walk through the jobs by id and to filter, which reads the whole table where a
project's last job is old.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import product
from typing import Any

from sqlalchemy import Select, exists, func, literal, select, tuple_, union_all

from astraml_ray.spec.states import JobStatus
from astraml_ray.store.records import first_id_of
from astraml_ray.store.schedule_tables import occurrences
from astraml_ray.store.tables import job_labels, jobs

__all__ = ["page_of_ids"]

_MAX_PROJECTS = 50
_SLACK_S = 60.0
"""How far the time in an id may be from the time at which its job was written."""


def page_of_ids(
    *,
    project_id: str | None,
    project_ids: Collection[str] | None = None,
    status: Collection[JobStatus] | None,
    labels: Mapping[str, str] | None,
    created: tuple[float | None, float | None],
    parent_id: str | None,
    schedule_id: str | None = None,
    before_id: str | None,
    limit: int,
) -> Select[Any] | None:
    """The ids of a page, newest first; None if no job can be on it. Arguments as of `list_jobs`."""
    after, before = created
    lowest = "" if after is None else first_id_of(after - _SLACK_S)
    below = [] if before_id is None else [before_id]
    # What does not lead is only looked at: as an expression, it tempts no planner to its index or to its statistics.
    conditions = []
    if after is not None:
        conditions.append(func.coalesce(jobs.c.created_at, 0.0) > after)
    if before is not None:
        conditions.append(func.coalesce(jobs.c.created_at, 0.0) < before)
        below.append(first_id_of(before + _SLACK_S))
    projects = _projects(project_id, project_ids)
    if len(projects) > _MAX_PROJECTS:
        # More stretches of the index than a database takes in one query.
        conditions.append(func.coalesce(jobs.c.project_id, "").in_(projects))
        projects = [None]
    pages = []
    for project, one in product(projects, _statuses(status)):
        given = {"project_id": project, "status": one.value if one else None, "parent_id": parent_id}
        wanted = {name: value for name, value in given.items() if value is not None}
        query, key, lead = _lead(wanted, labels or {}, one, schedule_id)
        bounds = _bounds(key, lead, lowest, below)
        order = [column.desc() for column in key]
        pages.append(query.where(*conditions, *bounds).order_by(*order).limit(limit))
    if not pages:
        return None
    if len(pages) == 1:
        return pages[0]
    # One ordered page of each project and state: an index has them in order only one by one.
    merged = union_all(*(select(page.subquery().c.id) for page in pages)).subquery()
    return select(merged.c.id).order_by(merged.c.id.desc()).limit(limit)


def _projects(project_id: str | None, project_ids: Collection[str] | None) -> Sequence[str | None]:
    if project_ids is None:
        return [project_id]
    if project_id is None:
        return sorted(project_ids)
    return [project_id] if project_id in project_ids else []


def _statuses(status: Collection[JobStatus] | None) -> Sequence[JobStatus | None]:
    if status is None or set(status) == set(JobStatus):
        return [None]
    return sorted(set(status))


def _lead(
    given: dict[str, str], labels: Mapping[str, str], status: JobStatus | None, schedule_id: str | None
) -> tuple[Select[Any], list[Any], list[str]]:
    """The query with all filters but the lead's, the columns of the key, and the lead's values."""
    query = select(jobs.c.id)
    left = sorted(labels.items())
    if schedule_id is not None:
        query = query.join(occurrences, occurrences.c.job_id == jobs.c.id)
        key, lead = [occurrences.c.schedule_id, occurrences.c.job_id], [schedule_id]
    # Few jobs are live, however many there are: then the state leads, not the label.
    elif left and (status is None or status.terminal):
        (name, value), *left = left
        label = job_labels.alias()
        query = query.join(label, label.c.job_id == jobs.c.id)
        key, lead = [label.c.key, label.c.value, label.c.job_id], [name, value]
    else:
        names = ["parent_id"] if "parent_id" in given else [n for n in ("project_id", "status") if n in given]
        key, lead = [*(jobs.c[name] for name in names), jobs.c.id], [given.pop(name) for name in names]
    for name, value in left:
        label = job_labels.alias()
        query = query.where(exists().where(label.c.job_id == jobs.c.id, label.c.key == name, label.c.value == value))
    return query.where(*(func.coalesce(jobs.c[name], "") == value for name, value in given.items())), key, lead


def _bounds(key: list[Any], lead: list[str], lowest: str, below: list[str]) -> list[Any]:
    """Where in the index the page begins and ends."""
    bounds = []
    if lead or lowest:
        bounds.append(tuple_(*key) >= _values(key, [*lead, lowest]))
    bounds += [tuple_(*key) < _values(key, [*lead, highest]) for highest in below]
    if lead and not below:
        bounds.append(tuple_(*key[:-1]) <= _values(key, lead))
    return bounds


def _values(key: list[Any], values: list[str]) -> Any:
    return tuple_(*(literal(value, column.type) for column, value in zip(key, values, strict=False)))
