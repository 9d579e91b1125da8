"""Stored windows: merged, revised, queried by time or step, and expired."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from sqlalchemy import func, select

import astraml_ray.store.metrics as metrics
from astraml_ray.errors import JobNotFoundError, RequestError
from astraml_ray.store.engine import Store
from astraml_ray.store.metrics import (
    MAX_NAMES,
    RETENTION_S,
    Series,
    expire_windows,
    list_names,
    merge_windows,
    query_windows,
)
from astraml_ray.store.tables import metric_windows
from astraml_ray.store.windows import RESOLUTIONS, Point, Window, collect
from tests.store.conftest import NOW
from tests.store.test_engine import together
from tests.store.test_windows import same

HOUR = 3600
T = int(NOW) // HOUR * HOUR


def add(store: Store, job_id: str, **points: list[Point]) -> list[str]:
    with store.write() as conn:
        return merge_windows(conn, job_id, {name: collect(given, 30).values() for name, given in points.items()})


def query(store: Store, job_id: str, **options: Any) -> list[Series]:
    with store.read() as conn:
        return query_windows(conn, job_id, **options)


def windows(store: Store, job_id: str, resolution: int, **options: Any) -> list[Window]:
    (series,) = query(store, job_id, resolution=resolution, max_windows=10_000, **options)
    return series.windows


def test_all_resolutions_equal_the_points_whatever_the_batches(store: Store, job_id: str) -> None:
    rng = random.Random(1)
    values = [math.nan, math.inf, -math.inf, 1e6, *(rng.uniform(-9, 9) for _ in range(300))]
    points: list[Point] = [(T + rng.uniform(0, 8000), rng.randrange(500), value) for value in values]
    rng.shuffle(points)
    for first in range(0, len(points), 40):
        add(store, job_id, loss=points[first : first + 40], other=points[first : first + 5])
    for resolution in RESOLUTIONS:
        stored = windows(store, job_id, resolution, names=["loss"])
        direct = collect(points, resolution)
        assert [window.start for window in stored] == list(direct)
        for window in stored:
            assert same(Window(**{**vars(window), "revision": 0}), direct[window.start])
    assert sum(window.nan_count for window in windows(store, job_id, 3600, names=["loss"])) == 1
    assert max(window.max or 0 for window in windows(store, job_id, 3600, names=["loss"])) == 1e6


def test_concurrent_writers_lose_no_point(store: Store, job_id: str) -> None:
    def work(number: int) -> None:
        for turn in range(5):
            add(store, job_id, loss=[(T + turn, turn, float(number)), (T + 400 + turn, turn, 1.0)])

    assert together(6, work) == []
    assert [window.count for window in windows(store, job_id, 30)] == [30, 30]
    assert [window.count for window in windows(store, job_id, 3600)] == [60]


def test_late_points_revise_their_window(store: Store, job_id: str) -> None:
    def revisions(resolution: int) -> list[int]:
        return [window.revision for window in windows(store, job_id, resolution)]

    add(store, job_id, loss=[(T + 1, 1, 1.0)])
    add(store, job_id, loss=[(T + 2, 2, 1.0)])
    assert revisions(30) == [0]  # it was still open
    add(store, job_id, loss=[(T + 20, 3, 1.0), (T + 31, 4, 1.0)])
    assert revisions(30) == [0, 0]  # closed only now
    add(store, job_id, loss=[(T + 3, 2, 50.0)])
    add(store, job_id, loss=[(T + 4, 2, math.nan)])
    assert revisions(30) == [2, 0]
    assert revisions(300) == revisions(3600) == [0]
    add(store, job_id, loss=[(T + 310, 9, 1.0)])
    add(store, job_id, loss=[(T + 5, 2, 1.0)])
    assert (revisions(30), revisions(300), revisions(3600)) == ([3, 0, 0], [1, 0], [0])
    first = windows(store, job_id, 30)[0]
    assert (first.count, first.max, first.nan_count) == (5, 50.0, 1)


def test_other_metrics_and_jobs_close_no_window(store: Store, job_id: str, make_job: Any) -> None:
    add(store, job_id, loss=[(T + 1, 1, 1.0)])
    add(store, job_id, accuracy=[(T + 100, 1, 1.0)])
    add(store, make_job(), loss=[(T + 100, 1, 1.0)])
    add(store, job_id, loss=[(T + 2, 1, 1.0)])
    assert [window.revision for window in windows(store, job_id, 30, names=["loss"])] == [0]


def test_names_are_limited_and_those_dropped_are_told(store: Store, job_id: str) -> None:
    names = [f"m{number:03}" for number in range(MAX_NAMES + 3)]
    one: list[Point] = [(T, 1, 1.0)]
    assert add(store, job_id, **dict.fromkeys(names[:400], one)) == []
    assert add(store, job_id, **dict.fromkeys(names, one)) == names[MAX_NAMES:]
    assert add(store, job_id, **{names[0]: one, "x" * 129: one, "new": one}) == ["new", "x" * 129]
    with store.read() as conn:
        assert list_names(conn, job_id) == names[:MAX_NAMES]
    assert windows(store, job_id, 30, names=[names[0]])[0].count == 3


def test_names_of_any_kind(store: Store, job_id: str) -> None:
    names = ["train/loss", "Loss", "loss", "é", "_x", "a b", "loss2", "z" * 128, ""]
    add(store, job_id, **{name: [(T, 1, 1.0)] for name in names})
    with store.read() as conn:
        assert list_names(conn, job_id) == sorted(names)
        assert list_names(conn, "none") == []


def test_names_that_only_differ_in_what_cannot_be_stored(store: Store, job_id: str) -> None:
    add(store, job_id, **{"a\0": [(T, 1, 1.0)], "a\ud800": [(T, 2, 2.0)]})
    add(store, job_id, **{"a\0": [(T + 1, 1, 1.0)]})
    (series,) = query(store, job_id)
    assert (series.name, series.points) == ("a\ufffd", 3)


def test_ranges_of_time(store: Store, job_id: str) -> None:
    add(store, job_id, loss=[(T + 30 * n, n, float(n)) for n in range(20)])

    def starts(**options: Any) -> list[int]:
        return [window.start - T for window in windows(store, job_id, 30, **options)]

    assert starts(start=T + 90, end=T + 180) == [90, 120, 150]
    assert starts(start=T + 91, end=T + 181) == [90, 120, 150, 180]  # whatever touches the range
    assert starts(start=T + 550) == [540, 570]
    assert starts(end=T + 1) == [0]
    assert starts(start=T + 10**6) == []
    assert [w.start - T for w in windows(store, job_id, 300, start=T + 299)] == [0, 300]


def test_ranges_of_steps(store: Store, job_id: str) -> None:
    add(store, job_id, loss=[(T + n, n * 10, float(n)) for n in range(300)], stepless=[(T, None, 1.0)])

    def steps(**options: Any) -> list[tuple[int | None, int | None]]:
        return [(w.step_first, w.step_last) for w in windows(store, job_id, 30, names=["loss"], **options)]

    assert steps(step_from=300, step_to=599) == [(300, 590)]
    assert steps(step_from=290, step_to=600) == [(0, 290), (300, 590), (600, 890)]
    assert steps(step_from=2700) == [(2700, 2990)]
    assert steps(step_to=0) == [(0, 290)]
    assert steps(step_from=10**30) == steps(step_to=-(10**30)) == []
    assert windows(store, job_id, 30, names=["stepless"], step_from=0) == []


def test_every_answer_says_its_resolution_and_its_points(store: Store, job_id: str) -> None:
    add(store, job_id, a=[(T, 1, 1.0), (T + 1, 2, math.nan), (T + 40, 3, math.inf)], b=[(T, 1, 1.0)])
    assert [(s.name, s.resolution, s.points, len(s.windows)) for s in query(store, job_id, resolution=30)] == [
        ("a", 30, 3, 2),
        ("b", 30, 1, 1),
    ]
    assert [(s.name, s.points) for s in query(store, job_id, names=["b", "none", "b"])] == [("b", 1), ("none", 0)]
    assert query(store, "none") == []


def test_auto_is_the_finest_that_is_small_enough(store: Store, job_id: str) -> None:
    add(store, job_id, loss=[(T + 30 * n, n, 1.0) for n in range(240)], rare=[(T, 0, 1.0)])

    def auto(**options: Any) -> list[tuple[int, int]]:
        return [(series.resolution, len(series.windows)) for series in query(store, job_id, **options)]

    assert auto() == [(30, 240), (30, 1)]
    assert auto(max_windows=240) == [(30, 240), (30, 1)]
    assert auto(max_windows=239) == [(300, 24), (300, 1)]
    assert auto(max_windows=23) == [(3600, 2), (3600, 1)]
    assert auto(max_windows=1) == [(3600, 2), (3600, 1)]  # nothing is coarser
    assert auto(max_windows=20, start=T + 600, end=T + 1200) == [(30, 20), (30, 0)]
    assert auto(max_windows=20, step_from=20, step_to=39) == [(30, 20), (30, 0)]
    assert auto(max_windows=10, names=["rare"]) == [(30, 1)]


def test_auto_goes_where_the_whole_range_is_still_held(store: Store, job_id: str) -> None:
    day = 86_400
    daily = 48
    add(store, job_id, loss=[(T + 1800 * n, n, 1.0) for n in range(daily * 20)])
    end = T + 20 * day
    with store.write() as conn:
        while expire_windows(conn, now=end):
            pass
    assert windows(store, job_id, 30)[0].start == end - 14 * day
    for options, resolution in (
        ({}, 300),
        ({"start": end - 14 * day}, 30),
        ({"start": end - 14 * day - 3600}, 300),
        ({"step_from": daily * 6}, 30),
        ({"step_from": daily * 6 - 2}, 300),
    ):
        (series,) = query(store, job_id, max_windows=10_000, **options)  # type: ignore[arg-type]
        assert series.resolution == resolution, options
    with store.write() as conn:
        while expire_windows(conn, now=end + 80 * day):
            pass
    (series,) = query(store, job_id, max_windows=10_000)
    assert (series.resolution, series.points) == (3600, daily * 20)


def test_half_an_hour_that_has_expired_counts_as_missing(store: Store, job_id: str) -> None:
    add(store, job_id, loss=[(T + 30 * n, n, 1.0) for n in range(240)])
    with store.write() as conn:
        assert expire_windows(conn, now=T + 1800 + RETENTION_S[30]) == 59
    (series,) = query(store, job_id)
    assert (series.resolution, series.points) == (300, 240)
    (series,) = query(store, job_id, start=T + 3600)
    assert (series.resolution, series.points) == (30, 120)


def test_too_many_windows_are_an_error_and_not_cut(store: Store, job_id: str) -> None:
    add(store, job_id, loss=[(T + 30 * n, n, 1.0) for n in range(11)])
    assert len(query(store, job_id, resolution=30, max_windows=11)[0].windows) == 11
    with pytest.raises(RequestError, match="more than 10 windows"):
        query(store, job_id, resolution=30, max_windows=10)
    with pytest.raises(RequestError, match="60 s"):
        query(store, job_id, resolution=60)


def test_windows_expire_in_bounded_batches_oldest_first(
    store: Store, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "_BATCH", 4)
    add(store, job_id, a=[(T + 30 * n, n, 1.0) for n in range(5)], b=[(T + 30 * n, n, 1.0) for n in range(5)])

    def count(resolution: int) -> int:
        with store.read() as conn:
            of = metric_windows.c.resolution == resolution
            return conn.execute(select(func.count()).select_from(metric_windows).where(of)).scalar() or 0

    late = T + RETENTION_S[30] + 3600
    with store.write() as conn:
        assert expire_windows(conn, now=T + 1000) == 0
        assert expire_windows(conn, now=late) == 4
        left = conn.execute(select(func.min(metric_windows.c.start)).where(metric_windows.c.resolution == 30)).scalar()
        assert left == T + 60
        assert [expire_windows(conn, now=late) for _ in range(3)] == [4, 2, 0]
    assert [count(resolution) for resolution in RESOLUTIONS] == [0, 2, 2]
    with store.write() as conn:
        assert [expire_windows(conn, now=T + RETENTION_S[300] + 3600) for _ in range(2)] == [2, 0]
        assert [expire_windows(conn, now=T + RETENTION_S[3600] + 9999) for _ in range(2)] == [2, 0]
    assert query(store, job_id) == []


def test_nothing_is_written_for_an_unknown_job(store: Store) -> None:
    with pytest.raises(JobNotFoundError):
        add(store, "none", loss=[(T, 1, 1.0)])
