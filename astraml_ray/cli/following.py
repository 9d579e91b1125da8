"""A job from its submission to its end, on the screen: what `submit`, `resume`, `clone` and `wait` share."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

from astraml_ray.cli.advice import explain_job
from astraml_ray.cli.quantities import eta, number
from astraml_ray.cli.service import Service
from astraml_ray.cli.streams import print_lines

__all__ = ["WaitView", "conclude_end", "conclude_job", "new_key", "outcome_options", "wait_for_job"]

_F = TypeVar("_F", bound=Callable[..., Any])

_PLAIN_EVERY_S = 10.0


def outcome_options(command: _F) -> _F:
    """Adds --wait, --follow and --idempotency-key."""
    for add in (
        click.option("--idempotency-key", default=None, metavar="KEY", help="To repeat a request that was cut off."),
        click.option("--follow", is_flag=True, help="Print the job's log until its end, then the outcome."),
        click.option("--wait", "waits", is_flag=True, help="Wait for the job's end; the exit code is its outcome's."),
    ):
        command = add(command)
    return command


def new_key(service: Service, given: str | None) -> str:
    """The key of a request that makes a job, told before it is sent."""
    key = given or service.client.new_key()
    service.note(f"idempotency key {key} (repeat with --idempotency-key: never a second job)")
    return key


def _announce(job: dict[str, Any], service: Service) -> None:
    """Tells of a new job."""
    if service.json:
        service.print_json(job)
        return
    click.echo(f"{job['id']} {job['status']}")
    for warning in job["warnings"]:
        service.note(f"warning: {warning['param'] or '/'}: {warning['message']}")


def conclude_job(job: dict[str, Any], service: Service, *, waits: bool, follow: bool) -> int:
    """Announces a new job, and stays until its end if that is wanted; the exit code."""
    _announce(job, service)
    if follow:
        _interruptible(service, job["id"])
        print_lines(service.client.logs(job["id"], follow=True), to_stderr=service.json)
        return conclude_end(service.client.wait(job["id"]), service)
    if waits:
        return conclude_end(wait_for_job(job["id"], service), service)
    if not service.json:
        click.echo(f"  follow it: astraml logs {job['id']} -f\n  its page:  astraml show {job['id']}")
    return 0


def wait_for_job(job_id: str, service: Service, *, timeout_s: float | None = None) -> dict[str, Any]:
    """Waits with the progress on stderr; returns the final job."""
    _interruptible(service, job_id)
    with WaitView() as view:
        return service.client.wait(job_id, timeout_s=timeout_s, on_look=view.show)


def _interruptible(service: Service, job_id: str) -> None:
    service.on_interrupt = f"the job goes on; follow it: astraml logs {job_id} -f; stop it: astraml cancel {job_id}"


def conclude_end(job: dict[str, Any], service: Service) -> int:
    """Shows a job that has ended; the exit code of its outcome."""
    from astraml_ray.client import outcome_exit_code

    if service.json:
        service.print_json(job)
    else:
        _show_outcome(job, service)
    return outcome_exit_code(job)


def _show_outcome(job: dict[str, Any], service: Service) -> None:
    result = job["result"] or {}
    after = f" after {result['steps']} steps" if result.get("steps") is not None else ""
    click.echo(f"{job['status']}: {job['reason']}{after}")
    for name, value in sorted((result.get("metrics") or {}).items()):
        click.echo(f"  {name:24} {number(value)}")
    if job["model_path"]:
        click.echo(f"model {job['model_path']}")
    told = explain_job(job)
    if job["status"] == "failed":
        where = "".join(f"\n  {place}" for place in told["where"])
        hint = f"\n  → {told['hint']}" if told["hint"] else ""
        service.note(f"error: {told['summary']}{where}{hint}")
    for command in told["commands"]:
        service.note(f"  {command}")


class WaitView:
    """Shows a job that is waited for: a live line on a terminal, elsewhere a line when something changes."""

    def __init__(self) -> None:
        self._status: Any = None
        self._told: tuple[Any, ...] = ()
        self._told_at = 0.0

    def __enter__(self) -> WaitView:
        if sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(stderr=True).status("")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def show(self, job: dict[str, Any]) -> None:
        """Takes the job at a look."""
        words = "  ".join(_words(job))
        if self._status is not None:
            from rich.text import Text

            self._status.update(Text(words, no_wrap=True, overflow="ellipsis"))
            return
        state = (job["status"], (job["wait"] or {}).get("message"))
        moved = bool(job["progress"]) and time.monotonic() - self._told_at > _PLAIN_EVERY_S
        if state != self._told or moved:
            self._told, self._told_at = state, time.monotonic()
            print(f"{job['id']}  {words}", file=sys.stderr, flush=True)


def _words(job: dict[str, Any]) -> list[str]:
    words = ["is being stopped" if job["cancel_requested"] and not job["terminal"] else job["status"]]
    progress = job["progress"]
    if job["status"] == "queued":
        words.append((job["wait"] or {}).get("message") or "")
    elif progress and progress["step"] is not None:
        words.append(f"step {progress['step']}/{progress['total_steps']}")
        loss = (progress["metrics"] or {}).get("train/loss")
        words.append(f"loss {number(loss)}" if loss is not None else "")
        words.append("" if job["terminal"] else eta(progress["eta_s"]))
    return [word for word in words if word]
