"""`astraml list`, `show`, `cancel`."""

from __future__ import annotations

import itertools
import time
from typing import Any

import click

from astraml_ray.cli.flags import label_option, parse_labels
from astraml_ray.cli.service import STATUSES, Service, job_argument, service_verb

__all__ = ["cancel", "list_jobs", "show"]

_WATCH_S = 1.0


@click.command("list")
@click.option("--project", default=None, help="Only of this project.")
@click.option("--status", multiple=True, type=click.Choice(STATUSES), help="Only in this state; may be repeated.")
@label_option("Only with this label; may be repeated.")
@click.option("--schedule", default=None, metavar="ID", help="Only those that this schedule has made.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How many at most.")
@service_verb
def list_jobs(
    project: str | None,
    status: tuple[str, ...],
    labels: tuple[str, ...],
    schedule: str | None,
    limit: int,
    service: Service,
) -> None:
    """List jobs, newest first."""
    wanted = parse_labels(labels)
    found = service.client.list_jobs(
        project_id=project, status=status, labels=wanted, schedule_id=schedule, limit=limit + 1
    )
    jobs = list(itertools.islice(found, limit))
    more = next(found, None) is not None
    if service.json:
        service.print_json({"data": jobs, "has_more": more})
        return
    if not jobs:
        there = f" in project {project}" if project else ""
        such = " such" if status or wanted or schedule else ""
        click.echo(f"no{such} jobs{there}; make one: astraml submit --help")
        return
    from rich.console import Console

    from astraml_ray.cli.job_page import job_table

    console = Console()
    console.print(job_table(jobs, console.width))
    if more:
        service.note(f"there are more: --limit {limit * 5}")


@click.command()
@job_argument
@click.option("--watch", is_flag=True, help="Stay, and show it anew every second until it ends.")
@click.option("--provenance", is_flag=True, help="What policies and migration have a hand in.")
@click.option("--all", "every_field", is_flag=True, help="With --provenance: where each field is from.")
@service_verb
def show(job: str, watch: bool, provenance: bool, every_field: bool, service: Service) -> None:
    """Show a job.

    JOB is an id, or `latest`.
    """
    if every_field and not provenance:
        raise click.UsageError("--all goes with --provenance")
    if watch and provenance:
        raise click.UsageError("give either --watch or --provenance")
    job_id = service.job_id(job)
    if provenance:
        _show_provenance(job_id, service, every_field=every_field)
        return
    found = service.client.get_job(job_id)
    if service.json:
        service.print_json(found)
        while watch and not found["terminal"]:
            time.sleep(_WATCH_S)
            found = service.client.get_job(job_id)
            service.print_json(found)
        return
    _show_page(found, service, watch=watch)


def _show_provenance(job_id: str, service: Service, *, every_field: bool) -> None:
    found = service.client.provenance(job_id)
    if service.json:
        service.print_json(found)
        return
    from astraml_ray.cli.provenance_page import provenance_lines

    for line in provenance_lines(found, every_field=every_field):
        click.echo(line)


def _show_page(job: dict[str, Any], service: Service, *, watch: bool) -> None:
    from rich.console import Console
    from rich.live import Live

    from astraml_ray.cli.advice import explain_job
    from astraml_ray.cli.job_page import job_page

    address = service.client.address
    if watch and not job["terminal"]:
        service.on_interrupt = f"the job goes on; once more: astraml show {job['id']} --watch"
        with Live(job_page(job, address), console=Console(), auto_refresh=False) as live:
            job = service.client.wait(
                job["id"], poll_s=_WATCH_S, on_look=lambda seen: live.update(job_page(seen, address), refresh=True)
            )
    else:
        Console().print(job_page(job, address))
    # Not on the page, which wraps its lines: these are to be copied.
    click.secho("next", dim=True)
    for command in explain_job(job)["commands"]:
        click.echo(f"  {command}")


@click.command()
@job_argument
@click.option("--keep-best", is_flag=True, help="Publish the best model so far before stopping.")
@click.option("--wait", "waits", is_flag=True, help="Wait until it has stopped.")
@service_verb
def cancel(job: str, keep_best: bool, waits: bool, service: Service) -> None:
    """Stop a job.

    JOB is an id, or `latest`. A queued job stops at once; a running one saves first, so that `astraml resume` can go
    on with it.
    """
    job_id = service.job_id(job)
    found = service.client.cancel(job_id, mode="keep_best" if keep_best else "now")
    if waits and not found["terminal"]:
        service.on_interrupt = f"the job is being stopped all the same; wait again: astraml wait {job_id}"
        found = service.client.wait(job_id)
    if service.json:
        service.print_json(found)
    else:
        click.echo(_cancel_words(found))


def _cancel_words(job: dict[str, Any]) -> str:
    if job["terminal"]:
        return f"{job['id']} {job['status']}: {job['reason']}"
    saving = "keeping the best model" if job["cancel_requested"] == "keep_best" else "saving first"
    return f"{job['id']} is being stopped, {saving}; wait for it: astraml wait {job['id']}"
