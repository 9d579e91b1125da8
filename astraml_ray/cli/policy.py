"""`astraml policy`: what a project, or the organisation, sets and allows in jobs."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import click

from astraml_ray.cli.project import scope_options, show_lines
from astraml_ray.cli.quantities import clock, printable
from astraml_ray.cli.service import Service, service_verb

__all__ = ["policy"]

_note_option = click.option("--note", default=None, help="Why.")
_expected_option = click.option(
    "--expected", type=click.IntRange(0), default=None, metavar="VERSION", help="Only if this one is still in force."
)


@click.group()
def policy() -> None:
    """Say what a project's jobs get and may ask for.

    \b
    astraml policy show --project p-demo > policy.yaml
    astraml policy replay policy.yaml --project p-demo --last 500
    astraml policy set policy.yaml --project p-demo --note "fewer GPUs at night"

    A policy is YAML or JSON: rules by the dotted path of a field.

    \b
    rules:
      resources.gpus: {default: 1, max: 4, on_violation: clamp}
      model.name: {allow: [bert-base, "our-org/*"]}
    """


@policy.command()
@scope_options
@click.option("--version", type=click.IntRange(0), default=None, help="That one. [the one in force]")
@service_verb
def show(scope: str | None, version: int | None, service: Service) -> None:
    """Print a policy, as YAML that `set` takes."""
    found = service.client.policies.get(scope, version)
    if service.json:
        service.print_json(found)
        return
    import yaml

    click.echo(f"# {_title(found)}")
    click.echo(yaml.safe_dump(found["document"], sort_keys=False, allow_unicode=True), nl=False)


@policy.command("set")
@click.argument("file", metavar="FILE")
@scope_options
@_note_option
@_expected_option
@service_verb
def set_policy(file: str, scope: str | None, note: str | None, expected: int | None, service: Service) -> None:
    """Put the policy in FILE in force, as a new version."""
    _told(service.client.policies.set(scope, _read(file), note=note, expected=expected), scope, service)


@policy.command()
@scope_options
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How many at most.")
@service_verb
def versions(scope: str | None, limit: int, service: Service) -> None:
    """List the versions, newest first."""
    found = service.client.policies.versions(scope, limit=limit + 1)
    data = list(itertools.islice(found, limit))
    more = next(found, None) is not None
    if service.json:
        service.print_json({"data": data, "has_more": more})
        return
    show_lines([_title(one) for one in data] or ["there is no policy yet; write one: astraml policy set --help"])
    if more:
        service.note(f"there are more: --limit {limit * 5}")


@policy.command()
@click.argument("before", metavar="[FROM]", type=click.IntRange(0), required=False)
@click.argument("after", metavar="[TO]", type=click.IntRange(0), required=False)
@scope_options
@service_verb
def diff(before: int | None, after: int | None, scope: str | None, service: Service) -> None:
    """Say what version TO says differently from version FROM.

    Left out, TO is the newest, and FROM the one before it; 0 is before there was any.
    """
    found = service.client.policies.diff(scope, before, after)
    if service.json:
        service.print_json(found)
        return
    changes = [printable(change["text"]) for change in found["changes"]]
    show_lines(changes or [f"v{found['from']} and v{found['to']} say the same"])


@policy.command()
@click.argument("version", type=click.IntRange(1))
@scope_options
@_note_option
@_expected_option
@service_verb
def restore(version: int, scope: str | None, note: str | None, expected: int | None, service: Service) -> None:
    """Put an earlier version in force again, as a new one."""
    _told(service.client.policies.restore(scope, version, note=note, expected=expected), scope, service)


@policy.command()
@click.argument("file", metavar="FILE")
@scope_options
@click.option("--last", type=click.IntRange(1, 1000), default=100, show_default=True, help="Of so many jobs.")
@service_verb
def replay(file: str, scope: str | None, last: int, service: Service) -> None:
    """Say what the policy in FILE would have made of past jobs.

    It changes nothing.
    """
    found = service.client.policies.replay(scope, _read(file), last=last)
    if service.json:
        service.print_json(found)
        return
    click.echo(found["summary"])
    for job in found["jobs"]:
        show_lines([f"{job['job_id']} {job['outcome']}", *(f"  {line}" for line in _replayed(job))])
    if found["truncated"]:
        service.note(f"only the newest {len(found['jobs'])} of those are listed")


def _read(file: str) -> dict[str, Any]:
    """The policy of a file, as plain data.

    Raises:
        SpecError: It cannot be read or parsed.
    """
    from astraml_ray.errors import Problem, SpecError
    from astraml_ray.spec.loading import read_document

    document = read_document(Path(file))
    try:
        plain: dict[str, Any] = json.loads(json.dumps(document, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise SpecError([Problem("", f"is not plain data: {error}")], source=file) from error
    return plain


def _told(made: dict[str, Any], scope: str | None, service: Service) -> None:
    if service.json:
        service.print_json(made)
        return
    whose = "--organisation" if scope is None else f"--project {scope}"
    click.echo(f"v{made['version']} is in force for new jobs")
    service.note(f"what changed: astraml policy diff {whose}")


def _title(found: dict[str, Any]) -> str:
    if not found["version"]:
        return "v0: there is no policy yet"
    note = f": {printable(found['note'])}" if found["note"] else ""
    who = printable(found["created_by"])
    return f"v{found['version']}  {clock(found['created_at'])}  {who}{note}".replace("\n", " ")


def _replayed(job: dict[str, Any]) -> list[str]:
    changes = [f"{one['path']} {json.dumps(one['before'])} → {json.dumps(one['after'])}" for one in job["changes"]]
    return [printable(line) for line in [*changes, *(f"{p['param']}: {p['message']}" for p in job["problems"])]]
