"""`astraml download`: files of a run folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from astraml_ray.cli.quantities import size
from astraml_ray.cli.service import Service, job_argument, service_verb

__all__ = ["download"]


@click.command()
@job_argument
@click.argument("path", default="model")
@click.option("--to", "target", default=None, metavar="DIR", help="Folder for the files. [JOB/PATH]")
@service_verb
def download(job: str, path: str, target: str | None, service: Service) -> None:
    """Download a job's model, or other files of its run.

    JOB is an id, or `latest`; PATH a file or a folder of its run folder ("/" is all of it). The files come whole or
    not at all; a download that was cut off goes on where it was.
    """
    job_id = service.job_id(job)
    service.on_interrupt = "what is here is kept; the same command goes on with it"
    with _bar(quiet=service.json) as (on_start, on_bytes):
        told = service.client.download(job_id, path, target, on_start=on_start, on_bytes=on_bytes)
    if service.json:
        service.print_json(told)
    else:
        count = len(told["files"])
        click.echo(f"{count} file{'s' if count != 1 else ''}, {size(told['bytes'])}, in {told['to']}")


@contextmanager
def _bar(*, quiet: bool) -> Iterator[tuple[Callable[[int], None], Callable[[int], None]]]:
    """A progress bar on stderr, if that is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield (lambda total: None), (lambda count: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None, visible=False)
        yield (
            lambda total: progress.update(task, total=total, visible=True),
            lambda count: progress.advance(task, count),
        )
