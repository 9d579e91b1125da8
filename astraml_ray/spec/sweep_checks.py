"""Whether every trial of a sweep would be a valid job, told before anything runs. Pure."""

from __future__ import annotations

import difflib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from astraml_ray.errors import Problem, SpecError
from astraml_ray.spec.documents import changed
from astraml_ray.spec.sweep import Distribution, Sweep

__all__ = ["combinations", "sweep_problems"]

_FIXED: Mapping[str, str] = {
    "api_version": "a sweep is of one version",
    "project_id": "a sweep belongs to one project",
    "name": "trials are named by their number",
    "schedule": "it says when the whole sweep starts",
    "env": "it is the same for all trials",
    "labels": "they are the sweep's",
    "priority": "it is the sweep's",
    "limits": "they are the sweep's",
    "resources": "all trials have the same, so that they can follow each other in one place",
    "sweep": "a sweep has no sweep inside",
    "dataset.credentials": "secrets are named once, for all trials",
    "hyperparams.early_stopping.monitor": "trials are compared by one value: set sweep.metric",
    "hyperparams.early_stopping.mode": "trials are compared one way: set sweep.mode",
}
_PBT = (
    "augmentation",
    "hyperparams.lr",
    "hyperparams.weight_decay",
    "hyperparams.adam_beta1",
    "hyperparams.adam_beta2",
    "hyperparams.adam_epsilon",
    "hyperparams.max_grad_norm",
)
_WHOLE = ("augmentation", "sampling")
"""These have fields below them, and are a name or a list all the same."""
_COMBINATIONS = 64

Parse = Callable[[Mapping[str, Any]], object]


def sweep_problems(sweep: Sweep, document: Mapping[str, Any], parse: Parse, known: list[str]) -> list[Problem]:
    """What is wrong with a sweep's parameters: every value is tried in the document, and some combinations.

    Args:
        sweep: Of the job.
        document: The whole job, valid without its sweep.
        parse: Raises a SpecError for a document that is no job.
        known: The paths of all fields.
    """
    base = {key: value for key, value in document.items() if key != "sweep"}
    problems: list[Problem] = []
    for path, distribution in sweep.parameters.items():
        problems += _of_path(path, sweep, known) or _of_values(path, distribution, base, parse)
    if problems:
        return problems
    for values in combinations(sweep):
        found = _first_problem(changed(base, values), parse)
        if found is not None:
            told = ", ".join(f"{path}={json.dumps(value)}" for path, value in values.items())
            return [Problem("/sweep/parameters", f"together, {told} are no job: {found.param}: {found.message}")]
    return []


def combinations(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """Values together: all, or of many all the first, all the last, and those of trials or drawn like them."""
    lists = [found.probes() for found in sweep.parameters.values()]
    if math.prod(map(len, lists)) <= _COMBINATIONS:
        for values in itertools.product(*lists):
            yield dict(zip(sweep.parameters, values, strict=True))
        return
    shares = [0.0, math.nextafter(1.0, 0.0)]
    for share in shares:
        yield {path: found.at(share) for path, found in sweep.parameters.items()}
    for number in range(_COMBINATIONS):
        if sweep.kind != "optuna" and number < sweep.count:
            yield sweep.point(number)
        yield {path: d.at(sweep.keyed("check", number, path).random()) for path, d in sweep.parameters.items()}


def _of_path(path: str, sweep: Sweep, known: list[str]) -> list[Problem]:
    pointer = _pointer(path)
    for fixed, why in _FIXED.items():
        if path == fixed or path.startswith(f"{fixed}."):
            return [Problem(pointer, f"cannot vary over trials: {why}")]
    if path not in known:
        close = difflib.get_close_matches(path, known, n=1, cutoff=0.6)
        ends = [name for name in known if name.rsplit(".", 1)[-1] == path.rsplit(".", 1)[-1]]
        meant = next(iter([*close, *ends]), None)
        return [Problem(pointer, "no field of a job", f"did you mean {meant}?" if meant else None)]
    inside = [name for name in known if name.startswith(f"{path}.")]
    if inside and path not in _WHOLE:
        # Rules are for fields: a value for many of them at once would get past the rules of each.
        message = "is a group of fields: vary the fields in it, by their own paths"
        return [Problem(pointer, message, f"for instance {inside[0]}")]
    if sweep.scheduler == "pbt" and path not in _PBT:
        hint = f"pbt can vary {', '.join(_PBT)}; use another scheduler for the rest"
        return [Problem(pointer, "pbt changes values in the middle of a run, and this one is set for its length", hint)]
    return []


def _of_values(path: str, distribution: Distribution, base: Mapping[str, Any], parse: Parse) -> list[Problem]:
    problems: dict[Problem, None] = {}
    for value in distribution.probes():
        found = _first_problem(changed(base, {path: value}), parse)
        if found is not None:
            problems[Problem(_pointer(path), f"{json.dumps(value)} is not valid: {found.message}", found.hint)] = None
            if distribution.choice is None:
                break  # of a range, one such value says it all
    return list(problems)


def _first_problem(document: Mapping[str, Any], parse: Parse) -> Problem | None:
    try:
        parse(document)
    except SpecError as error:
        return error.problems[0]
    return None


def _pointer(path: str) -> str:
    return f"/sweep/parameters/{path}"
