"""A sweep as rich shows it: how it goes, its trials, and what matters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from astraml_ray.cli.quantities import number, printable, span
from astraml_ray.spec.documents import changed

__all__ = ["best_words", "cost_words", "count_words", "short_names", "spec_of_trial", "sweep_page", "why_words"]

Json = Mapping[str, Any]

_GAP = 2
_BAR = 30
_SHORTEST_WHY = 12
_LONGEST_VALUE = 20
_DISPENSABLE = ("EPOCH", "RUNG", "COST", "STEP")
"""Columns that go where the terminal is too narrow, the first one first."""
_STYLES = {"running": "cyan", "succeeded": "green", "failed": "red", "cancelled": "magenta", "stopped": "yellow"}


def sweep_page(sweep: Json, width: int) -> RenderableType:
    """All that people want to know of a sweep.

    Args:
        sweep: As the API has it, with `trials`: those to be shown, in their order.
        width: Columns of the terminal.
    """
    how = " + ".join(filter(None, [sweep["algorithm"], sweep["scheduler"]]))
    lines = [
        Text.assemble((sweep["job_id"], "bold"), f"  sweep {sweep['status']}  {how}".rstrip()),
        Text(f"  {sweep['mode'] or 'best'} {sweep['metric'] or 'value'} over {count_words(sweep)}"),
        Text(f"  {cost_words(sweep['cost'])}"),
    ]
    best = sweep["best"]
    if best is not None:
        at = "" if best["best_step"] is None else f" at step {best['best_step']}"
        lines.append(Text(f"  best ★ {best['trial_id']}: {number(best['best_metric'])}{at}"))
    parts: list[RenderableType] = [*lines]
    trials = sweep["trials"]
    if trials:
        parts += [Text(), _trial_table(sweep, width)]
        left = sum(sweep["counts"].values()) - len(trials)
        parts += [Text(f"and {left} more: --limit {10 * len(trials)}", style="dim")] if left > 0 else []
    return Group(*parts, *_importance(sweep))


def count_words(sweep: Json) -> str:
    """How many trials are where."""
    counts = {status: count for status, count in sweep["counts"].items() if count}
    told = sum(counts.values())
    parts = [f"{count} {status}" for status, count in counts.items()]
    if sweep["planned"] is not None and sweep["planned"] > told and sweep["status"] in ("starting", "running"):
        parts.append(f"{sweep['planned'] - told} to come")
    return f"{max(told, sweep['planned'] or 0)} trials" + (f": {', '.join(parts)}" if parts else "")


def cost_words(cost: Json) -> str:
    """What it has taken."""
    took = "has not begun" if cost["seconds"] is None else f"took {span(cost['seconds'])}"
    together = f"{span(cost['trial_seconds'])} of trials" if cost["trial_seconds"] else ""
    gpu = f"{number(float(cost['gpu_hours']))} GPU-hours" if cost["gpu_hours"] else ""
    return ", ".join(filter(None, [took, together, gpu, f"{number(float(cost['cpu_hours']))} CPU-hours"]))


def best_words(job_id: str, trial: Json) -> str:
    """Where a spec is from."""
    value = "" if trial["best_metric"] is None else f": {number(trial['best_metric'])}"
    step = "" if trial["best_step"] is None else f" at step {trial['best_step']}"
    return f"trial {trial['trial_id']} of {job_id}, {trial['status']}{value}{step}"


def spec_of_trial(spec: Json, trial: Json) -> dict[str, Any]:
    """The job that a trial's parameters make of a sweep's spec."""
    kept = {name: value for name, value in spec.items() if name not in ("sweep", "schedule")}
    return changed(kept, trial["parameters"])


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """The last part of each path, and as much more as tells it from the others."""
    found = {}
    for path in paths:
        parts = path.split(".")
        ends = (".".join(parts[-n:]) for n in range(1, len(parts) + 1))
        found[path] = next(
            (end for end in ends if not any(o != path and f".{o}".endswith(f".{end}") for o in paths)), path
        )
    return found


def why_words(trial: Json) -> str:
    """Why a trial ended, on one line."""
    message = (trial["error"] or {}).get("message")
    return " ".join(printable(": ".join(str(part) for part in (trial["reason"], message) if part)).split())


def _trial_table(sweep: Json, width: int) -> Table:
    paths = [one["path"] for one in sweep["parameters"]]
    names = short_names(paths)
    best = (sweep["best"] or {}).get("trial_id")
    rows = [_row(trial, names, best) for trial in sweep["trials"]]
    columns = {title: [row[title] for row in rows] for title in rows[0]}
    widths = {title: max(len(title), *(len(cell) for cell in cells)) + _GAP for title, cells in columns.items()}
    kept = [title for title in columns if title != "WHY"]
    # Then the parameters that matter least, all but the first one.
    for title in (*_DISPENSABLE, *(name.upper() for name in reversed([*names.values()][1:]))):
        if sum(widths[one] for one in kept) + _SHORTEST_WHY > width:
            kept.remove(title)
    room = max(_SHORTEST_WHY, width - sum(widths[one] for one in kept))
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    right = {"VALUE", "STEP", "EPOCH", "RUNG", "COST"}
    for title in (*kept, "WHY"):
        table.add_column(title, no_wrap=True, justify="right" if title in right else "left")
    for row, trial in zip(rows, sweep["trials"], strict=True):
        style = "bold" if trial["trial_id"] == best else ""
        styles = {"STATUS": _STYLES.get(trial["status"], "")}
        cells = [Text(row[title], style=styles.get(title, "")) for title in kept]
        why = Text(row["WHY"])
        why.truncate(room, overflow="ellipsis")
        table.add_row(*cells, why, style=style)
    return table


def _row(trial: Json, names: Mapping[str, str], best: str | None) -> dict[str, str]:
    gpu, cpu = trial["gpu_hours"], trial["cpu_hours"]
    return {
        "TRIAL": f"{'★' if trial['trial_id'] == best else ' '} {trial['trial_id']}",
        "VALUE": "" if trial["best_metric"] is None else number(trial["best_metric"]),
        **{name.upper(): _value(trial["parameters"].get(path)) for path, name in names.items()},
        "STEP": "" if trial["step"] is None else str(trial["step"]),
        "EPOCH": "" if trial["epoch"] is None else f"{trial['epoch']:.2f}",
        "RUNG": "" if trial["rung"] is None else str(trial["rung"]),
        "COST": f"{gpu:.3g} GPU-h" if gpu else f"{cpu:.3g} CPU-h",
        "STATUS": trial["status"],
        "WHY": why_words(trial),
    }


def _value(value: Any) -> str:
    text = number(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else _text(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def _text(value: Any) -> str:
    return "" if value is None else printable(value) if isinstance(value, str) else json.dumps(value)


def _importance(sweep: Json) -> list[Text]:
    shares = [one for one in sweep["parameters"] if one["importance"] is not None]
    told = sweep["importance"]
    if not shares:
        asked = told["reason"] and told["trials"]
        return [Text(f"\nwhat matters: {told['reason']}", style="dim")] if asked else []
    width = max(len(one["path"]) for one in shares)
    lines = [Text(f"\nwhat matters (PED-ANOVA over {told['trials']} trials)")]
    for one in shares:
        bar = "█" * max(1, round(_BAR * one["importance"])) if one["importance"] > 0.005 else "▏"
        share = f" {one['importance']:4.0%}"
        lines.append(Text.assemble(f"  {one['path']:{width}}  ", (f"{bar:{_BAR}}", "cyan"), share))
    return lines
