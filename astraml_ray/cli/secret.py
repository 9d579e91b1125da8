"""`astraml secret`: store, list and delete secrets, see who used them, and change the key that encrypts them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from astraml_ray.cli.outcome import conclude
from astraml_ray.cli.project import show_lines
from astraml_ray.cli.quantities import clock
from astraml_ray.cli.service import Service, service_verb

__all__ = ["secret"]

_PROJECT = click.option("--project", required=True, help="Whose secret it is.")


@click.group()
def secret() -> None:
    """Store secrets for jobs, and see who used them.

    A job names a secret, {secret: NAME}, and its workers get the value. Nobody can read one back.

    \b
    astraml secret set s3-prod --project p-demo --from-file credentials.json
    pass show hf-token | astraml secret set hf --project p-demo
    astraml submit ... --set dataset.credentials.secret=s3-prod --set env.HF_TOKEN.secret=hf
    """


@secret.command("set")
@click.argument("name")
@click.argument("value", nargs=-1, metavar="")
@_PROJECT
@click.option("--from-file", "file", type=click.Path(path_type=Path), default=None, help="Read the value from here.")
@service_verb
def set_secret(name: str, value: tuple[str, ...], project: str, file: Path | None, service: Service) -> None:
    """Store a secret, or a new version of one.

    The value is asked for, or read from --from-file or standard input; one line end at its end is left out. Jobs that
    run keep the version that they began with.
    """
    if value:
        raise click.UsageError(
            "the value is no argument: those are seen in lists of processes, and kept by shells. Pipe it in, or give "
            "--from-file; and if it was a real one, change it"
        )
    stored = service.client.secrets.set(project, name, _read_value(name, file))
    if service.json:
        service.print_json(stored)
        return
    for warning in stored["warnings"]:
        service.note(f"warning: {warning}")
    click.echo(f"stored {name} v{stored['version']} in {project}")
    service.note(f"a job names it so: {{secret: {name}}}")


@secret.command("list")
@_PROJECT
@service_verb
def list_secrets(project: str, service: Service) -> None:
    """List secrets by name: never a value."""
    found = service.client.secrets.list(project)
    if service.json:
        service.print_json({"data": found})
    elif found:
        show_lines([_line(one) for one in found])
    else:
        click.echo(f"there are no secrets in {project}; store one: astraml secret set NAME --project {project}")


@secret.command()
@click.argument("name")
@_PROJECT
@service_verb
def delete(name: str, project: str, service: Service) -> None:
    """Destroy a secret, in all its versions.

    Attempts that begin afterwards and need it fail with secret_not_found.
    """
    gone = service.client.secrets.delete(project, name)
    if service.json:
        service.print_json(gone)
    else:
        click.echo(f"{name} of {project} is destroyed")


@secret.command()
@click.argument("name")
@_PROJECT
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many at most.")
@service_verb
def uses(name: str, project: str, limit: int, service: Service) -> None:
    """List the jobs that were given a secret, newest first."""
    found = list(service.client.secrets.uses(project, name, limit=limit))
    if service.json:
        service.print_json({"data": found})
    elif found:
        show_lines(
            [f"{clock(u['at'])}  {u['job_id']} attempt {u['attempt']}  v{u['version']}  {u['subject']}" for u in found]
        )
    else:
        click.echo(f"no job was given {name} of {project}")


@secret.command()
@click.option("--output", type=click.Choice(["text", "json"]), default="text", help="json: for programs.")
def rotate(output: str) -> None:
    """Make a new master key, and encrypt everything again.

    Where the service was started, for that is where its key is. Old keys are dropped when nothing needs them any more.
    The service goes on meanwhile.
    """
    conclude(_rotate, output=output, show=_show_rotation)


@secret.command("new-key")
def new_key() -> None:
    """Print a new master key, for ASTRAML_MASTER_KEY."""
    from astraml_ray.access.secrets import new_master_key

    click.echo(new_master_key())


def _read_value(name: str, file: Path | None) -> str:
    """From the file, from what is piped in, or from whoever sits there, unseen."""
    if file is None and sys.stdin.isatty():
        asked: str = click.prompt(f"value of {name}", hide_input=True, confirmation_prompt="once more")
        return asked
    try:
        data = file.read_bytes() if file is not None else sys.stdin.buffer.read()
        text = data.decode()
    except OSError as error:
        raise click.UsageError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise click.UsageError("the value is not text; encode it, as with base64") from None
    return text.removesuffix("\n").removesuffix("\r")


def _line(one: dict[str, Any]) -> str:
    used = f"last used {clock(one['last_used_at'])}" if one["last_used_at"] else "not used yet"
    made = f"stored {clock(one['created_at'])} by {one['created_by']}"
    return f"{one['name']}  v{one['version']}, {one['size']} characters, {made}, {used}"


def _rotate() -> dict[str, Any]:
    from astraml_ray.control.secrets_rotation import rotate_master_key
    from astraml_ray.errors import InfrastructureError
    from astraml_ray.installation import load_installation
    from astraml_ray.settings import load_settings

    home = load_settings().home
    installation = load_installation(home)
    if installation is None:
        hint = "run it where `astraml up` was run, with the same ASTRAML_HOME, while the service is up"
        raise InfrastructureError("there is no service of this home", param=str(home), hint=hint)
    return rotate_master_key(installation)


def _show_rotation(done: dict[str, Any]) -> None:
    click.echo(f"the new key is {done['key_id']}; versions of secrets encrypted anew: {done['moved']}")
    click.echo(f"old keys dropped: {', '.join(done['dropped']) or 'none'}")
    click.echo(
        f"the key is in {done['key_file']}: keep a copy elsewhere, and set ASTRAML_MASTER_KEY anew if you use it"
    )
