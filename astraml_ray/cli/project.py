"""`astraml project`: projects, who is in them, and how much they may have."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import click

from astraml_ray.cli.access_page import member_lines, project_lines, project_page, quota_lines
from astraml_ray.cli.service import Service, service_verb

__all__ = ["ROLES", "expires_option", "expiry_of", "project", "scope_options", "show_lines"]

ROLES = ("viewer", "submitter", "editor", "project_admin", "org_admin")


def scope_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --project and --organisation to a verb, which gets a `scope`: a project, or None for the organisation."""

    @click.option("--project", default=None, metavar="PROJECT", help="In this project.")
    @click.option("--organisation", is_flag=True, help="In the organisation, and so in every project.")
    @functools.wraps(function)
    def verb(*args: Any, project: str | None, organisation: bool, **kwargs: Any) -> Any:
        if (project is None) != organisation:
            raise click.UsageError("give either --project PROJECT or --organisation")
        return function(*args, scope=project, **kwargs)

    return verb


expires_option = click.option("--expires", default=None, metavar="WHEN", help="Its end: 90d, or 2027-01-31T00:00:00Z.")


def expiry_of(expires: str | None) -> dict[str, str]:
    """--expires as the API's field: a time has a T in it."""
    if expires is None:
        return {}
    return {"expires_at" if "T" in expires.upper() else "expires_in": expires}


def show_lines(lines: list[str]) -> None:
    """Prints lines."""
    for line in lines:
        click.echo(line)


@click.group()
def project() -> None:
    """Make projects, and say who may do what in them.

    \b
    astraml project create p-demo
    astraml project grant ana submitter --project p-demo
    astraml project quota --project p-demo --gpus 8
    """


@project.command()
@click.argument("project_id", metavar="PROJECT")
@click.option("--title", default=None, help="For people.")
@service_verb
def create(project_id: str, title: str | None, service: Service) -> None:
    """Make a project."""
    made = service.client.projects.create(project_id, title=title)
    if service.json:
        service.print_json(made)
        return
    click.echo(f"{made['id']} is there")
    service.note(f"next: astraml project grant SUBJECT submitter --project {made['id']}")


@project.command("list")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="How many at most.")
@service_verb
def list_projects(limit: int, service: Service) -> None:
    """List your projects, and what you are in each."""
    found = service.client.projects.list(limit=limit + 1)
    projects = list(itertools.islice(found, limit))
    more = next(found, None) is not None
    if service.json:
        service.print_json({"data": projects, "has_more": more})
        return
    if not projects:
        click.echo("you are in no project; ask a project_admin for a role, or make one: astraml project create PROJECT")
        return
    show_lines(project_lines(projects))
    if more:
        service.note(f"there are more: --limit {limit * 5}")


@project.command()
@click.argument("project_id", metavar="PROJECT")
@service_verb
def show(project_id: str, service: Service) -> None:
    """Show a project, what you may do there, and its quota."""
    _show(service.client.projects.get(project_id), service, project_page)


@project.command()
@scope_options
@service_verb
def members(scope: str | None, service: Service) -> None:
    """List who has a role."""
    found = list(service.client.projects.members(scope))
    _show({"data": found}, service, lambda page: member_lines(page["data"]) if found else ["nobody has a role there"])


@project.command()
@click.argument("subject")
@click.argument("role", type=click.Choice(ROLES))
@scope_options
@click.option("--permission", "permissions", multiple=True, help="Besides the role; may be repeated.")
@expires_option
@service_verb
def grant(
    subject: str, role: str, scope: str | None, permissions: tuple[str, ...], expires: str | None, service: Service
) -> None:
    """Give someone a role, in place of the one they have.

    \b
    astraml project grant ana editor --project p-demo --permission secret.manage --expires 30d
    """
    made = service.client.projects.grant(scope, subject, role, permissions=permissions, **expiry_of(expires))
    _show(made, service, lambda member: [f"{member['subject']} is {member['role']} {_where(scope)}"])


@project.command()
@click.argument("subject")
@scope_options
@service_verb
def revoke(subject: str, scope: str | None, service: Service) -> None:
    """Take someone's role."""
    had = service.client.projects.revoke(scope, subject)
    _show(had or {}, service, lambda _: [f"{subject} has no role {_where(scope)} any more"])


@project.command()
@click.argument("project_id", metavar="PROJECT")
@service_verb
def archive(project_id: str, service: Service) -> None:
    """Close a project for new jobs.

    What is there stays readable, and jobs that run go on.
    """
    found = service.client.projects.archive(project_id)
    _show(found, service, lambda one: [f"{one['id']} is archived; undo it: astraml project reopen {one['id']}"])


@project.command()
@click.argument("project_id", metavar="PROJECT")
@service_verb
def reopen(project_id: str, service: Service) -> None:
    """Open an archived project again."""
    _show(service.client.projects.reopen(project_id), service, lambda one: [f"{one['id']} takes jobs"])


@project.command()
@scope_options
@click.option("--gpus", "gpus_at_once", default=None, metavar="N|none", help="GPUs at once.")
@click.option("--jobs", "jobs_at_once", default=None, metavar="N|none", help="Running jobs at once.")
@click.option("--gpu-hours", "gpu_hours_per_week", default=None, metavar="H|none", help="GPU-hours in seven days.")
@service_verb
def quota(scope: str | None, service: Service, **given: str | None) -> None:
    """Show a quota, or change bounds of it.

    Bounds that are not named stay as they are; `none` takes one away.
    """
    changes = {name: _bound(name, text) for name, text in given.items() if text is not None}
    found = service.client.projects.quota(scope)
    if changes:
        found = service.client.projects.set_quota(scope, **{**{name: found[name] for name in given}, **changes})
    _show(found, service, quota_lines)


def _bound(name: str, text: str) -> Any:
    if text.lower() == "none":
        return None
    try:
        return float(text) if name == "gpu_hours_per_week" else int(text)
    except ValueError:
        raise click.UsageError(f"{text!r} is no number, and not none") from None


def _where(scope: str | None) -> str:
    return "in the organisation" if scope is None else f"in project {scope}"


def _show(found: dict[str, Any], service: Service, lines: Callable[[dict[str, Any]], list[str]]) -> None:
    if service.json:
        service.print_json(found)
    else:
        show_lines(lines(found))
