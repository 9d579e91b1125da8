"""Log lines and events as text for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click

from astraml_ray.cli.quantities import clock, printable

__all__ = ["print_events", "print_lines"]

_COLOURS = {"ERROR": "red", "CRITICAL": "red", "WARNING": "yellow", "DEBUG": "bright_black"}
_EVENT_COLOURS = {"job_failed": "red", "job_succeeded": "green", "job_cancelled": "yellow"}


def print_lines(lines: Iterable[Mapping[str, Any]], *, to_stderr: bool = False) -> None:
    """Prints log lines as they come, with the rank they are of, coloured by level on a terminal."""
    for line in lines:
        if line.get("dropped"):
            count = line["dropped"]
            click.secho(f"… {count} line{'s' if count != 1 else ''} lost here", dim=True, err=to_stderr)
            continue
        source = "runner" if line["rank"] is None else f"rank {line['rank']}"
        text = click.style(printable(line["text"]), fg=_COLOURS.get(line["level"]))
        click.echo(click.style(f"{source} | ", dim=True) + text, err=to_stderr)


def print_events(events: Iterable[Mapping[str, Any]]) -> None:
    """Prints events as they come, one on a line."""
    for event in events:
        place = click.style(f"{event['seq']:4}  {clock(event['at'])}  ", dim=True)
        kind = click.style(f"{event['type']:20}", fg=_EVENT_COLOURS.get(event["type"]))
        click.echo(f"{place}{kind}  {printable(event['message'] or '')}".rstrip())
