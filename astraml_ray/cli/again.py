"""`astraml resume` and `astraml clone`: new jobs from old ones."""

from __future__ import annotations

from typing import Any

import click

from astraml_ray.cli.flags import set_option
from astraml_ray.cli.following import conclude_job, new_key, outcome_options
from astraml_ray.cli.service import Service, job_argument, service_verb

__all__ = ["changes_of", "clone", "resume"]


@click.command()
@job_argument
@outcome_options
@service_verb
def resume(job: str, waits: bool, follow: bool, idempotency_key: str | None, service: Service) -> int:
    """Go on with a failed or cancelled job, as a new one.

    It begins at the last checkpoint. JOB is an id, or `latest`.
    """
    job_id = service.job_id(job)
    made = service.client.resume(job_id, idempotency_key=new_key(service, idempotency_key))
    return conclude_job(made, service, waits=waits, follow=follow)


@click.command()
@job_argument
@set_option
@outcome_options
@service_verb
def clone(
    job: str, settings: tuple[str, ...], waits: bool, follow: bool, idempotency_key: str | None, service: Service
) -> int:
    """Submit a job's spec again, with changes.

    \b
    astraml clone JOB --set hyperparams.lr=1e-5 --set resources.gpus=0
    """
    changes = changes_of(settings)
    job_id = service.job_id(job)
    made = service.client.clone(job_id, changes, idempotency_key=new_key(service, idempotency_key))
    return conclude_job(made, service, waits=waits, follow=follow)


def changes_of(settings: tuple[str, ...]) -> dict[str, Any]:
    """--set by dotted path; values are YAML, as for `submit`."""
    from astraml_ray.spec.loading import parse_document

    found = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path.strip():
            raise click.UsageError(f"--set {setting}: write it as field.path=value")
        found[path.strip()] = parse_document(f"value:\n  {text}", source=f"--set {path}")["value"]
    return found
