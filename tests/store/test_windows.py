"""Windows merge into what the points themselves would have given."""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astraml_ray.store.windows import RESOLUTIONS, Point, Window, collect, merge, rollup, start_of, window_of

# Few times and values, so that ties are common.
TIMES = st.integers(0, 40).map(lambda n: n * 97.5) | st.floats(0, 8000)
VALUES = st.sampled_from([0.0, 1.0, -1.0, math.nan, math.inf, -math.inf]) | st.floats(-1e150, 1e150)
POINTS = st.lists(st.tuples(TIMES, st.none() | st.integers(0, 5), VALUES), max_size=30)


def same(a: Window, b: Window) -> bool:
    """Equal, sums to rounding."""
    exact = replace(a, sum=0.0, sum_sq=0.0) == replace(b, sum=0.0, sum_sq=0.0)
    scale = max(abs(a.min or 0.0), abs(a.max or 0.0), 1e-300) * (a.count + 1)
    return (
        exact
        and math.isclose(a.sum, b.sum, rel_tol=1e-12, abs_tol=1e-12 * scale)
        and math.isclose(a.sum_sq, b.sum_sq, rel_tol=1e-12)
    )


@given(POINTS, POINTS)
def test_merging_is_commutative(a: list[Point], b: list[Point]) -> None:
    one, two = window_of(a, 0), window_of(b, 0)
    assert merge(one, two, 0) == merge(two, one, 0)


@given(POINTS, POINTS, POINTS)
def test_merging_is_associative(a: list[Point], b: list[Point], c: list[Point]) -> None:
    one, two, three = window_of(a, 0), window_of(b, 0), window_of(c, 0)
    assert same(merge(merge(one, two, 0), three, 0), merge(one, merge(two, three, 0), 0))


@given(POINTS, POINTS)
def test_merging_equals_the_window_of_all_points(a: list[Point], b: list[Point]) -> None:
    assert same(merge(window_of(a, 0), window_of(b, 0), 0), window_of(a + b, 0))
    assert merge(window_of(a, 0), window_of([], 0), 0) == window_of(a, 0)


@given(POINTS, st.randoms(use_true_random=False))
def test_the_order_of_points_does_not_matter(points: list[Point], rng: random.Random) -> None:
    shuffled = rng.sample(points, len(points))
    assert collect(shuffled, 30) == collect(points, 30)


@given(POINTS)
def test_coarser_windows_are_the_same_by_any_way(points: list[Point]) -> None:
    fine = collect(points, 30)
    middle = rollup(fine.values(), 300)
    for resolution, ways in {300: [middle], 3600: [rollup(fine.values(), 3600), rollup(middle.values(), 3600)]}.items():
        direct = collect(points, resolution)
        for way in ways:
            assert list(way) == list(direct)
            assert all(same(way[start], direct[start]) for start in direct)


@given(POINTS)
def test_nothing_is_lost_on_the_way(points: list[Point]) -> None:
    for resolution in RESOLUTIONS:
        windows = collect(points, resolution)
        assert sum(window.points for window in windows.values()) == len(points)
        assert sum(window.nan_count for window in windows.values()) == sum(math.isnan(p[2]) for p in points)
        assert sum(window.inf_count for window in windows.values()) == sum(math.isinf(p[2]) for p in points)
        for start, window in windows.items():
            assert window.start == start
            assert start % resolution == 0
            assert json.dumps(asdict(window), allow_nan=False)
            assert not any(math.isnan(p[2]) for p in points if p[2] == window.max)


def test_a_window_by_hand() -> None:
    points = [(31.0, 4, 2.0), (35.0, 5, math.nan), (36.0, 6, -math.inf), (40.0, 3, -1.0), (59.9, 9, 4.0)]
    assert collect(points, 30) == {
        30: Window(
            start=30,
            count=3,
            sum=5.0,
            sum_sq=21.0,
            min=-1.0,
            max=4.0,
            first=2.0,
            first_at=31.0,
            last=4.0,
            last_at=59.9,
            nan_count=1,
            inf_count=1,
            step_first=3,
            step_last=9,
            first_step=4,
            last_step=9,
        )
    }


def test_a_spike_and_a_nan_show_in_the_hour() -> None:
    points: list[Point] = [(float(at), at, 1.0) for at in range(3600)]
    points[1234] = (1234.0, 1234, 1e6)
    points[2345] = (2345.0, 2345, math.nan)
    (hour,) = rollup(collect(points, 30).values(), 3600).values()
    assert (hour.max, hour.nan_count, hour.count) == (1e6, 1, 3599)
    assert hour.sum == 3598 + 1e6


def test_ties_in_time_go_by_step_then_by_value() -> None:
    points: list[Point] = [(5.0, 8, 1.0), (5.0, 7, 2.0), (5.0, 9, 3.0), (5.0, 9, 0.5), (5.0, 7, 9.0)]
    window = window_of(points, 0)
    assert (window.first, window.last) == (2.0, 3.0)
    for cut in range(6):
        assert merge(window_of(points[cut:], 0), window_of(points[:cut], 0), 0) == window


def test_windows_of_what_is_not_finite_alone() -> None:
    window = window_of([(1.0, 3, math.nan), (2.0, None, math.inf)], 0)
    assert (window.count, window.sum, window.min, window.first, window.last_at) == (0, 0.0, None, None, None)
    assert (window.nan_count, window.inf_count, window.step_first, window.step_last) == (1, 1, 3, 3)
    both = merge(window, window_of([(9.0, 1, 5.0)], 0), 0)
    assert (both.first, both.last, both.min, both.count, both.points) == (5.0, 5.0, 5.0, 1, 3)


def test_revisions_are_kept_by_the_greater() -> None:
    old, new = replace(window_of([(1.0, 1, 1.0)], 0), revision=3), window_of([(2.0, 2, 1.0)], 0)
    assert merge(old, new, 0).revision == merge(new, old, 0).revision == 3


def test_sums_stay_finite() -> None:
    huge = [(1.0, 1, 1.7e308), (2.0, 2, 1.7e308), (3.0, 3, -1.7e308)]
    windows = [window_of(huge, 0), window_of(huge[:2], 0), window_of(huge[2:], 0)]
    for window in (*windows, merge(windows[1], windows[2], 0), merge(windows[1], windows[1], 0)):
        assert math.isfinite(window.sum)
        assert math.isfinite(window.sum_sq)


def test_the_sum_of_a_window_is_rounded_once() -> None:
    values = [1e16, 1.0, -1e16, 1.0]
    assert window_of([(float(at), at, value) for at, value in enumerate(values)], 0).sum == 2.0


@pytest.mark.parametrize(
    ("at", "start"), [(0.0, 0), (29.999, 0), (30.0, 30), (-0.5, -30), (1_800_000_015.5, 1_800_000_000)]
)
def test_starts(at: float, start: int) -> None:
    assert start_of(at, 30) == start
