"""From a request to the job that runs: policies laid under and over it, then their limits checked. Pure.

Lowest first: built-in, organisation default, project default, request, sweep value, project force, organisation
force. Then every limit is checked: what is outside is refused, or moved to the bound if the policy says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from astraml_ray.access.denials import PolicyInvalidError, PolicyUnreadableError, PolicyViolationError
from astraml_ray.access.draft import Draft, Origin, Source
from astraml_ray.access.fields import Field, assign, field_of, flatten, lookup, normalised, value_problem
from astraml_ray.access.measures import bounds_of, followers, measure, show
from astraml_ray.access.policies import Policy, Rule, is_allowed, is_denied, parse_policy
from astraml_ray.errors import Problem, SpecError
from astraml_ray.spec.job import JobSpec
from astraml_ray.spec.loading import parse_spec
from astraml_ray.store.access_tables import ORGANISATION
from astraml_ray.store.policies import PolicyRecord

__all__ = ["InForce", "Outcome", "apply_policies", "explain", "policy_notes", "request_of"]

_Scope = Literal["organisation", "project"]
_DEFAULT: Mapping[_Scope, Source] = {"organisation": "organisation default", "project": "project default"}
_FORCE: Mapping[_Scope, Source] = {"organisation": "organisation force", "project": "project force"}
_LIMIT: Mapping[_Scope, Source] = {"organisation": "organisation limit", "project": "project limit"}
_ROW_FIELDS = ("dataset.path", "dataset.train", "dataset.validation", "dataset.test")


@dataclass(frozen=True)
class InForce:
    """A policy, and which version of whose it is."""

    scope: _Scope
    version: int
    policy: Policy

    @classmethod
    def of(cls, record: PolicyRecord | None) -> InForce | None:
        """Of the store's row.

        Raises:
            PolicyUnreadableError: It speaks of what this release does not know.
        """
        if record is None:
            return None
        scope: _Scope = "organisation" if record.scope == ORGANISATION else "project"
        try:
            return cls(scope, record.version, parse_policy(record.document))
        except PolicyInvalidError as error:
            # A newer release wrote it. To go on without it would be to allow what it forbids.
            raise PolicyUnreadableError(
                f"{scope} policy v{record.version} cannot be read: {error.message}", hint="upgrade this process"
            ) from error

    def __str__(self) -> str:
        return f"{self.scope} policy v{self.version}"


@dataclass(frozen=True)
class Outcome:
    """What policies make of a request.

    Attributes:
        spec: The job as it would run.
        document: The same as plain data, every default written out.
        provenance: Dotted path -> `{value, source, policy_version, was?, was_source?}` of every field.
        problems: Every limit that is broken; a job that has any is refused.
    """

    spec: JobSpec
    document: dict[str, Any]
    provenance: dict[str, dict[str, Any]]
    problems: list[Problem]

    def raise_for_violations(self, within: str = "") -> None:
        """Does nothing if no limit is broken.

        Args:
            within: A JSON pointer: only of fields below it.

        Raises:
            PolicyViolationError: With all of them.
        """
        problems = [problem for problem in self.problems if f"{problem.param}/".startswith(f"{within}/")]
        if problems:
            raise PolicyViolationError(problems, hint="`astraml policy show` lists the rules")


def apply_policies(
    request: Mapping[str, Any],
    *,
    organisation: InForce | None = None,
    project: InForce | None = None,
    sweep: Mapping[str, Any] | None = None,
) -> Outcome:
    """The job that a request stands for.

    Args:
        request: The document as it was sent, of the current version.
        organisation: The organisation's policy.
        project: The project's policy.
        sweep: Dotted path -> value of one trial.

    Raises:
        SpecError: What comes out is no valid job; the hints name the policy that has a hand in it.
    """
    try:
        asked = normalised(request)
    except ValueError as error:
        raise SpecError([Problem("", f"is not plain data: {error}")], source="job") from error
    draft = Draft()
    upwards = [given for given in (organisation, project) if given]
    for given in upwards:
        for path, rule in _rules(given, "default"):
            origin = Origin(_DEFAULT[given.scope], given.version)
            draft.set_default(field_of(path), rule.default, origin, asked)
    draft.merge(asked, "request")
    for path, value in (sweep or {}).items():
        draft.set_value(_swept(path), value, Origin("sweep"))
    forced = [(given, path, rule) for given in reversed(upwards) for path, rule in _rules(given, "force")]
    _refuse_nonsense(draft, [field_of(path) for _, path, _ in forced])
    for given, path, rule in forced:
        draft.set_value(field_of(path), rule.force, Origin(_FORCE[given.scope], given.version))
    spec = _parse(draft)
    draft.document = spec.canonical()
    for given in reversed(upwards):
        _clamp(draft, given)
    spec = _parse(draft)
    draft.document = spec.canonical()
    problems = [problem for given in reversed(upwards) for problem in _violations(draft, given)]
    return Outcome(spec, draft.document, _provenance(draft), problems)


def explain(path: str, entry: Mapping[str, Any]) -> str:
    """A field's origin in words: "resources.gpus 4, capped from 8 by project policy v7"."""
    scope, _, verb = entry["source"].partition(" ")
    by = f"{scope} policy v{entry['policy_version']}"
    if verb == "limit":
        raised = isinstance(entry["value"], (int, float)) and isinstance(entry.get("was"), (int, float))
        word = "raised" if raised and entry["value"] > entry["was"] else "capped"
        how = f"{word} from {show(entry.get('was'))} by {by}"
    elif verb == "force":
        how = f"set by {by}" + (f", in place of {show(entry['was'])}" if "was" in entry else "")
    elif verb == "default":
        how = f"default of {by}"
    else:
        how = {"request": "from the request", "sweep": "from the sweep"}.get(scope, "built-in default")
    return f"{path} {show(entry['value'])}, {how}"


def policy_notes(provenance: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What policies have a hand in, in words."""
    return [explain(path, entry) for path, entry in provenance.items() if entry["policy_version"] is not None]


def request_of(provenance: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What was asked for, without what policies made of it: to ask again under other policies."""
    document: dict[str, Any] = {}
    for path, entry in provenance.items():
        if entry["source"] in ("request", "sweep"):
            assign(document, field_of(path).parts, entry["value"])
        elif entry.get("was_source") in ("request", "sweep"):
            assign(document, field_of(path).parts, entry["was"])
    return document


def _rules(given: InForce, verb: str) -> list[tuple[str, Rule]]:
    """Those with a verb, objects before their fields."""
    return sorted(
        ((path, rule) for path, rule in given.policy.rules.items() if rule.sets(verb)),
        key=lambda item: (item[0].count("."), item[0]),
    )


def _refuse_nonsense(draft: Draft, fields: list[Field]) -> None:
    """What is forced would hide that the request asks for what there cannot be."""
    found = []
    for field in fields:
        present, asked = lookup(draft.document, field.parts)
        problem = value_problem(field, asked) if present else None
        if problem is not None:
            found.append(Problem(_pointer(field), problem[0].lower() + problem[1:]))
    if found:
        raise SpecError(found, source="job")


def _swept(path: str) -> Field:
    try:
        return field_of(path)
    except ValueError as error:
        raise SpecError([Problem("/" + path.replace(".", "/"), str(error))], source="sweep") from error


def _parse(draft: Draft) -> JobSpec:
    try:
        return parse_spec(draft.document)
    except SpecError as error:
        setters = [(parts, origin) for parts, origin in draft.origins() if origin.version is not None]
        raise SpecError([_with_policy(problem, setters) for problem in error.problems], source="job") from None


def _with_policy(problem: Problem, setters: list[tuple[tuple[str, ...], Origin]]) -> Problem:
    """The problem, with the policies that set the fields it is about."""
    path = tuple(part for part in problem.param.split("/")[1:] if part)
    said = [
        f"{'.'.join(parts)} is set by {origin.source.split()[0]} policy v{origin.version}"
        for parts, origin in setters
        if parts[: len(path)] == path
    ]
    return replace(problem, hint="; ".join([*filter(None, [problem.hint]), *said[:3]])) if said else problem


def _clamp(draft: Draft, given: InForce) -> None:
    for path, rule in sorted(given.policy.rules.items()):
        field = field_of(path)
        if rule.on_violation != "clamp" or not lookup(draft.document, field.parts)[0]:
            continue
        # What the organisation forces is no project's to move.
        if given.scope == "project" and draft.origin(field.parts).source == "organisation force":
            continue
        size, (low, high) = measure(field, draft.document), bounds_of(field, rule)
        if size is not None and size > high:
            _move(draft, field, rule.max, given)
        elif size is not None and size < low:
            _move(draft, field, rule.min, given)


def _move(draft: Draft, field: Field, bound: Any, given: InForce) -> None:
    for moved, value in [*followers(field, bound, draft.document), (field, bound)]:
        if lookup(draft.document, moved.parts)[1] != value:
            draft.set_value(moved, value, Origin(_LIMIT[given.scope], given.version))


def _violations(draft: Draft, given: InForce) -> list[Problem]:
    found: list[Problem] = []
    for path, rule in given.policy.rules.items():
        field = field_of(path)
        present, value = lookup(draft.document, field.parts)
        if rule.require and (not present or value in (None, "") or not draft.is_given(field.parts)):
            found.append(_problem(field, f"is required by {given}", rule, None))
            continue
        if present:
            found += _out_of_bounds(draft, given, field, rule)
        for other in _covered(path, given.policy):
            found += _not_among(draft, given, field_of(other), rule)
    return found


def _covered(path: str, policy: Policy) -> list[str]:
    """The fields that a rule's choices hold for: those for `dataset.path` hold wherever rows are named."""
    if path != "dataset.path":
        return [path]
    own = {name for name, rule in policy.rules.items() if rule.allow is not None or rule.deny is not None}
    return [name for name in _ROW_FIELDS if name == path or name not in own]


def _not_among(draft: Draft, given: InForce, field: Field, rule: Rule) -> list[Problem]:
    present, value = lookup(draft.document, field.parts)
    if not present:
        return []
    said = f"is {show(value)} ({draft.origin(field.parts).source}); {given}"
    if is_denied(rule, value):
        return [_problem(field, f"{said} does not allow that", rule, None)]
    if value is not None and not is_allowed(rule, value):
        choices = ", ".join(show(choice) for choice in (rule.allow or ())[:10])
        return [_problem(field, f"{said} allows {choices}", rule, None)]
    return []


def _out_of_bounds(draft: Draft, given: InForce, field: Field, rule: Rule) -> list[Problem]:
    size, (low, high) = measure(field, draft.document), bounds_of(field, rule)
    if size is None or low <= size <= high:
        return []
    value = lookup(draft.document, field.parts)[1]
    said = "is not set, which is no limit" if size == math.inf else f"is {show(value)}"
    if value == "auto":
        said += f", which is {size:g} here"
    bound = f"at most {show(rule.max)}" if size > high else f"at least {show(rule.min)}"
    source = draft.origin(field.parts).source
    return [_problem(field, f"{said} ({source}); {given} allows {bound}", rule, f"set it to {bound}")]


def _problem(field: Field, message: str, rule: Rule, hint: str | None) -> Problem:
    return Problem(_pointer(field), message, rule.reason or hint)


def _pointer(field: Field) -> str:
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in field.parts)


def _provenance(draft: Draft) -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}
    for parts, value in flatten(draft.document).items():
        origin = draft.origin(parts)
        entry = {"value": value, "source": origin.source, "policy_version": origin.version}
        if origin.was:
            entry |= {"was": origin.was[0], "was_source": origin.was_source}
        entries[".".join(parts)] = entry
    return entries
