"""Projects, members, tokens and changes as text for people. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from astraml_ray.cli.quantities import age, clock, number, printable

__all__ = ["audit_lines", "member_lines", "project_lines", "project_page", "quota_lines", "token_lines", "whoami_page"]

Json = Mapping[str, Any]

_LONGEST = 128
_BOUNDS = (("gpus_at_once", "gpus", "GPUs at once"), ("jobs_at_once", "jobs", "jobs at once"))


def project_lines(projects: Iterable[Json]) -> list[str]:
    """A line each."""
    rows = [
        [one["id"], one["role"] or "", "archived" if one["archived_at"] else "", one["title"] or ""] for one in projects
    ]
    return _aligned(["ID", "YOU ARE", "", "TITLE"], rows)


def project_page(project: Json) -> list[str]:
    """All about one."""
    closed = f"  archived {clock(project['archived_at'])}: it takes no new jobs" if project["archived_at"] else ""
    return [
        f"{project['id']}{closed}",
        *([f"  title    {_cut(project['title'])}"] if project["title"] else []),
        f"  made     {clock(project['created_at'])} by {printable(project['created_by'])}",
        f"  you are  {project['role'] or 'given single permissions'}",
        f"  you may  {', '.join(project['permissions'])}",
        *(f"  {line}" for line in quota_lines(project["quota"])),
    ]


def quota_lines(quota: Json) -> list[str]:
    """The bounds, and what is taken of them."""
    used = quota["used"]
    lines = [f"{number(used[taken]):>8} of {_bound(quota[name])} {title}" for name, taken, title in _BOUNDS]
    hours = f"{number(used['gpu_hours']):>8} of {_bound(quota['gpu_hours_per_week'])} GPU-hours in seven days"
    return [*lines, hours]


def member_lines(members: Iterable[Json]) -> list[str]:
    """A line each."""
    rows = [
        [
            one["subject"],
            one["role"],
            ", ".join(one["permissions"]),
            _end(one, "active" if one["active"] else "expired"),
        ]
        for one in members
    ]
    return _aligned(["SUBJECT", "ROLE", "BESIDES", "ENDS"], rows)


def token_lines(tokens: Iterable[Json]) -> list[str]:
    """A line each, without what makes it a token."""
    rows = [
        [
            one["id"],
            one["subject"],
            one["project_id"] or "everywhere",
            _powers(one),
            f"{age(one['last_used_at'])} ago" if one["last_used_at"] else "never",
            _end(one, one["status"]),
            one["note"] or "",
        ]
        for one in tokens
    ]
    return _aligned(["ID", "SUBJECT", "COUNTS IN", "ROLE", "USED", "ENDS", "NOTE"], rows)


def audit_lines(changes: Iterable[Json]) -> list[str]:
    """A line each."""
    rows = [
        [
            str(one["seq"]),
            clock(one["at"]),
            one["actor"],
            one["action"],
            one["project_id"] or "organisation",
            one["target"],
            _change(one["before"], one["after"]),
        ]
        for one in changes
    ]
    return _aligned(["SEQ", "AT", "ACTOR", "ACTION", "WHERE", "TARGET", "CHANGE"], rows)


def whoami_page(me: Json) -> list[str]:
    """Whom a token stands for."""
    end = f"until {clock(me['expires_at'])}" if me["expires_at"] else "no end"
    lines = [f"{me['subject']}  (token {me['token_id']}, {end})"]
    if me["organisation_role"]:
        lines.append(f"  {me['organisation_role']} in every project")
    for one in me["projects"]:
        held = ", ".join([*([one["role"]] if one["role"] else []), *one["permissions"]])
        lines.append(f"  {held or 'nothing'} in project {one['project_id']}")
    if len(lines) == 1:
        lines.append("  in no project yet: ask a project_admin for `astraml project grant`")
    if me["bound"]:
        lines.append(f"  the token counts in project {me['bound']} only")
    if me["scopes"] is not None:
        lines.append(f"  the token may only: {', '.join(me['scopes']) or 'nothing'}")
    return lines


def _aligned(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    shown = [[_cut(cell) for cell in row] for row in [titles, *rows]]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in shown]


def _cut(text: str) -> str:
    """On one line, and not too long; ids and names are never longer."""
    line = " ".join(printable(text).split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _end(one: Json, status: str) -> str:
    if status == "active":
        return clock(one["expires_at"]) or "never"
    return status


def _powers(token: Json) -> str:
    role = token["role"] or "the subject's"
    return role if token["permissions"] is None else f"{role}, only {', '.join(token['permissions']) or 'nothing'}"


def _bound(bound: float | None) -> str:
    return "any number of" if bound is None else number(bound)


def _change(before: Json | None, after: Json | None) -> str:
    """What is different: `role viewer → editor`; of what is new or gone, what it is or was."""
    if before is None or after is None:
        found = after or before or {}
        return ", ".join(f"{name} {_said(value)}" for name, value in found.items() if value not in (None, []))
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return ", ".join(f"{name} {_said(before.get(name))} → {_said(after.get(name))}" for name in names)


def _said(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
