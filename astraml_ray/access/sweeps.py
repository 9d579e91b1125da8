"""What policies, addresses and files say of the values that a sweep would try: each of them as if it were asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from astraml_ray.access.effective import Outcome
from astraml_ray.access.fields import lookup
from astraml_ray.errors import Problem
from astraml_ray.spec.sweep import Sweep
from astraml_ray.spec.sweep_checks import combinations

__all__ = ["TrialRules", "sweep_problems"]

TrialRules = Callable[[Mapping[str, Any]], tuple[Outcome, list[Problem]]]
"""From values (dotted path -> value) to the job with them under policies, and its forbidden addresses and files."""


def sweep_problems(sweep: Sweep, rules: TrialRules) -> tuple[list[Problem], list[Problem]]:
    """Values of a sweep that a job could not be made with.

    A sweep is not to do what a job may not: its trials run as they are, past the policies.

    Args:
        sweep: Of the job; its values are valid.
        rules: What holds for a trial.

    Returns:
        Breaches of policies, then forbidden targets; each under the parameter, or of what is wrong only together,
        under all of them.
    """
    breaches, targets = _of_each(sweep, rules)
    return (breaches, targets) if breaches or targets else _of_some_together(sweep, rules)


def _of_each(sweep: Sweep, rules: TrialRules) -> tuple[list[Problem], list[Problem]]:
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
        made = _changed(outcome, path, value)
        if made is not None and not outcome.problems:
            message = f"{json.dumps(value)} would become {made} by a policy, so it cannot vary like this"
            breaches[Problem(pointer, message, "keep to what the policy allows: `astraml policy show`")] = None
    return list(breaches), list(targets)


def _of_some_together(sweep: Sweep, rules: TrialRules) -> tuple[list[Problem], list[Problem]]:
    """The first combination that is wrong: one is enough to know of."""
    pointer = "/sweep/parameters"
    for values in combinations(sweep):
        told = "together, " + ", ".join(f"{path}={json.dumps(value)}" for path, value in values.items())
        outcome, forbidden = rules(values)
        breaches = [Problem(pointer, f"{told}: {p.param} {p.message}", p.hint) for p in outcome.problems]
        for path, value in values.items():
            made = _changed(outcome, path, value)
            if made is not None and not breaches:
                breaches.append(Problem(pointer, f"{told}: a policy would make {path} {made}"))
        targets = [Problem(pointer, f"{told}: {p.param} {p.message}", p.hint) for p in forbidden]
        if breaches or targets:
            return breaches, targets
    return [], []


def _changed(outcome: Outcome, path: str, value: Any) -> str | None:
    """What a policy makes of a value; None if it leaves it."""
    made = lookup(outcome.document, tuple(path.split(".")))[1]
    return json.dumps(made) if made != value and (_is_plain(value, made) or _is_set(outcome, path)) else None


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
