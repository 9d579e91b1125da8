"""How verbs that talk to the service begin and end: their options, their client, their errors and exit codes."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
from click.shell_completion import CompletionItem

from astraml_ray.errors import AstraError, JobNotFoundError

if TYPE_CHECKING:
    from astraml_ray.client import Client

__all__ = ["INTERRUPTED", "STATUSES", "Service", "complete_jobs", "job_argument", "service_verb"]

_F = TypeVar("_F", bound=Callable[..., Any])

INTERRUPTED = 130
STATUSES = ("queued", "starting", "running", "succeeded", "failed", "cancelled")


@dataclass
class Service:
    """The service that a verb talks to.

    Attributes:
        json: Whether the output is for machines.
        on_interrupt: What Ctrl-C leaves behind, and what to do about it.
    """

    address: str | None
    json: bool
    on_interrupt: str = field(default="")

    @functools.cached_property
    def client(self) -> Client:
        """The client, made when it is first used."""
        from astraml_ray.client import Client

        return Client(self.address)

    def job_id(self, job: str) -> str:
        """The id that JOB stands for: itself, or the newest job's for `latest`.

        Raises:
            JobNotFoundError: There is no job yet.
        """
        if job != "latest":
            return job
        for newest in self.client.list_jobs(limit=1):
            return str(newest["id"])
        raise JobNotFoundError("there is no job yet", hint="make one: astraml submit --help")

    def print_json(self, value: Any) -> None:
        """Prints an object on a line of its own."""
        print(json.dumps(value), flush=True)

    def note(self, text: str) -> None:
        """Tells people something, on stderr."""
        print(text, file=sys.stderr, flush=True)


def service_verb(function: Callable[..., int | None]) -> Callable[..., None]:
    """Adds --address and --output to a verb, which gets a `service` and returns its exit code."""

    @click.option("--address", default=None, metavar="URL", help="Of the service. [ASTRAML_ADDRESS, this machine's]")
    @click.option("--output", type=click.Choice(["text", "json"]), default="text", help="json: for programs.")
    @functools.wraps(function)
    def verb(*args: Any, address: str | None, output: str, **kwargs: Any) -> None:
        service = Service(address, output == "json")
        try:
            code = function(*args, service=service, **kwargs)
        except AstraError as error:
            _fail(error, service)
        except KeyboardInterrupt:
            service.note(f"\n{service.on_interrupt}".rstrip())
            raise SystemExit(INTERRUPTED) from None
        finally:
            if "client" in service.__dict__:
                service.client.close()
        if code:
            raise SystemExit(code)

    return verb


def job_argument(command: _F) -> _F:
    """Adds JOB: an id, or `latest`."""
    return click.argument("job", metavar="JOB", shell_complete=complete_jobs)(command)


def _fail(error: AstraError, service: Service) -> NoReturn:
    service.note(f"error: {error}")
    if service.json:
        service.print_json({"error": error.as_dict()})
    raise SystemExit(error.exit_code) from error


def complete_jobs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The ids of the newest jobs; none if the service does not answer at once."""
    from astraml_ray.client import Client

    try:
        with Client(ctx.params.get("address"), timeout_s=1.0, retry_s=0.0) as client:
            jobs = list(client.list_jobs(limit=50))
    except AstraError:
        return []
    named = [CompletionItem(job["id"], help=f"{job['status']} {job['name'] or ''}") for job in jobs]
    return [
        item for item in [*named, CompletionItem("latest", help="the newest job")] if item.value.startswith(incomplete)
    ]
