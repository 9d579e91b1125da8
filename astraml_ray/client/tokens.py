"""Tokens, and what one may do with one's own, over HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

from astraml_ray.client.following import turn_pages
from astraml_ray.client.transport import Transport
from astraml_ray.errors import RequestError

__all__ = ["Tokens"]

_TOKENS = "/v2.1/tokens"

Json = dict[str, Any]


class Tokens:
    """Tokens."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        *,
        subject: str | None = None,
        service: str | None = None,
        role: str | None = None,
        project_id: str | None = None,
        permissions: Iterable[str] | None = None,
        expires_at: str | None = None,
        expires_in: str | None = None,
        note: str | None = None,
    ) -> Json:
        """Makes a token; `token` in what it returns is shown this once.

        It is not sent twice: if the answer is lost, look for the token in `list`, and revoke it.

        Args:
            subject: Whose it is; left out, one's own.
            service: The name of a service, which makes it a token with a role of its own.
            role: Of a service.
            project_id: The only project where it counts.
            permissions: The only ones it has; left out, all of its roles'.
            expires_at: Its end, ISO 8601.
            expires_in: Its end from now on, such as "90d".
            note: For people.
        """
        asked = {
            "kind": "personal" if service is None else "service",
            "subject": subject,
            "name": service,
            "role": role,
            "project_id": project_id,
            "permissions": None if permissions is None else [*permissions],
            "expires_at": expires_at,
            "expires_in": expires_in,
            "note": note,
        }
        body = {name: value for name, value in asked.items() if value is not None}
        return self._transport.request("POST", _TOKENS, body=body)

    def list(
        self, *, project_id: str | None = None, organisation: bool = False, limit: int | None = None
    ) -> Iterator[Json]:
        """One's own, newest first; those of a project; or with `organisation` everyone's."""
        params = {"project_id": project_id, "organisation": "true" if organisation else None}
        return turn_pages(self._transport, _TOKENS, params=params, limit=limit)

    def revoke(self, token_id: str) -> Json:
        """Takes a token back for ever. The id is the part of it between the underscores."""
        if not token_id.strip():
            raise RequestError("the id of a token is missing")
        return self._transport.request("DELETE", f"{_TOKENS}/{quote(token_id, safe='')}", repeatable=True)

    def whoami(self) -> Json:
        """Whom this client's token stands for."""
        return self._transport.request("GET", "/v2.1/whoami")

    def can_i(self, permission: str | None = None, *, project_id: str | None = None) -> Json:
        """Whether something may be done in a project, or in the organisation; without a permission, all that may be."""
        return self._transport.request(
            "GET", "/v2.1/can-i", params={"permission": permission, "project_id": project_id}
        )
