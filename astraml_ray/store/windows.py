"""Windows of metric points: what a stretch of time held, such that windows merge into wider ones. Pure.

Merging is associative and commutative: counts, extremes, first and last values are exact, sums to rounding.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace

__all__ = ["RESOLUTIONS", "Point", "Window", "collect", "merge", "rollup", "start_of", "window_of"]

RESOLUTIONS = (30, 300, 3600)
"""Seconds of a window, finest first; each divides the next."""

Point = tuple[float, "int | None", float]
"""When (seconds since the epoch), at which step, and the value."""

_MOST = sys.float_info.max


@dataclass(frozen=True)
class Window:
    """The points of one metric from `start` on, for as long as its resolution says.

    Attributes:
        start: Seconds since the epoch, a multiple of the resolution.
        count: Finite points; the others are counted apart and enter nothing but the steps.
        sum: Of the finite values, as are the following; it stops at the greatest float.
        sum_sq: Of their squares.
        min: The smallest; None without a finite point, as are the following.
        max: The greatest.
        first: The earliest; among points of one time the one of the lowest step, then the smallest.
        first_at: Its time.
        last: The latest; among points of one time the one of the highest step, then the greatest.
        last_at: Its time.
        nan_count: Points that are no number.
        inf_count: Points that are infinite.
        step_first: The lowest step of all points.
        step_last: The highest.
        revision: How often late points have changed the stored window.
        first_step: Step of `first`.
        last_step: Step of `last`.
    """

    start: int
    count: int
    sum: float
    sum_sq: float
    min: float | None
    max: float | None
    first: float | None
    first_at: float | None
    last: float | None
    last_at: float | None
    nan_count: int
    inf_count: int
    step_first: int | None
    step_last: int | None
    revision: int = 0
    first_step: int | None = None
    last_step: int | None = None

    @property
    def points(self) -> int:
        """All points it stands for."""
        return self.count + self.nan_count + self.inf_count


def start_of(at: float, resolution: int) -> int:
    """Start of the window of a time."""
    return math.floor(at / resolution) * resolution


def window_of(points: Iterable[Point], start: int) -> Window:
    """The window of points that all belong to it."""
    given = list(points)
    finite = [point for point in given if math.isfinite(point[2])]
    values = [value for _, _, value in finite]
    steps = [step for _, step, _ in given if step is not None]
    first_at, first_step, first = min(finite, key=_order, default=(None, None, None))
    last_at, last_step, last = max(finite, key=_order, default=(None, None, None))
    return Window(
        start=start,
        count=len(finite),
        sum=_total(values),
        sum_sq=_total([value * value for value in values]),
        min=min(values, default=None),
        max=max(values, default=None),
        first=first,
        first_at=first_at,
        last=last,
        last_at=last_at,
        nan_count=sum(math.isnan(value) for _, _, value in given),
        inf_count=sum(math.isinf(value) for _, _, value in given),
        step_first=min(steps, default=None),
        step_last=max(steps, default=None),
        first_step=first_step,
        last_step=last_step,
    )


def merge(a: Window, b: Window, start: int) -> Window:
    """The window of the points of both."""
    first = min((w for w in (a, b) if w.count), key=_first_order, default=a)
    last = max((w for w in (a, b) if w.count), key=_last_order, default=a)
    return Window(
        start=start,
        count=a.count + b.count,
        sum=_total([a.sum, b.sum]),
        sum_sq=_total([a.sum_sq, b.sum_sq]),
        min=min((v for v in (a.min, b.min) if v is not None), default=None),
        max=max((v for v in (a.max, b.max) if v is not None), default=None),
        first=first.first,
        first_at=first.first_at,
        last=last.last,
        last_at=last.last_at,
        nan_count=a.nan_count + b.nan_count,
        inf_count=a.inf_count + b.inf_count,
        step_first=min((s for s in (a.step_first, b.step_first) if s is not None), default=None),
        step_last=max((s for s in (a.step_last, b.step_last) if s is not None), default=None),
        revision=max(a.revision, b.revision),
        first_step=first.first_step,
        last_step=last.last_step,
    )


def collect(points: Iterable[Point], resolution: int) -> dict[int, Window]:
    """The windows of points in any order, by start."""
    groups: dict[int, list[Point]] = {}
    for point in points:
        groups.setdefault(start_of(point[0], resolution), []).append(point)
    return {start: window_of(groups[start], start) for start in sorted(groups)}


def rollup(windows: Iterable[Window], resolution: int) -> dict[int, Window]:
    """Wider windows of finer ones, by start."""
    wide: dict[int, Window] = {}
    for window in windows:
        start = start_of(window.start, resolution)
        known = wide.get(start)
        wide[start] = replace(window, start=start) if known is None else merge(known, window, start)
    return {start: wide[start] for start in sorted(wide)}


def _order(point: Point) -> tuple[float, int, float]:
    at, step, value = point
    return at, -1 if step is None else step, value


def _first_order(window: Window) -> tuple[float, int, float]:
    return _order((window.first_at or 0.0, window.first_step, window.first or 0.0))


def _last_order(window: Window) -> tuple[float, int, float]:
    return _order((window.last_at or 0.0, window.last_step, window.last or 0.0))


def _total(values: list[float]) -> float:
    try:
        total = math.fsum(min(value, _MOST) for value in values)
    except OverflowError:
        total = sum(values)
    # Infinity has no place in JSON, and infinity less infinity none in the database.
    return 0.0 if math.isnan(total) else min(max(total, -_MOST), _MOST)
