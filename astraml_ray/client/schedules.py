"""Schedules over HTTP."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from astraml_ray.client.failures import ApiError
from astraml_ray.client.following import turn_pages
from astraml_ray.client.transport import Transport
from astraml_ray.errors import RequestError

__all__ = ["Schedules"]

_SCHEDULES = "/v2.1/schedules"

Json = dict[str, Any]


class Schedules:
    """Schedules."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, spec: Mapping[str, Any], *, idempotency_key: str | None = None) -> Json:
        """Makes a schedule of a spec that has one: one, however often it is sent with one key."""
        key = idempotency_key or uuid.uuid4().hex
        return self._transport.request("POST", _SCHEDULES, body={"spec": dict(spec)}, key=key)

    def list(self, *, project_id: str | None = None, limit: int | None = None) -> Iterator[Json]:
        """Those that the token may see, or those of a project, newest first."""
        return turn_pages(self._transport, _SCHEDULES, params={"project_id": project_id}, limit=limit)

    def get(self, schedule_id: str) -> Json:
        """A schedule, with its next five times."""
        return self._transport.request("GET", _place(schedule_id))

    def next(self, schedule_id: str, *, count: int = 10) -> Sequence[Json]:
        """The next times, in UTC and in local time."""
        found: Sequence[Json] = self._transport.request("GET", _place(schedule_id, "next"), params={"count": count})[
            "data"
        ]
        return found

    def occurrences(self, schedule_id: str, *, limit: int | None = None) -> Iterator[Json]:
        """What became of each instant, the latest first."""
        return turn_pages(self._transport, _place(schedule_id, "occurrences"), limit=limit)

    def pause(self, schedule_id: str, *, reason: str | None = None) -> Json:
        """Lets it make no more jobs until it is resumed."""
        body = {} if reason is None else {"reason": reason}
        return self._transport.request("POST", _place(schedule_id, "pause"), body=body, repeatable=True)

    def resume(self, schedule_id: str) -> Json:
        """Lets it go on with what comes from now on."""
        return self._transport.request("POST", _place(schedule_id, "resume"), repeatable=True)

    def run_now(self, schedule_id: str, *, idempotency_key: str | None = None) -> Json:
        """Makes a job at once, and returns its occurrence: one, however often it is sent with one key."""
        key = idempotency_key or uuid.uuid4().hex
        return self._transport.request("POST", _place(schedule_id, "run-now"), key=key)

    def backfill(self, schedule_id: str, first: str, last: str, *, idempotency_key: str | None = None) -> Json:
        """Makes the jobs of instants that have none, from the first time to the last. Times are ISO 8601.

        Sent again with one key, it plans nothing more, and has the same answer.
        """
        key = idempotency_key or uuid.uuid4().hex
        body = {"from": first, "to": last}
        return self._transport.request("POST", _place(schedule_id, "backfill"), body=body, key=key)

    def delete(self, schedule_id: str) -> Json:
        """Takes it away; its jobs stay."""
        try:
            return self._transport.request("DELETE", _place(schedule_id), repeatable=True)
        except ApiError as error:
            if error.code == "schedule_not_found" and error.repeated:
                # The first try did it, and only its answer was lost.
                return {"id": schedule_id}
            raise


def _place(schedule_id: str, *more: str) -> str:
    if not schedule_id.strip():
        raise RequestError("the id of a schedule is missing")
    return "/".join([_SCHEDULES, quote(schedule_id, safe=""), *more])
