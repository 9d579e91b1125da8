"""Metrics as charts of characters, and as a table."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from astraml_ray.cli.quantities import number

__all__ = ["draw_charts", "metric_table"]

Json = Mapping[str, Any]

_HEIGHT = 16
_NARROWEST = 40
_WIDEST = 120
_MOST = 4
_TICKS = 5
_COLOURS = ("blue", "red", "green", "magenta", "cyan", "yellow")


def draw_charts(series: Sequence[Json], *, width: int, named: bool, colour: bool = True) -> list[str]:
    """A chart for each quantity, such as the loss of training and of validation together.

    Args:
        series: With at least one window each.
        width: Columns of the terminal.
        named: The user chose the series; otherwise losses come first, and what says little is left out.
        colour: Whether the terminal shows colours.

    Returns:
        The charts; none where nothing has two points, or the terminal is too narrow.
    """
    groups: dict[str, list[Json]] = {}
    for one in series:
        if len(_points(one)[0]) > 1:
            groups.setdefault(one["name"].rsplit("/", 1)[-1], []).append(one)
    chosen = list(groups.values())
    if not named:
        moving = [group for title, group in groups.items() if any(_moves(one) for one in group)]
        chosen = sorted(moving, key=lambda group: ("loss" not in group[0]["name"], group[0]["name"]))[:_MOST]
    if width < _NARROWEST:
        return []
    # The charts are an extra; the table has every number. plotext's interface differs between its versions.
    with contextlib.suppress(ImportError, AttributeError, TypeError):
        return [_chart(group, min(width, _WIDEST), colour) for group in chosen]
    return []


def metric_table(series: Sequence[Json]) -> Table:
    """Every series as a line: where it is now, its extremes, and what was not finite."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("METRIC", no_wrap=True, overflow="ellipsis", ratio=1)
    for title in ("LAST", "MIN", "MAX", "STEPS", "POINTS"):
        table.add_column(title, no_wrap=True, justify="right")
    table.add_column("NOT FINITE", no_wrap=True, style="red")
    for one in series:
        table.add_row(*(Text(cell) for cell in _row(one)))
    return table


def _row(one: Json) -> tuple[str, ...]:
    windows = one["windows"]
    last = next((w["last"] for w in reversed(windows) if w["last"] is not None), None)
    lows = [w["min"] for w in windows if w["min"] is not None]
    highs = [w["max"] for w in windows if w["max"] is not None]
    starts = [w["step_first"] for w in windows if w["step_first"] is not None]
    ends = [w["step_last"] for w in windows if w["step_last"] is not None]
    steps = f"{min(starts)}–{max(ends)}" if starts and ends else ""
    extremes = (number(min(lows)), number(max(highs))) if lows and highs else ("", "")
    return (one["name"], number(last), *extremes, steps, str(one["points"]), _not_finite(windows))


def _not_finite(windows: Sequence[Json]) -> str:
    words = []
    for name, key in (("NaN", "nan_count"), ("inf", "inf_count")):
        such = [w for w in windows if w[key]]
        if such:
            words.append(f"{sum(w[key] for w in such)} {name}, step {such[0]['step_first']}+")
    return ", ".join(words)


def _points(one: Json) -> tuple[list[float], list[float]]:
    """Steps and means. A window without a step is drawn at its place in the row."""
    xs, ys = [], []
    for place, window in enumerate(one["windows"]):
        if window["mean"] is None:
            continue
        first, last = window["step_first"], window["step_last"]
        xs.append(float(place) if first is None or last is None else (first + last) / 2)
        ys.append(float(window["mean"]))
    return xs, ys


def _moves(one: Json) -> bool:
    return len(set(_points(one)[1])) > 1


def _chart(group: Sequence[Json], width: int, colour: bool) -> str:
    plotext = importlib.import_module("plotext")
    figure = plotext.figure
    figure.clear()
    figure.theme("simple")
    figure.plot_size(width, _HEIGHT)
    names = []
    for place, one in enumerate(group):
        shade = _COLOURS[place % len(_COLOURS)]
        signal = figure.signal(*_points(one), marker=plotext.marker("hd", shade))
        signal.lines(True)
        figure.draw(signal)
        names.append(click.style(f"▚ {one['name']}", fg=shade) if colour else f"▚ {one['name']}")
    steps, values = zip(*(_points(one) for one in group), strict=True)
    _rule(figure.ruler("x"), [step for row in steps for step in row], whole=True)
    _rule(figure.ruler("y"), [value for row in values for value in row], whole=False)
    figure.label("step")
    text: str = figure.build().string(colorless=not colour)
    figure.clear()
    return "  ".join(names) + "\n" + text


def _rule(ruler: Any, values: Sequence[float], *, whole: bool) -> None:
    """Bounds and labels of an axis; what does not move is drawn in the middle."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    marks = [low + (high - low) * part / (_TICKS - 1) for part in range(_TICKS)]
    ruler.lim(low, high)
    ruler.ticks(marks, [str(round(mark)) if whole else number(float(f"{mark:.3g}")) for mark in marks])
