"""Queries are read strictly: what a route does not know is refused, and not passed over."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute

from astraml_ray.api.errors import ParameterError
from astraml_ray.api.problems import did_you_mean
from astraml_ray.errors import Problem

__all__ = ["strict_query"]


async def strict_query(request: Request) -> None:
    """Refuses parameters that the route does not know, and single ones that are there twice.

    Raises:
        ParameterError: With all of them.
    """
    given = request.query_params.multi_items()
    if not given:
        return
    route: APIRoute = request.scope["route"]
    fields = {field.alias: field for field in route.dependant.query_params}
    problems = [
        Problem(name[:200], f"unknown parameter {name[:200]!r}", did_you_mean(name, sorted(fields)))
        for name in dict.fromkeys(name for name, _ in given)
        if name not in fields
    ]
    for name, field in fields.items():
        times = sum(name == other for other, _ in given)
        if times > 1 and not _takes_list(field):
            problems.append(Problem(name, f"{name} is there {times} times", "give it once"))
    if problems:
        raise ParameterError.of(problems)


def _takes_list(field: Any) -> bool:
    return "list" in str(field.field_info.annotation)
