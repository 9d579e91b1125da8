"""`astraml webhook`: who is told what happens in a project."""

from __future__ import annotations

import sys
from typing import Any

import click

from astraml_ray.cli.project import show_lines
from astraml_ray.cli.service import Service, service_verb
from astraml_ray.cli.webhook_page import delivery_lines, delivery_page, webhook_lines, webhook_page

__all__ = ["webhook"]

_PROJECT = click.option("--project", required=True, help="Whose webhook it is.")
_NAME = click.argument("name")
_STALL = "2h"


@click.group()
def webhook() -> None:
    """Tell a server, or a Slack channel, what happens in a project.

    Messages are signed as Standard Webhooks are, and sent again for 24 hours until the receiver answers 2xx.

    \b
    astraml webhook add ci --project p-demo --url https://ci.corp/hook --event 'job.*' --event schedule.failed
    echo "$SLACK_URL" | astraml webhook add slack --project p-demo --url - --format slack --event job.failed
    astraml webhook add watch --project p-demo --url https://ci.corp/hook --not-finite train/loss \\
        --no-improvement validation/loss=2h --deadline
    astraml webhook test ci --project p-demo
    astraml webhook deliveries ci --project p-demo --status failed
    """


@webhook.command()
@_NAME
@_PROJECT
@click.option("--url", required=True, help="Where messages go; - reads it from standard input. It is kept encrypted.")
@click.option(
    "--event", "events", multiple=True, metavar="EVENT", help="Such as job.failed, schedule.* or *; may repeat."
)
@click.option(
    "--not-finite", "not_finite", multiple=True, metavar="METRIC", help="A value is NaN or infinite; * is any."
)
@click.option(
    "--no-improvement", "stalls", multiple=True, metavar="METRIC[=2h]", help="Nothing better for so long, 10m to 30d."
)
@click.option("--deadline", is_flag=True, help="A job will not end within its limits.max_duration, at its pace.")
@click.option("--format", "style", type=click.Choice(["standard", "slack"]), default="standard", show_default=True)
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Only jobs with it; may repeat.")
@service_verb
def add(
    name: str,
    project: str,
    url: str,
    events: tuple[str, ...],
    not_finite: tuple[str, ...],
    stalls: tuple[str, ...],
    deadline: bool,
    style: str,
    labels: tuple[str, ...],
    service: Service,
) -> None:
    """Add a webhook, and print the key that its messages are signed with: this once.

    Without --event and conditions, it is told of the ends of jobs and sweeps, and of schedules that fail or pause.
    """
    conditions = _conditions(not_finite, stalls, deadline=deadline)
    made = service.client.webhooks.create(
        project,
        name,
        sys.stdin.readline().strip() if url == "-" else url,
        events=list(events) if events or conditions else None,
        conditions=conditions,
        format=style,
        labels=dict(_pair(label) for label in labels),
    )
    if service.json:
        service.print_json(made)
        return
    for warning in made["warnings"]:
        service.note(f"warning: {warning}")
    show_lines(webhook_page(made))
    click.echo(made["signing_key"])
    service.note("the receiver checks signatures with this key; it is not shown again, and `rotate` makes another")


@webhook.command("list")
@_PROJECT
@service_verb
def list_webhooks(project: str, service: Service) -> None:
    """List webhooks by name."""
    found = service.client.webhooks.list(project)
    if service.json:
        service.print_json({"data": found})
    elif found:
        show_lines(webhook_lines(found))
    else:
        click.echo(
            f"there are no webhooks in {project}; add one: astraml webhook add NAME --project {project} --url URL"
        )


@webhook.command()
@_NAME
@_PROJECT
@service_verb
def show(name: str, project: str, service: Service) -> None:
    """Show a webhook."""
    _show(service.client.webhooks.get(project, name), service)


@webhook.command()
@_NAME
@_PROJECT
@service_verb
def enable(name: str, project: str, service: Service) -> None:
    """Tell it things again."""
    _show(service.client.webhooks.change(project, name, enabled=True), service)


@webhook.command()
@_NAME
@_PROJECT
@service_verb
def disable(name: str, project: str, service: Service) -> None:
    """Tell it nothing more, until it is enabled; what happens meanwhile is not kept for it."""
    _show(service.client.webhooks.change(project, name, enabled=False), service)


@webhook.command()
@_NAME
@_PROJECT
@click.option("--wait", "wait_s", type=click.FloatRange(0, 600), default=30.0, show_default=True, help="Seconds.")
@service_verb
def test(name: str, project: str, wait_s: float, service: Service) -> int:
    """Send a test, and say how it went; exit code 30 if it failed."""
    return _conclude(service.client.webhooks.test(project, name, wait_s=wait_s), service)


@webhook.command()
@_NAME
@_PROJECT
@click.option(
    "--overlap", default="24h", show_default=True, help="How long the old key signs too; 0s drops it at once."
)
@service_verb
def rotate(name: str, project: str, overlap: str, service: Service) -> None:
    """Make a new signing key, and print it: this once."""
    made = service.client.webhooks.rotate(project, name, overlap=overlap)
    if service.json:
        service.print_json(made)
        return
    click.echo(made["signing_key"])
    service.note(f"messages carry the signatures of both keys for {overlap}; it is not shown again")


@webhook.command()
@_NAME
@click.argument("delivery_id", metavar="[DELIVERY]", required=False)
@_PROJECT
@click.option("--status", type=click.Choice(["pending", "delivered", "failed"]), default=None, help="Only those.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How many at most.")
@service_verb
def deliveries(
    name: str, delivery_id: str | None, project: str, status: str | None, limit: int, service: Service
) -> None:
    """List what a webhook was told, newest first; or show one message, with its tries."""
    if delivery_id is not None:
        one = service.client.webhooks.delivery(project, name, delivery_id)
        service.print_json(one) if service.json else show_lines(delivery_page(one))
        return
    found = list(service.client.webhooks.deliveries(project, name, status=status, limit=limit))
    if service.json:
        service.print_json({"data": found})
    elif found:
        show_lines(delivery_lines(found))
    else:
        click.echo(f"{name} was told nothing yet; try it: astraml webhook test {name} --project {project}")


@webhook.command()
@_NAME
@click.argument("delivery_id", metavar="DELIVERY")
@_PROJECT
@click.option("--wait", "wait_s", type=click.FloatRange(0, 600), default=30.0, show_default=True, help="Seconds.")
@service_verb
def replay(name: str, delivery_id: str, project: str, wait_s: float, service: Service) -> int:
    """Send a message again, with its id, and say how that went."""
    return _conclude(service.client.webhooks.replay(project, name, delivery_id, wait_s=wait_s), service)


@webhook.command()
@_NAME
@_PROJECT
@service_verb
def remove(name: str, project: str, service: Service) -> None:
    """Remove a webhook, with its log and what it is still to be told."""
    gone = service.client.webhooks.delete(project, name)
    if service.json:
        service.print_json(gone)
    else:
        click.echo(f"{name} of {project} is removed")


def _conditions(not_finite: tuple[str, ...], stalls: tuple[str, ...], *, deadline: bool) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"when": "not_finite", **({} if metric == "*" else {"metric": metric})} for metric in not_finite
    ]
    for stall in stalls:
        metric, _, stretch = stall.partition("=")
        found.append({"when": "no_improvement", "metric": metric, "for": stretch or _STALL})
    return [*found, *([{"when": "deadline_will_be_missed"}] if deadline else [])]


def _pair(label: str) -> tuple[str, str]:
    key, equals, value = label.partition("=")
    if not equals:
        raise click.UsageError(f"--label {label}: write it as KEY=VALUE")
    return key, value


def _conclude(delivery: dict[str, Any], service: Service) -> int:
    if service.json:
        service.print_json(delivery)
    else:
        show_lines(delivery_page(delivery))
    return 0 if delivery["status"] == "delivered" else 30


def _show(found: dict[str, Any], service: Service) -> None:
    if service.json:
        service.print_json(found)
    else:
        show_lines(webhook_page(found))
