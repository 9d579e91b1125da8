"""`astraml token`: make, list and revoke tokens."""

from __future__ import annotations

import click

from astraml_ray.cli.access_page import token_lines
from astraml_ray.cli.project import ROLES, expires_option, expiry_of, show_lines
from astraml_ray.cli.quantities import clock
from astraml_ray.cli.service import Service, service_verb

__all__ = ["token"]


@click.group()
def token() -> None:
    """Make, list and revoke tokens.

    \b
    TOKEN=$(astraml token create --expires 90d)
    TOKEN=$(astraml token create --service ci --role submitter --project p-demo)
    """


@token.command()
@click.option("--subject", default=None, help="Whose it is. [you]")
@click.option("--service", "name", default=None, metavar="NAME", help="For a service, with a role of its own.")
@click.option("--role", type=click.Choice(ROLES), default=None, help="Of the service.")
@click.option("--project", default=None, help="The only project where it counts.")
@click.option("--permission", "permissions", multiple=True, help="Only this one of its roles'; may be repeated.")
@expires_option
@click.option("--note", default=None, help="For people.")
@service_verb
def create(
    subject: str | None,
    name: str | None,
    role: str | None,
    project: str | None,
    permissions: tuple[str, ...],
    expires: str | None,
    note: str | None,
    service: Service,
) -> None:
    """Make a token, and print it: it is shown this once."""
    if (name is None) != (role is None):
        raise click.UsageError("--service and --role go together; a person's token has the person's roles")
    made = service.client.tokens.create(
        subject=subject,
        service=name,
        role=role,
        project_id=project,
        permissions=permissions or None,
        note=note,
        **expiry_of(expires),
    )
    if service.json:
        service.print_json(made)
        return
    where = f"in project {project}" if project else "wherever its roles are"
    end = f"until {clock(made['expires_at'])}" if made["expires_at"] else "without an end"
    service.note(f"token {made['id']} of {made['subject']} counts {where}, {end}")
    service.note("it is shown this once; the service keeps only its digest:")
    click.echo(made["token"])


@token.command("list")
@click.option("--project", default=None, help="Those of this project.")
@click.option("--organisation", is_flag=True, help="Everyone's.")
@click.option("--all", "dead_too", is_flag=True, help="Revoked and expired ones too.")
@service_verb
def list_tokens(project: str | None, organisation: bool, dead_too: bool, service: Service) -> None:
    """List tokens, newest first; without an option your own."""
    if project is not None and organisation:
        raise click.UsageError("give either --project PROJECT or --organisation")
    found = service.client.tokens.list(project_id=project, organisation=organisation)
    tokens = [one for one in found if dead_too or one["status"] == "active"]
    if service.json:
        service.print_json({"data": tokens})
    elif tokens:
        show_lines(token_lines(tokens))
    else:
        click.echo("there is no such token; make one: astraml token create --help")


@token.command()
@click.argument("token_id", metavar="ID")
@service_verb
def revoke(token_id: str, service: Service) -> None:
    """Take a token back for ever.

    ID is the part of the token between its underscores, as in `astraml token list`. It counts nowhere within a second.
    """
    revoked = service.client.tokens.revoke(token_id)
    if service.json:
        service.print_json(revoked)
    else:
        click.echo(f"{revoked['id']} of {revoked['subject']} is revoked")
