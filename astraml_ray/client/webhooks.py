"""Webhooks of projects, over HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from astraml_ray.client.following import turn_pages
from astraml_ray.client.transport import Transport
from astraml_ray.errors import RequestError

__all__ = ["Webhooks"]

Json = dict[str, Any]
_POLL_S = 0.2


class Webhooks:
    """Webhooks, each of one project."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        project_id: str,
        name: str,
        url: str,
        *,
        events: Sequence[str] | None = None,
        conditions: Sequence[Mapping[str, Any]] = (),
        format: str = "standard",  # noqa: A002
        labels: Mapping[str, str] | None = None,
        enabled: bool = True,
    ) -> Json:
        """Makes a webhook. `signing_key` in the answer is shown this once.

        It is not sent twice by itself: if the answer is lost, so is the key, and `rotate` makes another.
        """
        body: Json = {"name": name, "url": url, "conditions": [dict(one) for one in conditions], "format": format}
        body |= {"labels": dict(labels or {}), "enabled": enabled}
        if events is not None:
            body["events"] = list(events)
        return self._transport.request("POST", _place(project_id), body=body)

    def list(self, project_id: str) -> list[Json]:
        """All of a project, by name."""
        return list(self._transport.request("GET", _place(project_id))["data"])

    def get(self, project_id: str, name: str) -> Json:
        """A webhook."""
        return self._transport.request("GET", _place(project_id, name))

    def change(self, project_id: str, name: str, **fields: Any) -> Json:
        """Changes the fields that are given, of those that `create` takes."""
        return self._transport.request("PATCH", _place(project_id, name), body=fields, repeatable=True)

    def delete(self, project_id: str, name: str) -> Json:
        """Takes it away, with its log."""
        return self._transport.request("DELETE", _place(project_id, name))

    def rotate(self, project_id: str, name: str, *, overlap: str = "24h") -> Json:
        """Makes a new signing key, `signing_key` in the answer; the one before it counts for `overlap` more."""
        return self._transport.request("POST", _place(project_id, name, "rotate"), body={"overlap": overlap})

    def test(self, project_id: str, name: str, *, wait_s: float = 30.0) -> Json:
        """Sends a test, and waits for how it goes; `status` is "pending" if that takes longer."""
        sent = self._transport.request("POST", _place(project_id, name, "test"))
        return self._awaited(project_id, name, sent, wait_s)

    def deliveries(
        self, project_id: str, name: str, *, status: str | None = None, limit: int | None = None
    ) -> Iterator[Json]:
        """What it was told, the newest first."""
        return turn_pages(
            self._transport, _place(project_id, name, "deliveries"), params={"status": status}, limit=limit
        )

    def delivery(self, project_id: str, name: str, delivery_id: str) -> Json:
        """A message, with its body and how each try went."""
        return self._transport.request("GET", _place(project_id, name, "deliveries", delivery_id))

    def replay(self, project_id: str, name: str, delivery_id: str, *, wait_s: float = 0.0) -> Json:
        """Sends a message again, with its id; waits for how the next try goes, if asked to."""
        place = _place(project_id, name, "deliveries", delivery_id, "replay")
        sent = self._transport.request("POST", place, repeatable=True)
        return self._awaited(project_id, name, sent, wait_s)

    def _awaited(self, project_id: str, name: str, sent: Json, wait_s: float) -> Json:
        """The message after the next try, or as it is when the time is over."""
        found, until = sent, time.monotonic() + wait_s
        while found["attempts"] == sent["attempts"] and time.monotonic() < until:
            time.sleep(_POLL_S)
            found = self.delivery(project_id, name, sent["id"])
        return found


def _place(project_id: str, *more: str) -> str:
    if not all(part.strip() for part in (project_id, *more)):
        raise RequestError("the name of a project or webhook is missing")
    return "/".join(
        ["/v2.1/projects", quote(project_id, safe=""), "webhooks", *(quote(part, safe="") for part in more)]
    )
