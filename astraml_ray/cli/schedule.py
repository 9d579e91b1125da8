"""`astraml schedule`: jobs that are made again and again; `astraml submit -f` makes schedules."""

from __future__ import annotations

from typing import Any

import click

from astraml_ray.cli.following import new_key
from astraml_ray.cli.project import show_lines
from astraml_ray.cli.schedule_page import next_lines, occurrence_lines, schedule_lines, schedule_page
from astraml_ray.cli.service import Service, service_verb

__all__ = ["conclude_schedule", "schedule"]

_ID = click.argument("schedule_id", metavar="ID")
_KEY = click.option("--idempotency-key", default=None, metavar="KEY", help="To repeat a request that was cut off.")
_SHOWN = 10


@click.group()
def schedule() -> None:
    """See and change schedules.

    \b
    astraml submit -f nightly.yaml            # a spec with a `schedule` makes one
    astraml schedule list
    astraml schedule backfill ID --from 2026-11-01T00:00:00Z --to 2026-11-07T00:00:00Z
    """


@schedule.command("list")
@click.option("--project", default=None, help="Only those of this project.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many at most.")
@service_verb
def list_schedules(project: str | None, limit: int, service: Service) -> None:
    """List schedules, newest first."""
    found = list(service.client.schedules.list(project_id=project, limit=limit))
    if service.json:
        service.print_json({"data": found})
    elif found:
        show_lines(schedule_lines(found))
    else:
        click.echo("there is no schedule; make one: astraml submit -f spec.yaml, with a `schedule` in it")


@schedule.command()
@_ID
@service_verb
def show(schedule_id: str, service: Service) -> None:
    """Show a schedule, its next times, and what became of the last ones."""
    found = service.client.schedules.get(schedule_id)
    last = list(service.client.schedules.occurrences(schedule_id, limit=_SHOWN))
    if service.json:
        service.print_json({**found, "occurrences": last})
        return
    show_lines([*schedule_page(found), *(["last times", *occurrence_lines(last)] if last else [])])


@schedule.command("next")
@_ID
@click.option("--count", type=click.IntRange(1, 100), default=10, show_default=True, help="How many.")
@service_verb
def next_times(schedule_id: str, count: int, service: Service) -> None:
    """List the next times, with a mark where the clocks are changed."""
    found = service.client.schedules.next(schedule_id, count=count)
    if service.json:
        service.print_json({"data": found})
    else:
        show_lines(next_lines(found) or ["there is no next time"])


@schedule.command()
@_ID
@click.option("--reason", default=None, help="For others.")
@service_verb
def pause(schedule_id: str, reason: str | None, service: Service) -> None:
    """Make no more jobs until it is resumed."""
    _show(service.client.schedules.pause(schedule_id, reason=reason), service)


@schedule.command()
@_ID
@service_verb
def resume(schedule_id: str, service: Service) -> None:
    """Go on with what comes from now on; `backfill` makes up for what passed."""
    _show(service.client.schedules.resume(schedule_id), service)


@schedule.command("run-now")
@_ID
@_KEY
@service_verb
def run_now(schedule_id: str, idempotency_key: str | None, service: Service) -> None:
    """Make a job at once, also of a schedule that is paused."""
    key = new_key(service, idempotency_key)
    service.on_interrupt = f"a job may have been made; repeat with --idempotency-key {key}"
    made = service.client.schedules.run_now(schedule_id, idempotency_key=key)
    if service.json:
        service.print_json(made)
    else:
        click.echo(f"{made['job_id']}\n  follow it: astraml logs {made['job_id']} -f")


@schedule.command()
@_ID
@click.option("--from", "first", required=True, metavar="TIME", help="Such as 2026-11-01T00:00:00Z.")
@click.option("--to", "last", required=True, metavar="TIME", help="The last one; it has passed.")
@_KEY
@service_verb
def backfill(schedule_id: str, first: str, last: str, idempotency_key: str | None, service: Service) -> None:
    """Make the jobs of times that have passed and have none, at most 1000."""
    key = new_key(service, idempotency_key)
    service.on_interrupt = f"the jobs may be planned; repeat with --idempotency-key {key}"
    made = service.client.schedules.backfill(schedule_id, first, last, idempotency_key=key)
    if service.json:
        service.print_json(made)
    else:
        click.echo(
            f"{made['planned']} jobs will be made; {made['instants'] - made['planned']} times had theirs already"
        )


@schedule.command()
@_ID
@service_verb
def delete(schedule_id: str, service: Service) -> None:
    """Delete a schedule; its jobs stay."""
    gone = service.client.schedules.delete(schedule_id)
    if service.json:
        service.print_json(gone)
    else:
        click.echo(f"{gone['id']} is deleted; its jobs stay")


def conclude_schedule(made: dict[str, Any], service: Service, *, stays: bool) -> int:
    """Announces a new schedule; the exit code. `stays`: its end was to be waited for, and it has none."""
    _show(made, service)
    if stays:
        service.note("note: a schedule has no end to wait for; its jobs have")
    return 0


def _show(found: dict[str, Any], service: Service) -> None:
    if service.json:
        service.print_json(found)
    else:
        show_lines(schedule_page(found))
