"""`astraml audit`: who changed what."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from astraml_ray.cli.access_page import audit_lines
from astraml_ray.cli.project import show_lines
from astraml_ray.cli.service import Service, service_verb
from astraml_ray.errors import DataError, StorageError

__all__ = ["audit"]


@click.command()
@click.option("--project", default=None, help="Only of this project. [all of the installation]")
@click.option("--actor", default=None, help="Only this person's, or service's.")
@click.option("--action", default=None, help="Only these: member.granted, or policy for all about policies.")
@click.option("--target", default=None, help="Only changes of this: a subject, a token's id ...")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many at most.")
@click.option("--export", "file", default=None, metavar="FILE|-", help="Write all of them as JSON lines, oldest first.")
@click.option("--verify", is_flag=True, help="Check that nobody altered the trail.")
@service_verb
def audit(
    project: str | None,
    actor: str | None,
    action: str | None,
    target: str | None,
    limit: int,
    file: str | None,
    verify: bool,
    service: Service,
) -> int | None:
    """Show who changed what, newest first.

    Every change of a project, role, token, policy, secret, quota, schedule or webhook is in it, each sealed by the one
    before it.
    """
    if verify:
        return _verify(service)
    terms: dict[str, Any] = {"project_id": project, "actor": actor, "action": action, "target": target}
    if file is not None:
        _export(service.client.audit.list(**terms, after=0), file, service)
        return None
    changes = list(service.client.audit.list(**terms, limit=limit))
    if service.json:
        service.print_json({"data": changes})
    elif changes:
        show_lines(audit_lines(changes))
    else:
        click.echo("there is no such change")
    return None


def _verify(service: Service) -> int:
    found = service.client.audit.verify()
    if service.json:
        service.print_json(found)
    elif found["whole"]:
        click.echo(f"the trail is whole: {found['entries']} changes")
        click.echo(f"  its seal, to be kept elsewhere: {found['seal']}")
    else:
        click.echo(f"the trail was altered: change {found['first_broken']} does not follow the one before it")
    return 0 if found["whole"] else DataError.exit_code


def _export(changes: Iterable[dict[str, Any]], file: str, service: Service) -> None:
    """Whole or not at all; to stdout as they come."""
    lines = (json.dumps(change) for change in changes)
    if file == "-":
        for line in lines:
            click.echo(line)
        return
    target = Path(file).expanduser()
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    count = 0
    try:
        with draft.open("w") as out:
            for line in lines:
                out.write(f"{line}\n")
                count += 1
        os.replace(draft, target)
    except OSError as error:
        raise StorageError(f"cannot be written: {error}", param=str(target)) from error
    finally:
        draft.unlink(missing_ok=True)
    told = {"to": str(target.absolute()), "changes": count}
    if service.json:
        service.print_json(told)
    else:
        click.echo(f"{count} changes in {told['to']}")
