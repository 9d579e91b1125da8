"""`astraml`: the verbs."""

from __future__ import annotations

import click

import astraml_ray
from astraml_ray.cli.group import Verb, VerbGroup

__all__ = ["main"]

_HERE = "astraml_ray.cli"
_SECTIONS = {
    "Service": {
        "up": Verb(f"{_HERE}.up:up", "Start the service on this machine."),
        "down": Verb(f"{_HERE}.up:down", "Stop the service of this machine."),
        "status": Verb(f"{_HERE}.up:status", "Show how the service is."),
    },
    "Jobs": {
        "submit": Verb(f"{_HERE}.submit:submit", "Submit a job."),
        "validate": Verb(f"{_HERE}.submit:validate", "Show what a job would do, without making it."),
        "list": Verb(f"{_HERE}.jobs:list_jobs", "List jobs, newest first."),
        "show": Verb(f"{_HERE}.jobs:show", "Show a job."),
        "wait": Verb(f"{_HERE}.watch:wait", "Wait for a job's end."),
        "logs": Verb(f"{_HERE}.watch:logs", "Print a job's log."),
        "events": Verb(f"{_HERE}.watch:events", "Print what happened to a job."),
        "metrics": Verb(f"{_HERE}.metrics:metrics", "Draw a job's metrics."),
        "cancel": Verb(f"{_HERE}.jobs:cancel", "Stop a job."),
        "resume": Verb(f"{_HERE}.again:resume", "Go on with a failed or cancelled job, as a new one."),
        "clone": Verb(f"{_HERE}.again:clone", "Submit a job's spec again, with changes."),
        "sweep": Verb(f"{_HERE}.sweep:sweep", "See what a sweep found, and train with it."),
        "schedule": Verb(f"{_HERE}.schedule:schedule", "See and change schedules."),
        "webhook": Verb(f"{_HERE}.webhook:webhook", "Tell a server, or a Slack channel, what happens in a project."),
        "download": Verb(f"{_HERE}.download:download", "Download a job's model, or other files of its run."),
    },
    "Who may do what": {
        "project": Verb(f"{_HERE}.project:project", "Make projects, and say who may do what in them."),
        "policy": Verb(f"{_HERE}.policy:policy", "Say what a project's jobs get and may ask for."),
        "token": Verb(f"{_HERE}.token:token", "Make, list and revoke tokens."),
        "secret": Verb(f"{_HERE}.secret:secret", "Store secrets for jobs, and see who used them."),
        "can-i": Verb(f"{_HERE}.can_i:can_i", "Say whether you may do something, why, and who may."),
        "whoami": Verb(f"{_HERE}.can_i:whoami", "Say whom your token stands for, with which roles."),
        "audit": Verb(f"{_HERE}.audit:audit", "Show who changed what, newest first."),
    },
    "Without a service": {
        "data": Verb(f"{_HERE}.data:data", "See what a dataset holds, before anything is trained."),
        "run": Verb(f"{_HERE}.run:run", "Train a model, and follow it."),
        "verify": Verb(
            f"{_HERE}.verify:verify",
            "Train a stretch of RUN again, from one checkpoint to the next, and compare the weights.",
        ),
        "migrate": Verb(f"{_HERE}.migrate:migrate", "Write a spec of v1.x as v2.1, and say what became of each field."),
        "demo": Verb(
            f"{_HERE}.demo:demo", "Train a small model on docstrings, through a service and an S3 server of its own."
        ),
    },
    "Reference": {
        "explain": Verb(f"{_HERE}.explain:explain", "Say why a job waits or failed, or what an error code means."),
        "schema": Verb(f"{_HERE}.reference:schema", "Print the JSON Schema of a job spec."),
        "models": Verb(f"{_HERE}.reference:models", "List the models that have a short name."),
        "completion": Verb(f"{_HERE}.reference:completion", "Print a script that completes `astraml` in a shell."),
    },
}


@click.group(
    cls=VerbGroup,
    sections=_SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(astraml_ray.__version__, prog_name="astraml")
def main() -> None:
    """Train models on Ray: a job spec in, a trained model out.

    \b
    astraml submit --model tiny-bert --dataset s3://bucket/dataset --follow
    astraml show latest

    \b
    Exit codes: 0 done, 10 invalid spec, model or request, 20 data, 21 out of
    memory, 22 numeric, 30 infrastructure, storage or no service, 40 stopped or
    cancelled, 124 `wait --timeout` ran out, 130 Ctrl-C (the job goes on).
    """
