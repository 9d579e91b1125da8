"""Secrets of projects, over HTTP. A value goes there, and never comes back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from astraml_ray.client.following import turn_pages
from astraml_ray.client.transport import Transport
from astraml_ray.errors import RequestError

__all__ = ["Secrets"]

Json = dict[str, Any]


class Secrets:
    """Secrets, each of one project."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, project_id: str) -> list[Json]:
        """The newest version of each, by name, without values."""
        return list(self._transport.request("GET", _place(project_id))["data"])

    def set(self, project_id: str, name: str, value: str) -> Json:
        """Stores a secret, or a new version of one; `warnings` say what is odd about it."""
        # Not sent twice by itself: that would make two versions.
        return self._transport.request("PUT", _place(project_id, name), body={"value": value})

    def delete(self, project_id: str, name: str) -> Json:
        """Destroys a secret, in all its versions."""
        return self._transport.request("DELETE", _place(project_id, name))

    def uses(self, project_id: str, name: str, *, limit: int | None = None) -> Iterator[Json]:
        """The attempts of jobs that were given it, the newest first."""
        return turn_pages(self._transport, _place(project_id, name, "uses"), limit=limit)


def _place(project_id: str, *more: str) -> str:
    if not all(part.strip() for part in (project_id, *more)):
        raise RequestError("the name of a project or secret is missing")
    return "/".join(["/v2.1/projects", quote(project_id, safe=""), "secrets", *(quote(part, safe="") for part in more)])
