"""Schedules and their occurrences as text for people. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from astraml_ray.cli.quantities import clock, printable

__all__ = ["next_lines", "occurrence_lines", "schedule_lines", "schedule_page"]

Json = Mapping[str, Any]


def schedule_lines(schedules: Iterable[Json]) -> list[str]:
    """A line each."""
    return [
        f"{one['id']}  {_status(one)}  {one['project_id']}  {_when(one)}  {printable(one['name'] or '')}".rstrip()
        for one in schedules
    ]


def schedule_page(schedule: Json) -> list[str]:
    """All about one, with its next times."""
    timing = schedule["schedule"]
    rules = [f"overlap {timing['overlap']}", f"catchup {timing['catchup']} within {timing['catchup_window']}"]
    bound = timing["pause_after_failures"]
    rules += [f"pauses after {bound} failures in a row"] if bound else []
    changed = timing.get("only_if_changed")
    rules += [f"only if the {changed} has changed"] if changed else []
    why = f": {printable(schedule['pause_reason'])}" if schedule["pause_reason"] else ""
    by = f" by {printable(schedule['paused_by'] or 'the service')}{why}" if schedule["status"] == "paused" else ""
    return [
        f"{schedule['id']} {schedule['status']}{by}",
        f"  {_when(schedule)}; {', '.join(rules)}",
        f"  of {schedule['owner']} in {schedule['project_id']}, made {clock(schedule['created_at'])}",
        *([f"  {schedule['failures']} failures in a row"] if schedule["failures"] else []),
        "next times" if schedule["next"] else "there is no next time",
        *next_lines(schedule["next"]),
    ]


def next_lines(times: Iterable[Json]) -> list[str]:
    """A line each: local time, UTC, and a mark where the clocks are changed."""
    return [
        f"  {one['local'].replace('T', ' ')}  ({one['instant'][:16].replace('T', ' ')} UTC)"
        + (f"  ! {one['mark']}" if one["mark"] else "")
        for one in times
    ]


def occurrence_lines(occurrences: Iterable[Json]) -> list[str]:
    """A line each."""
    return [
        "  ".join(
            part
            for part in (
                f"  {clock(one['instant'])}",
                f"{one['outcome']:9}",
                "" if one["kind"] == "scheduled" else one["kind"],
                one["job_id"] or "",
                printable(one["reason"] or ""),
            )
            if part
        ).rstrip()
        for one in occurrences
    ]


def _when(schedule: Json) -> str:
    return f"{schedule['schedule']['cron']} {schedule['schedule']['timezone']}"


def _status(schedule: Json) -> str:
    return f"{schedule['status']:6}"
