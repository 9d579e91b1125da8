"""A sweep as one HTML page that needs no network: charts, and a table that is there without scripts too. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from astraml_ray.cli.quantities import clock, number, printable, span
from astraml_ray.cli.sweep_page import cost_words, count_words, short_names, why_words

__all__ = ["sweep_html"]

Json = Mapping[str, Any]

_DRAWN = (
    "trial_id",
    "number",
    "status",
    "parameters",
    "best_metric",
    "step",
    "reason",
    "history",
)
_PLACE = re.compile("@([A-Z]+)@")


def sweep_html(sweep: Json, trials: Sequence[Json]) -> str:
    """The page.

    Args:
        sweep: As the API has it.
        trials: All of its trials, with their histories.
    """
    metric = str(sweep["metric"] or "the metric")
    aim = f"{metric} of {len(trials)} trial{'s' if len(trials) != 1 else ''}"
    how = " and ".join(filter(None, [sweep["algorithm"], sweep["scheduler"]]))
    parts = {
        "TITLE": escape(f"{sweep['job_id']}: {aim}"),
        "AIM": escape(aim),
        "SUB": escape(f"{sweep['job_id']} {sweep['status']}" + (f", by {how}" if how else "")),
        "FACTS": "\n".join(_facts(sweep, trials)),
        "TABLE": _table(sweep, trials),
        "FOOT": escape(_foot(trials)),
        "DATA": _script_data(sweep, trials, metric),
        "CSS": _part("sweep.css"),
        "JS": _part("sweep.js"),
    }
    # In one go: what is put in may look like a place itself.
    return _PLACE.sub(lambda match: parts[match[1]], _part("sweep.html"))


def _part(name: str) -> str:
    return (files("astraml_ray.cli") / "plots" / name).read_text(encoding="utf-8").strip()


def _script_data(sweep: Json, trials: Sequence[Json], metric: str) -> str:
    """JSON that is safe inside a script element."""
    data = {
        "metric": metric,
        "mode": sweep["mode"] or "min",
        "best": (sweep["best"] or {}).get("trial_id"),
        "parameters": list(sweep["parameters"]),
        "trials": [{name: trial[name] for name in _DRAWN} for trial in trials],
    }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _facts(sweep: Json, trials: Sequence[Json]) -> Iterable[str]:
    best = sweep["best"]
    if best is not None:
        at = "" if best["best_step"] is None else f" at step {best['best_step']}"
        yield _fact("Best value", number(best["best_metric"]), f"{best['trial_id']}{at}, {best['status']}")
    yield _fact("Trials", str(max(len(trials), sweep["planned"] or 0)), count_words(sweep).partition(": ")[2])
    told = cost_words(sweep["cost"]).split(", ")
    dearest = next(words for words in told if words.endswith("-hours"))
    yield _fact("Cost", dearest, ", ".join(words for words in told if words != dearest))
    yield _importance(sweep)


def _fact(title: str, big: str, small: str) -> str:
    return f'<div class="fact"><h3>{escape(title)}</h3><div class="big">{escape(big)}</div><p>{escape(small)}</p></div>'


def _importance(sweep: Json) -> str:
    shares = [one for one in sweep["parameters"] if one["importance"] is not None]
    told = sweep["importance"]
    if not shares:
        return f'<div class="fact wide"><h3>What matters</h3><p>Not known: {escape(told["reason"] or "")}.</p></div>'
    names = short_names([one["path"] for one in sweep["parameters"]])
    rows = "".join(
        f'<dt title="{escape(one["path"])}">{escape(names[one["path"]])}</dt>'
        f'<dd class="bar"><i style="width:{100 * one["importance"]:.1f}%"></i></dd>'
        f'<dd class="share">{one["importance"]:.0%}</dd>'
        for one in shares
    )
    title = f"What matters (PED-ANOVA over {told['trials']} trials)"
    return f'<div class="fact wide"><h3>{escape(title)}</h3><dl>{rows}</dl></div>'


def _table(sweep: Json, trials: Sequence[Json]) -> str:
    paths = [one["path"] for one in sweep["parameters"]]
    names = short_names(paths)
    best = (sweep["best"] or {}).get("trial_id")
    head = "".join(
        f'<th scope="col"{_class(title)} title="{escape(hint)}">{escape(title)}</th>'
        for title, hint in (
            ("trial", "Its id"),
            ("value", "The best one"),
            *((names[path], path) for path in paths),
            ("step", "The last one"),
            ("rung", "How often it was let go on"),
            ("time", "Of this trial"),
            ("status", ""),
            ("why", "Why it ended"),
        )
    )
    sign = -1 if sweep["mode"] == "max" else 1
    ranked = sorted(trials, key=lambda t: (t["best_metric"] is None, sign * (t["best_metric"] or 0.0), t["number"]))
    rows = "\n".join(_row(trial, paths, best) for trial in ranked)
    return f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>"


def _class(title: str) -> str:
    return ' class="n"' if title in ("value", "step", "rung", "time") else ""


def _row(trial: Json, paths: Sequence[str], best: str | None) -> str:
    star = "★ " if trial["trial_id"] == best else ""
    cells = [
        f"<td>{star}{escape(trial['trial_id'])}</td>",
        _numeric(trial["best_metric"], ""),
        *(_cell(trial["parameters"].get(path)) for path in paths),
        _numeric(trial["step"], ""),
        _numeric(trial["rung"], ""),
        f'<td class="n" data-v="{trial["seconds"]}">{span(trial["seconds"])}</td>',
        f"<td>{escape(trial['status'])}</td>",
        f'<td class="why">{escape(why_words(trial))}</td>',
    ]
    classes = ' class="best"' if star else ""
    return f'<tr{classes} data-trial="{escape(trial["trial_id"])}">{"".join(cells)}</tr>'


def _numeric(value: float | None, missing: str) -> str:
    if value is None:
        return f'<td class="n" data-v="">{missing}</td>'
    return f'<td class="n" data-v="{value}">{number(value)}</td>'


def _cell(value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f'<td data-v="{value}">{number(value)}</td>'
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    return f"<td>{escape(printable(text))}</td>"


def _foot(trials: Sequence[Json]) -> str:
    starts = [trial["started_at"] for trial in trials if trial["started_at"]]
    ends = [trial["ended_at"] for trial in trials if trial["ended_at"]]
    if not starts:
        return "No trial has started yet."
    return f"Trials from {clock(min(starts))}" + (f" to {clock(max(ends))}." if ends else ".")
