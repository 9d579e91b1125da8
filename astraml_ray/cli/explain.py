"""`astraml explain`: why a job waits or failed; what an error code means."""

from __future__ import annotations

from typing import Any

import click

from astraml_ray.cli.advice import explain_job
from astraml_ray.cli.service import Service, complete_jobs, service_verb

__all__ = ["explain"]


@click.command()
@click.argument("subject", metavar="JOB|CODE", shell_complete=complete_jobs)
@service_verb
def explain(subject: str, service: Service) -> None:
    """Say why a job waits or failed, or what an error code means.

    \b
    astraml explain latest
    astraml explain out_of_memory
    """
    of_job = subject == "latest" or subject.startswith("job-")
    if of_job:
        told = explain_job(service.client.get_job(service.job_id(subject)))
    else:
        told = service.client.error_info(subject)
    if service.json:
        service.print_json(told)
    elif of_job:
        _show_job(told)
    else:
        _show_code(told)


def _show_job(told: dict[str, Any]) -> None:
    click.echo(f"{told['job_id']} {told['status']}")
    click.echo(f"  {told['summary']}")
    for place in told["where"]:
        click.echo(f"  {place}")
    if told["hint"]:
        click.echo(f"  → {told['hint']}")
    if told["commands"]:
        click.echo("try")
    for command in told["commands"]:
        click.echo(f"  {command}")


def _show_code(entry: dict[str, Any]) -> None:
    again = "may work later, unchanged" if entry["retryable"] else "does not help to repeat"
    click.echo(f"{entry['code']}: {entry['title']}")
    click.echo(f"  why    {entry['cause']}")
    click.echo(f"  to do  {entry['action']}")
    click.echo(f"  class {entry['class']}, stage {entry['stage']}, {again}")
