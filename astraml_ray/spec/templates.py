"""The time of an occurrence in a job's name and in the places of its rows: `{{ scheduled_time }}`. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any
from zoneinfo import ZoneInfo

from astraml_ray.errors import Problem, SpecError

__all__ = ["fill_templates", "is_template", "with_templates"]

_PLACE = re.compile(r"\{\{(.*?)\}\}")
_TIME = re.compile(r"\s*scheduled_time\s*(?::(.*?))?\s*")
_FORMAT = re.compile(r"(?:%[YmdHMSjyGVuabAB]|[^%])+")  # what strftime does with others differs from system to system
_ROWS = ("path", "train", "validation", "test")


def is_template(value: Any) -> bool:
    """Whether there is anything to fill in."""
    return isinstance(value, str) and "{{" in value


def fill_templates(document: Mapping[str, Any], at: float) -> dict[str, Any]:
    """A copy of a spec with the time filled in: in its zone if a format is given, else as 20261125T205009Z.

    Raises:
        SpecError: Something else is to be filled in, or in a format that is not known.
    """
    local = datetime.fromtimestamp(at, _zone_of(document))
    problems: list[Problem] = []

    def fill(value: Any, pointer: str) -> Any:
        if not is_template(value):
            return value
        try:
            return _PLACE.sub(lambda place: _text_of(place[1], local), value)
        except ValueError as error:
            problems.append(Problem(pointer, str(error), "{{ scheduled_time }} or {{ scheduled_time:%Y-%m-%d }}"))
            return value

    filled = _mapped(document, fill)
    if problems:
        raise SpecError(problems)
    return filled


def with_templates(filled: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """A spec as it was checked with a time filled in, with its templates again."""
    given = {**document, "dataset": _rows_of(document.get("dataset"))}

    def restore(value: Any, pointer: str) -> Any:
        place: Any = given
        for name in pointer.split("/")[1:]:
            place = place.get(name) if isinstance(place, Mapping) else None
        return place if is_template(place) else value

    return _mapped({**filled, "dataset": _rows_of(filled.get("dataset"))}, restore)


def _mapped(document: Mapping[str, Any], change: Any) -> dict[str, Any]:
    """A copy with every field changed that may have a template."""
    copy = dict(document)
    if "name" in copy:
        copy["name"] = change(copy["name"], "/name")
    rows = copy.get("dataset")
    if isinstance(rows, Mapping):
        copy["dataset"] = {
            name: change(value, f"/dataset/{name}") if name in _ROWS else value for name, value in rows.items()
        }
    elif rows is not None:
        copy["dataset"] = change(rows, "/dataset")
    return copy


def _rows_of(dataset: Any) -> Any:
    return {"path": dataset} if isinstance(dataset, str) else dataset


def _text_of(place: str, local: datetime) -> str:
    match = _TIME.fullmatch(place)
    if match is None:
        raise ValueError(f"there is nothing to fill in for {place.strip()[:80]!r}")
    if match[1] is None:
        return local.astimezone(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    if not _FORMAT.fullmatch(match[1]):
        raise ValueError(
            f"{match[1][:80]!r} is no format of a time; known: %Y %m %d %H %M %S %j %y %G %V %u %a %b %A %B"
        )
    return local.strftime(match[1])


def _zone_of(document: Mapping[str, Any]) -> ZoneInfo:
    """The zone of the spec's schedule; what is wrong with it is told when the spec is read."""
    schedule = document.get("schedule")
    name = schedule.get("timezone") if isinstance(schedule, Mapping) else None
    try:
        return ZoneInfo(name if isinstance(name, str) else "UTC")
    except (KeyError, ValueError, OSError):
        return ZoneInfo("UTC")
