"""`astraml sweep`: what a sweep found; `astraml submit -f` makes sweeps."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from astraml_ray.cli.again import changes_of
from astraml_ray.cli.flags import set_option
from astraml_ray.cli.following import conclude_job, new_key, outcome_options
from astraml_ray.cli.service import Service, job_argument, service_verb

__all__ = ["sweep"]

_WATCH_S = 2.0


@click.group()
def sweep() -> None:
    """See what a sweep found, and train with it.

    \b
    astraml submit -f sweep.yaml              # a spec with a `sweep` makes one
    astraml sweep show JOB --watch
    astraml sweep plot JOB -o sweep.html
    astraml sweep retrain JOB --follow
    """


@sweep.command()
@job_argument
@click.option("--sort", type=click.Choice(["metric", "number"]), default="metric", help="The best first, or as made.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many trials.")
@click.option("--watch", is_flag=True, help="Stay, and show it anew every two seconds until it ends.")
@service_verb
def show(job: str, sort: str, limit: int, watch: bool, service: Service) -> None:
    """Show a sweep's trials, the best first, and how much each parameter matters.

    JOB is an id, or `latest`.
    """
    job_id = service.job_id(job)
    found = _look(job_id, sort, limit, service, importance=not watch)
    if not watch:
        _show(found, service)
        return
    service.on_interrupt = f"the sweep goes on; once more: astraml sweep show {job_id} --watch"
    if service.json:
        while found["status"] in ("queued", "starting", "running"):
            service.print_json(found)
            time.sleep(_WATCH_S)
            found = _look(job_id, sort, limit, service, importance=False)
    else:
        _watch(found, lambda: _look(job_id, sort, limit, service, importance=False))
    _show(_look(job_id, sort, limit, service, importance=True), service)


@sweep.command()
@job_argument
@click.option("-o", "--out", "target", default="sweep.html", show_default=True, metavar="FILE", help="The page.")
@service_verb
def plot(job: str, target: str, service: Service) -> None:
    """Draw a sweep as one HTML page, which needs no network.

    It has every parameter against the value, the learning curves, and the table. JOB is an id, or `latest`.
    """
    from astraml_ray.cli.sweep_html import sweep_html
    from astraml_ray.errors import StorageError

    job_id = service.job_id(job)
    found = service.client.sweeps.get(job_id)
    trials = list(service.client.sweeps.trials(job_id, history=True))
    path = Path(target).expanduser().absolute()
    try:
        path.write_text(sweep_html(found, trials), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}", param="--out") from error
    if service.json:
        service.print_json({"job_id": job_id, "file": str(path), "trials": len(trials)})
    else:
        click.echo(f"{path}  {len(trials)} trials")


@sweep.command()
@job_argument
@click.option("--trial", "trial_id", default="best", show_default=True, metavar="ID", help="Of which trial.")
@service_verb
def best(job: str, trial_id: str, service: Service) -> None:
    """Print the spec of the best trial, as a job that is no sweep.

    \b
    astraml sweep best JOB > best.yaml && astraml submit -f best.yaml
    """
    from astraml_ray.cli.sweep_page import best_words, spec_of_trial

    job_id = service.job_id(job)
    trial = service.client.sweeps.trial(job_id, trial_id)
    found = service.client.get_job(job_id)
    spec = spec_of_trial(found["spec"], trial)
    if service.json:
        service.print_json({"job_id": job_id, "trial": trial, "spec": spec})
        return
    import yaml

    click.echo(f"# {best_words(job_id, trial)}")
    click.echo(yaml.safe_dump(spec, sort_keys=False, allow_unicode=True), nl=False)


@sweep.command()
@job_argument
@click.option("--trial", "trial_id", default="best", show_default=True, metavar="ID", help="Of which trial.")
@set_option
@outcome_options
@service_verb
def retrain(
    job: str,
    trial_id: str,
    settings: tuple[str, ...],
    waits: bool,
    follow: bool,
    idempotency_key: str | None,
    service: Service,
) -> int:
    """Submit a job with a trial's parameters, at full length.

    \b
    astraml sweep retrain JOB --set hyperparams.epochs=20 --follow
    """
    changes = changes_of(settings)
    job_id = service.job_id(job)
    key = new_key(service, idempotency_key)
    made = service.client.sweeps.retrain(job_id, trial_id, changes, idempotency_key=key)
    return conclude_job(made, service, waits=waits, follow=follow)


def _look(job_id: str, sort: str, limit: int, service: Service, *, importance: bool) -> dict[str, Any]:
    found = service.client.sweeps.get(job_id, importance=importance)
    return {**found, "trials": list(service.client.sweeps.trials(job_id, sort=sort, limit=limit))}


def _show(found: dict[str, Any], service: Service) -> None:
    if service.json:
        service.print_json(found)
        return
    from rich.console import Console

    from astraml_ray.cli.sweep_page import sweep_page

    console = Console()
    console.print(sweep_page(found, console.width))


def _watch(found: dict[str, Any], look: Any) -> None:
    from rich.console import Console
    from rich.live import Live

    from astraml_ray.cli.sweep_page import sweep_page

    console = Console()
    with Live(sweep_page(found, console.width), console=console, auto_refresh=False, transient=True) as live:
        while found["status"] in ("queued", "starting", "running"):
            time.sleep(_WATCH_S)
            found = look()
            live.update(sweep_page(found, console.width), refresh=True)
