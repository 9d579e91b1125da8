"""`astraml wait`, `logs`, `events`."""

from __future__ import annotations

from typing import Any

import click

from astraml_ray.cli.following import conclude_end, wait_for_job
from astraml_ray.cli.service import Service, job_argument, service_verb
from astraml_ray.cli.streams import print_events, print_lines

__all__ = ["events", "logs", "wait"]

_LEVELS = ("debug", "info", "warning", "error", "critical")


def _seconds(ctx: click.Context, param: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    from astraml_ray.spec.base import seconds_of

    try:
        return seconds_of(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@job_argument
@click.option("--timeout", callback=_seconds, default=None, metavar="TIME", help='Longest wait: "90s", "10m", "2h".')
@service_verb
def wait(job: str, timeout: Any, service: Service) -> int:
    """Wait for a job's end.

    JOB is an id, or `latest`. The exit code is the outcome's: 0 succeeded, 10 invalid spec or model, 20 data, 21 out of
    memory, 22 numeric, 30 infrastructure or storage, 40 cancelled, 1 anything else; 124 if the timeout came first.
    """
    return conclude_end(wait_for_job(service.job_id(job), service, timeout_s=timeout), service)


@click.command()
@job_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--rank", type=click.IntRange(0), default=None, help="Only this worker's lines.")
@click.option("--attempt", type=click.IntRange(1), default=None, help="Only of this attempt.")
@click.option("--level", type=click.Choice(_LEVELS, case_sensitive=False), default=None, help="The lowest level.")
@click.option("--tail", type=click.IntRange(1, 5000), default=None, help="Only the last so many lines.")
@service_verb
def logs(
    job: str, follow: bool, rank: int | None, attempt: int | None, level: str | None, tail: int | None, service: Service
) -> None:
    """Print a job's log.

    JOB is an id, or `latest`. With --output json each line is an object; one with `dropped` above 0 stands for so
    many lost lines.
    """
    job_id = service.job_id(job)
    if follow:
        service.on_interrupt = f"the job goes on; once more: astraml logs {job_id} -f"
    lines = service.client.logs(job_id, follow=follow, rank=rank, attempt=attempt, level=level, tail=tail)
    if service.json:
        for line in lines:
            service.print_json(line)
    else:
        print_lines(lines)


@click.command()
@job_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@service_verb
def events(job: str, follow: bool, service: Service) -> None:
    """Print what happened to a job.

    JOB is an id, or `latest`. With --output json each event is an object on a line.
    """
    job_id = service.job_id(job)
    if follow:
        service.on_interrupt = f"the job goes on; once more: astraml events {job_id} -f"
    found = service.client.events(job_id, follow=follow)
    if service.json:
        for event in found:
            service.print_json(event)
    else:
        print_events(found)
