"""What policies, addresses and files say of the values that a sweep would try: each of them as if it were asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from astraml_ray.access.effective import Outcome
from astraml_ray.access.fields import lookup
from astraml_ray.errors import Problem
from astraml_ray.spec.sweep import Sweep

__all__ = ["TrialRules", "sweep_problems"]

TrialRules = Callable[[Mapping[str, Any]], tuple[Outcome, list[Problem]]]
"""From one value (dotted path -> value) to the job with it under policies, and its forbidden addresses and files."""


def sweep_problems(sweep: Sweep, rules: TrialRules) -> tuple[list[Problem], list[Problem]]:
    """Values of a sweep that a job could not be made with.

    A sweep is not to do what a job may not: its trials run as they are, past the policies.

    Args:
        sweep: Of the job; its values are valid.
        rules: What holds for one value.

    Returns:
        Breaches of policies, then forbidden targets; each under the parameter.
    """
    breaches: dict[Problem, None] = {}
    targets: dict[Problem, None] = {}
    for path, value in _probes(sweep):
        pointer = f"/sweep/parameters/{path}"
        outcome, forbidden = rules({path: value})
        for problem in outcome.problems:
            message = f"with {json.dumps(value)}, {problem.param} {problem.message}"
            breaches[Problem(pointer, message, problem.hint)] = None
        for problem in forbidden:
            targets[Problem(pointer, f"{json.dumps(value)} {problem.message}", problem.hint)] = None
        made = lookup(outcome.document, tuple(path.split(".")))[1]
        if made != value and (_is_plain(value, made) or _is_set(outcome, path)) and not outcome.problems:
            message = f"{json.dumps(value)} would become {json.dumps(made)} by a policy, so it cannot vary like this"
            breaches[Problem(pointer, message, "keep to what the policy allows: `astraml policy show`")] = None
    return list(breaches), list(targets)


def _is_plain(*values: Any) -> bool:
    """Whether there are no defaults that could have been written out inside."""
    return not any(isinstance(value, dict | list) for value in values)


def _is_set(outcome: Outcome, path: str) -> bool:
    """Whether a policy has set the field, or a part of it."""
    return any(
        entry["source"].endswith((" force", " limit"))
        for name, entry in outcome.provenance.items()
        if f"{name}.".startswith(f"{path}.")
    )


def _probes(sweep: Sweep) -> Iterator[tuple[str, Any]]:
    for path, distribution in sweep.parameters.items():
        for value in distribution.probes():
            yield path, value
