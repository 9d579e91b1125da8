"""`astraml metrics`: charts in the terminal, or a table."""

from __future__ import annotations

import click

from astraml_ray.cli.service import Service, job_argument, service_verb

__all__ = ["metrics"]


@click.command()
@job_argument
@click.argument("names", nargs=-1)
@click.option("--resolution", type=click.Choice(["auto", "30s", "5m", "1h"]), default="auto", show_default=True)
@click.option("--from-step", type=click.IntRange(0), default=None, help="Only from this step on.")
@click.option("--to-step", type=click.IntRange(0), default=None, help="Only up to this step.")
@click.option("--table", is_flag=True, help="Numbers instead of charts, as where the output is no terminal.")
@service_verb
def metrics(
    job: str,
    names: tuple[str, ...],
    resolution: str,
    from_step: int | None,
    to_step: int | None,
    table: bool,
    service: Service,
) -> None:
    """Draw a job's metrics.

    \b
    astraml metrics JOB
    astraml metrics JOB train/loss validation/loss --resolution 5m

    JOB is an id, or `latest`. A point of a chart stands for a window of time, as long as the resolution says.
    """
    job_id = service.job_id(job)
    found = service.client.metrics(job_id, names=names, resolution=resolution, from_step=from_step, to_step=to_step)
    if service.json:
        service.print_json(found)
        return
    series = [one for one in found["series"] if one["windows"]]
    if not series:
        wanted = f" named {', '.join(names)}" if names else ""
        click.echo(f"no metrics{wanted} of {job_id} yet")
        return
    from rich.console import Console

    from astraml_ray.cli.metric_chart import draw_charts, metric_table

    console = Console()
    if console.is_terminal and not table:
        for chart in draw_charts(series, width=console.width, named=bool(names), colour=not console.no_color):
            click.echo(chart)
    points = sum(one["points"] for one in series)
    console.print(metric_table(series))
    click.echo(f"windows of {found['resolution']} over {points} points")
