"""Metric windows of jobs, kept in three resolutions for different lengths of time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from sqlalchemy import Connection, and_, delete, exists, func, select, tuple_

from astraml_ray.errors import JobNotFoundError, RequestError
from astraml_ray.store.plain import plain_text
from astraml_ray.store.statements import MAX_INTEGER, upsert
from astraml_ray.store.tables import jobs, metric_windows
from astraml_ray.store.windows import RESOLUTIONS, Window, merge, rollup

__all__ = [
    "MAX_NAMES",
    "RETENTION_S",
    "Series",
    "best_since",
    "expire_windows",
    "list_names",
    "merge_windows",
    "query_windows",
]

MAX_NAMES = 500
"""Metrics of one job."""
_MAX_NAME = 128
_DAY_S = 86400
RETENTION_S: Mapping[int, int] = {30: 14 * _DAY_S, 300: 90 * _DAY_S, 3600: 730 * _DAY_S}
"""How long the windows of each resolution are kept."""
_BATCH = 5000
_w = metric_windows.c
_KEY = (_w.job_id, _w.name, _w.resolution, _w.start)
_FIELDS = tuple(field.name for field in fields(Window))


@dataclass(frozen=True)
class Series:
    """Windows of one metric, oldest first.

    Attributes:
        name: The metric.
        resolution: Seconds of a window.
        points: Raw points that the windows stand for.
        windows: The windows.
    """

    name: str
    resolution: int
    points: int
    windows: list[Window]


def merge_windows(conn: Connection, job_id: str, windows: Mapping[str, Iterable[Window]]) -> list[str]:
    """Adds new windows of 30 s to what is stored, in every resolution.

    A stored window's revision grows when it changes although a later one of its metric is there already.

    Returns:
        The metrics that were dropped: beyond MAX_NAMES of the job, or with names that are too long.

    Raises:
        JobNotFoundError: There is no such job.
    """
    # Windows are read, merged and written back: one writer at a time.
    if conn.execute(select(jobs.c.id).where(jobs.c.id == job_id).with_for_update()).one_or_none() is None:
        raise JobNotFoundError(f"there is no job {job_id}", param=job_id)
    given = _by_stored_name(windows)
    rows: list[dict[str, Any]] = []
    dropped: set[str] = set()
    # The hours first: a name with a stored hour is known, and needs no look at all the names.
    for resolution in reversed(RESOLUTIONS):
        new = {name: rollup(of_name, resolution) for name, of_name in given.items() if name not in dropped}
        stored = _stored(conn, job_id, resolution, new)
        if resolution == RESOLUTIONS[-1]:
            dropped = _beyond(conn, job_id, [name for name in new if name not in {known for known, _ in stored}])
        rows += _merged_rows(job_id, resolution, new, stored, dropped)
    if rows:
        query = upsert(conn, metric_windows)
        values = {name: query.excluded[name] for name in _FIELDS if name != "start"}
        conn.execute(query.on_conflict_do_update(index_elements=list(_KEY), set_=values), rows)
    return sorted(dropped)


def query_windows(
    conn: Connection,
    job_id: str,
    *,
    names: Collection[str] | None = None,
    resolution: int | Literal["auto"] = "auto",
    start: float | None = None,
    end: float | None = None,
    step_from: int | None = None,
    step_to: int | None = None,
    max_windows: int = 1000,
) -> list[Series]:
    """Windows that touch a range of time or of steps, all in one resolution, one series per name.

    Args:
        conn: A connection.
        job_id: The job.
        names: The metrics; all by default.
        resolution: Seconds, or "auto": the finest that still holds all of the range, in `max_windows` at most.
            Where not even the coarsest is small enough, "auto" gives all of the coarsest.
        start: From this time on.
        end: Before this time.
        step_from: From this step on.
        step_to: Up to this step.
        max_windows: Windows of one series, at most.

    Raises:
        RequestError: No such resolution, or more windows than `max_windows` in the one that was asked for.
    """
    wanted = list_names(conn, job_id) if names is None else sorted(set(names))
    bounds = _bounds(start, end, step_from, step_to)
    if resolution == "auto":
        finer = (r for r in RESOLUTIONS[:-1] if _suits(conn, job_id, wanted, r, bounds, max_windows))
        chosen = next(finer, RESOLUTIONS[-1])
        return [_series(conn, job_id, name, chosen, bounds, None) for name in wanted]
    if resolution not in RESOLUTIONS:
        raise RequestError(f"there are no windows of {resolution} s", param="resolution", hint="30, 300 or 3600")
    return [_series(conn, job_id, name, resolution, bounds, max_windows) for name in wanted]


def list_names(conn: Connection, job_id: str) -> list[str]:
    """The job's metrics, sorted."""
    # One step in the index per name, however many windows there are.
    least = select(func.min(_w.name).label("name")).where(_w.job_id == job_id).cte("names", recursive=True)
    following = select(func.min(_w.name)).where(_w.job_id == job_id, _w.name > least.c.name).scalar_subquery()
    names = least.union_all(select(following).where(least.c.name.is_not(None)))
    return sorted(conn.execute(select(names.c.name).where(names.c.name.is_not(None))).scalars())


def best_since(conn: Connection, job_id: str, name: str, *, lower: bool, resolution: int) -> tuple[float, int] | None:
    """A metric's best value, and the start of the window that had it first; None without a finite point.

    Args:
        conn: A connection.
        job_id: The job.
        name: The metric.
        lower: Lower is better.
        resolution: Seconds of a window; those that have expired are not seen.
    """
    value = _w["min" if lower else "max"]
    best = func.min(value) if lower else func.max(value)
    top = conn.execute(_range(job_id, name, resolution, [], best)).scalar()
    if top is None:
        return None
    first = conn.execute(_range(job_id, name, resolution, [value == top], func.min(_w.start))).scalar()
    return float(top), int(first or 0)


def expire_windows(conn: Connection, *, now: float) -> int:
    """Deletes a batch of the windows that are past their retention, oldest first. Returns how many; 0: none left."""
    for resolution, keep_s in RETENTION_S.items():
        old = (
            select(*_KEY)
            .where(_w.resolution == resolution, _w.start < now - keep_s - resolution)
            .order_by(_w.start)
            .limit(_BATCH)
        )
        deleted = conn.execute(delete(metric_windows).where(tuple_(*_KEY).in_(old))).rowcount
        if deleted:
            return deleted
    return 0


def _by_stored_name(windows: Mapping[str, Iterable[Window]]) -> dict[str, list[Window]]:
    given: dict[str, list[Window]] = {}
    for name, of_name in windows.items():
        given.setdefault(plain_text(name), []).extend(of_name)
    return given


def _beyond(conn: Connection, job_id: str, names: list[str]) -> set[str]:
    """Names that the job has no room for."""
    if not names:
        return set()
    known = set(list_names(conn, job_id))
    new = [name for name in names if name not in known and len(name) <= _MAX_NAME]
    room = max(0, MAX_NAMES - len(known))
    return {name for name in names if len(name) > _MAX_NAME} | set(new[room:])


def _merged_rows(
    job_id: str,
    resolution: int,
    new: Mapping[str, Mapping[int, Window]],
    stored: Mapping[tuple[str, int], tuple[Window, bool]],
    dropped: Collection[str],
) -> list[dict[str, Any]]:
    rows = []
    for name, windows in new.items():
        for start, window in windows.items() if name not in dropped else ():
            whole = replace(window, revision=0)
            if (name, start) in stored:
                before, closed = stored[name, start]
                whole = replace(merge(before, whole, start), revision=before.revision + closed)
            rows.append({"job_id": job_id, "name": name, "resolution": resolution, **asdict(whole)})
    return rows


def _stored(
    conn: Connection, job_id: str, resolution: int, new: Mapping[str, Mapping[int, Window]]
) -> dict[tuple[str, int], tuple[Window, bool]]:
    """The stored windows that are about to change, and whether a later one is stored."""
    starts = {start for windows in new.values() for start in windows}
    later = metric_windows.alias("later")
    closed = exists().where(
        later.c.job_id == _w.job_id,
        later.c.name == _w.name,
        later.c.resolution == _w.resolution,
        later.c.start > _w.start,
    )
    query = select(_w.name, closed.label("closed"), *(_w[field] for field in _FIELDS)).where(
        _w.job_id == job_id, _w.name.in_(list(new)), _w.resolution == resolution, _w.start.in_(sorted(starts))
    )
    found = {}
    for row in conn.execute(query).mappings():
        window = Window(**{field: row[field] for field in _FIELDS})
        found[row["name"], window.start] = (window, bool(row["closed"]))
    return found


def _bounds(start: float | None, end: float | None, step_from: int | None, step_to: int | None) -> list[Any]:
    bounds: list[Any] = []
    if start is not None:
        bounds.append(_w.start + _w.resolution > start)
    if end is not None:
        bounds.append(_w.start < end)
    if step_from is not None:
        bounds.append(_w.step_last >= min(step_from, MAX_INTEGER))
    if step_to is not None:
        bounds.append(_w.step_first <= max(step_to, -MAX_INTEGER))
    return bounds


def _range(job_id: str, name: str, resolution: int, bounds: list[Any], *columns: Any) -> Any:
    of_series = and_(_w.job_id == job_id, _w.name == name, _w.resolution == resolution)
    return select(*columns).where(of_series, *bounds)


def _series(
    conn: Connection, job_id: str, name: str, resolution: int, bounds: list[Any], max_windows: int | None
) -> Series:
    query = _range(job_id, name, resolution, bounds, *(_w[field] for field in _FIELDS)).order_by(_w.start)
    if max_windows is not None:
        query = query.limit(max_windows + 1)
    windows = [Window(**row) for row in conn.execute(query).mappings()]
    if max_windows is not None and len(windows) > max_windows:
        raise RequestError(
            f"{name} has more than {max_windows} windows of {resolution} s in this range",
            param="resolution",
            hint="resolution=auto, or a shorter range",
        )
    return Series(name, resolution, sum(window.points for window in windows), windows)


def _suits(
    conn: Connection, job_id: str, names: list[str], resolution: int, bounds: list[Any], max_windows: int
) -> bool:
    """Whether these windows still hold all of the range, and are few enough."""
    for name in names:
        few = _range(job_id, name, resolution, bounds, _w.start).limit(max_windows + 1).subquery()
        if (conn.execute(select(func.count()).select_from(few)).scalar() or 0) > max_windows:
            return False
        if not _whole(conn, job_id, name, resolution, bounds):
            return False
    return True


def _whole(conn: Connection, job_id: str, name: str, resolution: int, bounds: list[Any]) -> bool:
    """Whether nothing has expired: the oldest go first, so the first hour of the range tells."""
    points = _w.count + _w.nan_count + _w.inf_count
    widest = RESOLUTIONS[-1]
    first = conn.execute(_range(job_id, name, widest, bounds, _w.start, points).order_by(_w.start).limit(1)).first()
    if first is None:
        return True
    hour, expected = first
    inside = [_w.start >= hour, _w.start < hour + widest]
    held = conn.execute(_range(job_id, name, resolution, inside, func.sum(points))).scalar() or 0
    return bool(held == expected)
