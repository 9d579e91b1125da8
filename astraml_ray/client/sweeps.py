"""Sweeps and their trials over HTTP."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from astraml_ray.client.following import turn_pages
from astraml_ray.client.transport import Transport
from astraml_ray.errors import RequestError

__all__ = ["Sweeps"]

_ESTIMATE_S = 120.0
"""For the first estimate of importance that a process of the service makes."""

Json = dict[str, Any]


class Sweeps:
    """Jobs that try several values of some fields."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, job_id: str, *, importance: bool = True) -> Json:
        """How a sweep goes: counts, the best trial, its cost, and how much each parameter matters if wanted."""
        params = {} if importance else {"importance": "false"}
        return self._transport.request("GET", _place(job_id, "sweep"), params=params, timeout_s=_ESTIMATE_S)

    def trials(
        self,
        job_id: str,
        *,
        status: str | Iterable[str] | None = None,
        sort: str = "number",
        history: bool = False,
        limit: int | None = None,
    ) -> Iterator[Json]:
        """The trials, page by page as they are asked for.

        Args:
            job_id: The sweep.
            status: Only in these states.
            sort: "number", or "metric": the best one first.
            history: With the values of all their evaluations.
            limit: How many at most.
        """
        states = [status] if isinstance(status, str) else list(status or []) or None
        params: Json = {"status": states, "sort": sort, "history": "true" if history else None}
        return turn_pages(self._transport, _place(job_id, "trials"), params=params, limit=limit)

    def trial(self, job_id: str, trial_id: str = "best") -> Json:
        """A trial with its history; `best` is the best one so far."""
        return self._transport.request("GET", _place(job_id, "trials", _checked(trial_id)))

    def retrain(
        self,
        job_id: str,
        trial_id: str = "best",
        changes: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> Json:
        """Makes a job with a trial's parameters, at full length; `changes` are fields by dotted path."""
        path = f"{_place(job_id, 'trials', _checked(trial_id))}:retrain"
        key = idempotency_key or uuid.uuid4().hex
        return self._transport.request("POST", path, body={"set": dict(changes or {})}, key=key)


def _place(job_id: str, *more: str) -> str:
    if not job_id.strip():
        raise RequestError("the id of a job is missing")
    return "/".join(["/v2.1/jobs", quote(job_id, safe=""), *(quote(part, safe="") for part in more)])


def _checked(trial_id: str) -> str:
    if not trial_id.strip():
        raise RequestError("the id of a trial is missing", hint="`best` is the best one")
    return trial_id
