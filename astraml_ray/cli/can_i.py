"""`astraml can-i` and `astraml whoami`: what one's token may do."""

from __future__ import annotations

import click

from astraml_ray.cli.access_page import whoami_page
from astraml_ray.cli.project import scope_options, show_lines
from astraml_ray.cli.service import Service, service_verb

__all__ = ["can_i", "whoami"]

_REFUSED = 10
_VERBS = {
    "submit": "job.submit",
    "validate": "job.submit",
    "clone": "job.submit",
    "read": "job.read",
    "resume": "job.resume",
    "cancel": "job.cancel.own",
    "cancel-any": "job.cancel.any",
    "download": "artifact.read",
}


@click.command("can-i")
@click.argument("what", required=False)
@scope_options
@service_verb
def can_i(what: str | None, scope: str | None, service: Service) -> int:
    """Say whether you may do something, why, and who may.

    WHAT is submit, validate, read, resume, cancel (one's own jobs), cancel-any, clone, download, or a permission such
    as secret.use; left out, everything that you may do is listed. The exit code is 0 for yes and 10 for no.

    \b
    astraml can-i submit --project p-demo
    astraml can-i project.create --organisation
    """
    found = service.client.tokens.can_i(_VERBS.get(what, what) if what else None, project_id=scope)
    if service.json:
        service.print_json(found)
    elif what is None:
        show_lines(found["permissions"] or ["nothing"])
    else:
        click.echo(f"{'yes' if found['allowed'] else 'no'}: {found['reason']}")
        click.echo(f"  {found['permission']} is granted by: {', '.join(found['roles'])}")
    return 0 if found.get("allowed", True) else _REFUSED


@click.command()
@service_verb
def whoami(service: Service) -> None:
    """Say whom your token stands for, with which roles."""
    found = service.client.tokens.whoami()
    if service.json:
        service.print_json(found)
    else:
        show_lines(whoami_page(found))
