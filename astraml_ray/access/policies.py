"""Policies: what a project or the organisation sets and allows, field by field. Pure.

```yaml
rules:
  resources.gpus: {default: 1, max: 4, on_violation: clamp}
  hyperparams.lr_scheduler: {force: cosine}
  limits.max_duration: {max: 12h, reason: the nights are for the weekly runs}
  model.name: {allow: [bert-base, "our-org/*"]}
  labels.team: {require: true}
```
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field as Bounded
from pydantic import StringConstraints, ValidationError

from astraml_ray.access.denials import PolicyInvalidError
from astraml_ray.access.fields import Field, field_of, size_of, value_problem
from astraml_ray.access.globs import matches_allowed, matches_denied
from astraml_ray.errors import Problem
from astraml_ray.spec.base import SpecModel

__all__ = ["Change", "Policy", "Rule", "diff", "is_allowed", "is_denied", "parse_policy"]

_Choices = Annotated[tuple[Any, ...], Bounded(min_length=1, max_length=1000)]
_NEVER = {
    "api_version": "it says how to read the request",
    "project_id": "it says whose policy counts",
}


class Rule(SpecModel):
    """What holds for one field. Give what is wanted; null is a value, and not the same as leaving it out."""

    default: Any = None
    """Where the request says nothing."""
    force: Any = None
    """Whatever the request says."""
    min: int | float | str | None = None
    """The least: a number, or a duration such as "30m"."""
    max: int | float | str | None = None
    """The most: a number, or a duration such as "12h"."""
    allow: _Choices | None = None
    """The only values there may be; `*` stands for any run of characters."""
    deny: _Choices | None = None
    """Values that may not be; `*` stands for any run of characters."""
    require: bool = False
    """Someone must set it: the request, or a default or forced value of a policy."""
    on_violation: Literal["reject", "clamp"] = "reject"
    """What happens to a value outside `min` and `max`: the job is refused, or the value is moved to the bound."""
    reason: Annotated[str, StringConstraints(max_length=500)] | None = None
    """Shown to whom it hits."""

    def sets(self, verb: str) -> bool:
        """Whether the rule has that verb at all."""
        return verb in self.model_fields_set


class Policy(SpecModel):
    """The rules of one scope, by dotted path of the field."""

    rules: dict[Annotated[str, StringConstraints(min_length=1, max_length=200)], Rule] = Bounded(
        default={}, max_length=500
    )

    def document(self) -> dict[str, Any]:
        """Plain JSON data: what was given, and no more."""
        return self.model_dump(mode="json", exclude_unset=True)


@dataclass(frozen=True)
class Change:
    """One verb of one field that two policies say differently; absent is not there, which null is not."""

    path: str
    verb: str
    before: tuple[Any, ...]
    after: tuple[Any, ...]

    def __str__(self) -> str:
        if not self.before:
            return f"{self.path}: {self.verb} {_text(self.after[0])} added"
        if not self.after:
            return f"{self.path}: {self.verb} {_text(self.before[0])} taken away"
        return f"{self.path}: {self.verb} {_text(self.before[0])} → {_text(self.after[0])}"


def parse_policy(document: Mapping[str, Any]) -> Policy:
    """Reads a policy, and checks its paths and values against the fields of a job.

    Raises:
        PolicyInvalidError: With every problem found, each under its JSON pointer.
    """
    try:
        policy = Policy.model_validate_json(json.dumps(document, default=str))
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        problems = [Problem(_pointer(*map(str, d["loc"])), d["msg"][0].lower() + d["msg"][1:]) for d in details]
        raise PolicyInvalidError(problems) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise PolicyInvalidError([Problem("", f"is not plain data: {error}")]) from error
    problems = [problem for path, rule in policy.rules.items() for problem in _problems(path, rule)]
    if problems:
        raise PolicyInvalidError(problems)
    return policy


def diff(before: Policy | None, after: Policy | None) -> list[Change]:
    """What the second policy says differently, by path and verb; no policy says nothing."""
    one, two = (policy.document().get("rules", {}) if policy else {} for policy in (before, after))
    changes = []
    for path in sorted({*one, *two}):
        was, now = one.get(path, {}), two.get(path, {})
        for verb in Rule.model_fields:
            values = [(rule[verb],) if verb in rule else () for rule in (was, now)]
            if _text(values[0]) != _text(values[1]):
                changes.append(Change(path, verb, values[0], values[1]))
    return changes


def is_allowed(rule: Rule, value: Any) -> bool:
    """Whether `allow` lets a value through."""
    return rule.allow is None or any(_is(value, choice, denied=False) for choice in rule.allow)


def is_denied(rule: Rule, value: Any) -> bool:
    """Whether `deny` keeps a value out."""
    return rule.deny is not None and any(_is(value, choice, denied=True) for choice in rule.deny)


def _is(value: Any, choice: Any, *, denied: bool) -> bool:
    if isinstance(value, str) and isinstance(choice, str):
        return matches_denied(value, choice) if denied else matches_allowed(value, choice)
    return _text(value) == _text(choice)


def _problems(path: str, rule: Rule) -> list[Problem]:
    """Everything wrong with a rule."""
    if path in _NEVER:
        return [Problem(_pointer("rules", path), f"a policy cannot speak of {path}: {_NEVER[path]}")]
    try:
        field = field_of(path)
    except ValueError as error:
        return [Problem(_pointer("rules", path), str(error))]
    found = [*_value_problems(field, rule), *_bound_problems(field, rule), *_choice_problems(field, rule)]
    found = list({verb: (verb, message) for verb, message in reversed(found)}.values())  # one of each verb
    if not found:
        found = _contradictions(field, rule)
    if not any(rule.sets(verb) for verb in ("default", "force", "min", "max", "allow", "deny", "require")):
        found.append((None, "says nothing"))
    return [Problem(_pointer("rules", path, *([verb] if verb else [])), message) for verb, message in found]


_Found = list[tuple[str | None, str]]


def _value_problems(field: Field, rule: Rule) -> _Found:
    given = [(verb, getattr(rule, verb)) for verb in ("default", "force", "min", "max") if rule.sets(verb)]
    found: _Found = [
        (verb, f"{_text(value)} is no value of {field.path}: {problem}")
        for verb, value in given
        if (problem := value_problem(field, value)) is not None
    ]
    if rule.sets("default") and rule.sets("force"):
        found.append(("default", "means nothing beside `force`"))
    return found


def _bound_problems(field: Field, rule: Rule) -> _Found:
    bounds = [(verb, getattr(rule, verb)) for verb in ("min", "max") if rule.sets(verb)]
    found: _Found = []
    for verb, value in bounds:
        if field.kind not in ("number", "duration"):
            found.append((verb, f"{field.path} is no number and no duration; use `allow` or `deny`"))
        elif size_of(field, value) is None:
            found.append((verb, "must be a number" if field.kind == "number" else 'must be a duration such as "12h"'))
    if rule.on_violation == "clamp" and not bounds:
        found.append(("on_violation", "clamps to `min` or `max`, and there is neither"))
    if len(bounds) == 2 and not found:
        low, high = (size_of(field, value) for _, value in bounds)
        if low is not None and high is not None and low > high:
            found.append(("min", "is above `max`"))
    return found


def _choice_problems(field: Field, rule: Rule) -> _Found:
    given = [(verb, getattr(rule, verb)) for verb in ("allow", "deny") if getattr(rule, verb) is not None]
    if given and field.kind in ("object", "list", "mapping"):
        return [(verb, f"{field.path} is no single value; name one of its fields") for verb, _ in given]
    return [
        (verb, f"{_text(choice)} is no value of {field.path}: {problem}")
        for verb, choices in given
        for choice in choices
        if not (isinstance(choice, str) and "*" in choice) and (problem := value_problem(field, choice)) is not None
    ]


def _contradictions(field: Field, rule: Rule) -> _Found:
    """A default or forced value that the same rule would refuse."""
    found: _Found = []
    for verb in ("default", "force"):
        value = getattr(rule, verb)
        if not rule.sets(verb) or value is None:
            continue
        size = size_of(field, value)
        low, high = (size_of(field, bound) for bound in (rule.min, rule.max))
        outside = size is not None and ((low is not None and size < low) or (high is not None and size > high))
        if outside or not is_allowed(rule, value) or is_denied(rule, value):
            found.append((verb, f"{_text(value)} is refused by the rule itself"))
    return found


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _pointer(*parts: str) -> str:
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)
