"""Jobs as rich shows them: a page of one, a table of many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from astraml_ray.cli.advice import explain_job
from astraml_ray.cli.quantities import age, clock, eta, number, printable, seconds_between, span

__all__ = ["job_page", "job_table"]

Json = Mapping[str, Any]

_TITLES = ("ID", "STATUS", "DONE", "AGE", "PROJECT", "NAME, REASON")
_GAP = 2
_LONGEST_PROJECT = 16
_SHORTEST_NAME = 12
_STYLES = {
    "queued": "yellow",
    "starting": "cyan",
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "magenta",
}


def _status(job: Json) -> Text:
    return Text(job["status"], style=_STYLES.get(job["status"], ""))


def job_table(jobs: Sequence[Json], width: int) -> Table:
    """A line each, within a width: ids are never cut, names are."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    for title in _TITLES:
        table.add_column(title, no_wrap=True)
    rows = [_row(job) for job in jobs]
    used = sum(max(len(title), *(len(row[at]) for row in rows)) + _GAP for at, title in enumerate(_TITLES[:-1]))
    for row in rows:
        row[-1].truncate(max(_SHORTEST_NAME, width - used - _GAP), overflow="ellipsis")
        table.add_row(*row)
    return table


def _row(job: Json) -> list[Text]:
    project = Text(job["project_id"])
    project.truncate(_LONGEST_PROJECT, overflow="ellipsis")
    name = Text(", ".join(filter(None, [job["name"], job["reason"]])))
    return [Text(job["id"]), _status(job), Text(_share(job)), Text(age(job["created_at"])), project, name]


def job_page(job: Json, address: str) -> RenderableType:
    """All that people want to know of a job at a service."""
    spec = job["spec"]
    head = Text.assemble((job["id"], "bold"), "  ", _status(job), f"  {_why(job)}")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in _facts(job, spec, address):
        grid.add_row(name, value if isinstance(value, Text) else Text(str(value)))
    parts: list[RenderableType] = [head, Padding(grid, (0, 0, 0, 2))]
    for title, style, lines in _notes(job):
        parts.append(Text(title, style=style))
        parts += [Padding(Text(line), (0, 0, 0, 2)) for line in lines]
    progress = job["progress"]
    if progress and progress["fraction"] is not None and not job["terminal"]:
        bar = Table.grid(padding=(0, 2))
        bar.add_row(ProgressBar(total=1.0, completed=progress["fraction"], width=30), Text(_progress_words(progress)))
        parts.insert(1, Padding(bar, (0, 0, 0, 2)))
    return Group(*parts)


def _share(job: Json) -> str:
    progress = job["progress"]
    if job["status"] == "succeeded" or not progress or progress["fraction"] is None:
        return ""
    return f"{progress['fraction']:.0%}"


def _why(job: Json) -> str:
    parts = [job["reason"], job["message"] if job["error"] is None else None]
    if job["cancel_requested"] and not job["terminal"]:
        parts.append("is being stopped")
    return ": ".join(printable(str(part)) for part in parts if part)


def _progress_words(progress: Json) -> str:
    words = [f"{progress['fraction']:.0%}"]
    if (trials := progress.get("trials")) is not None:
        words.append(f"{trials['ended']} of {trials['planned'] or '?'} trials")
    else:
        words.append(f"step {progress['step']}/{progress['total_steps']}")
    if progress["epoch"] is not None and progress["epochs"] is not None:
        words.append(f"epoch {progress['epoch']:.2f}/{progress['epochs']:g}")
    words.append(eta(progress["eta_s"]))
    return "  ".join(filter(None, words))


def _facts(job: Json, spec: Json, address: str) -> list[tuple[str, Any]]:
    name = f"  name {job['name']}" if job["name"] else ""
    facts: list[tuple[str, Any]] = [
        ("project", f"{job['project_id']}{name}  priority {job['priority']}"),
        ("model", spec["model"]["name"]),
        ("dataset", spec["dataset"].get("path") or spec["dataset"].get("train")),
        ("batch", f"{job['effective_batch_size']} rows a step"),
    ]
    if job["labels"]:
        facts.append(("labels", "  ".join(f"{key}={value}" for key, value in sorted(job["labels"].items()))))
    if job["parent_id"]:
        facts.append((f"{job['relation']} of", job["parent_id"]))
    if job.get("schedule_id"):
        facts.append(("schedule", f"{job['schedule_id']}, for {clock(job['scheduled_time'])}"))
    facts.append(("created", f"{clock(job['created_at'])}, {age(job['created_at'])} ago"))
    waited = seconds_between(job["created_at"], job["started_at"])
    if waited is not None:
        facts.append(("started", f"{clock(job['started_at'])}, after {span(waited)}; attempt {job['attempts']}"))
    took = seconds_between(job["started_at"] or job["created_at"], job["finished_at"])
    if took is not None:
        facts.append(("ended", f"{clock(job['finished_at'])}, after {span(took)}"))
    metrics = (job["result"] or {}).get("metrics") or (job["progress"] or {}).get("metrics") or {}
    if metrics:
        facts.append(("metrics", "\n".join(f"{key} {number(value)}" for key, value in sorted(metrics.items()))))
    if (best := (job["result"] or {}).get("best_step")) is not None:
        facts.append(("best step", best))
    facts += [(title, job[key]) for title, key in (("run", "run_path"), ("published", "model_path")) if job[key]]
    facts.append(("link", f"{address}{job['links']['self']}"))
    return facts


def _notes(job: Json) -> list[tuple[str, str, list[str]]]:
    notes = []
    told = explain_job(job)
    if job["status"] == "queued":
        notes.append(("waits", "yellow", [told["summary"], *([told["hint"]] if told["hint"] else [])]))
    if job["error"]:
        hint = [f"→ {told['hint']}"] if told["hint"] else []
        notes.append(("error", "red", [told["summary"], *told["where"], *hint]))
    if job["warnings"]:
        lines = [_warning(warning) for warning in job["warnings"]]
        notes.append(("warnings", "yellow", lines))
    return notes


def _warning(warning: Json) -> str:
    where = f"{warning['param']}: " if warning.get("param") else ""
    hint = f" → {warning['hint']}" if warning.get("hint") else ""
    return f"{where}{warning['message']}{hint}"
