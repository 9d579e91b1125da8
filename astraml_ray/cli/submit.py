"""`astraml submit` and `astraml validate`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from astraml_ray.cli.flags import collect_flags, spec_options
from astraml_ray.cli.following import conclude_job, new_key, outcome_options
from astraml_ray.cli.schedule import conclude_schedule
from astraml_ray.cli.service import Service, service_verb

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["read_spec", "submit", "validate"]


@click.command()
@spec_options
@outcome_options
@click.option("--dry-run", is_flag=True, help="Make no job: show what it would do (`astraml validate`).")
@service_verb
def submit(
    file: str | None,
    settings: tuple[str, ...],
    waits: bool,
    follow: bool,
    idempotency_key: str | None,
    dry_run: bool,
    service: Service,
    **flags: Any,
) -> int:
    """Submit a job.

    \b
    astraml submit --project p-demo --model bert-base --gpus 1 --dataset s3://bucket/dataset --lr 3e-5
    astraml submit -f spec.yaml --set hyperparams.lr=1e-4 --follow

    A spec with a `schedule` makes a schedule, and shows its next times (`astraml schedule`).

    With --output json the job is printed as one object; with --wait or --follow, once more at its end.
    """
    spec = read_spec(file, settings, flags, service)
    if dry_run:
        _show_plan(service.client.validate(spec), service)
        return 0
    key = new_key(service, idempotency_key)
    service.on_interrupt = f"it may have been submitted; repeat with --idempotency-key {key}"
    made = service.client.submit(spec, idempotency_key=key)
    if "schedule" in made:
        return conclude_schedule(made, service, stays=waits or follow)
    return conclude_job(made, service, waits=waits, follow=follow)


@click.command()
@spec_options
@service_verb
def validate(file: str | None, settings: tuple[str, ...], service: Service, **flags: Any) -> None:
    """Show what a job would do, without making it.

    The service reads the dataset and the model for it.
    """
    _show_plan(service.client.validate(read_spec(file, settings, flags, service)), service)


def read_spec(file: str | None, settings: tuple[str, ...], flags: dict[str, Any], service: Service) -> dict[str, Any]:
    """What was given, checked here, with paths of this machine made absolute."""
    from astraml_ray.spec.loading import merge_document, parse_spec, read_document
    from astraml_ray.spec.templates import fill_templates, with_templates

    document = merge_document(read_document(Path(file)) if file else {}, settings=settings, flags=collect_flags(flags))
    # Of a schedule, what its job would be if it were made now is checked.
    filled = fill_templates(document, time.time()) if document.get("schedule") else document
    spec = parse_spec(filled, source=file or "flags")
    # Defaults are the service's to fill in.
    given = spec.model_dump(mode="json", exclude_unset=True)
    if spec.schedule is not None:
        given = with_templates(given, document)
    places = _absolute(given["dataset"], ("path", "train", "validation", "test"))
    if given["model"]["name"].startswith((".", "/", "~")) or Path(given["model"]["name"]).is_dir():
        places |= _absolute(given["model"], ("name",))
    if places and not service.client.is_local:
        service.note(f"note: {service.client.address} is not this machine; it must have {', '.join(sorted(places))}")
    return given


def _absolute(fields: dict[str, Any], names: tuple[str, ...]) -> set[str]:
    """Makes plain paths absolute, in place, since the service has another working directory; the paths."""
    plain = {name: fields[name] for name in names if fields.get(name) and "://" not in fields[name]}
    fields |= {name: str(Path(path).expanduser().absolute()) for name, path in plain.items()}
    return {fields[name] for name in plain}


def _show_plan(plan: Mapping[str, Any], service: Service) -> None:
    if service.json:
        service.print_json(plan)
        return
    from rich.console import Console

    from astraml_ray.cli.plan_page import plan_page

    Console().print(plan_page(plan))
