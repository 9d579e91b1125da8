"""The audit trail, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from astraml_ray.client.following import turn_pages
from astraml_ray.client.transport import Transport

__all__ = ["Audit"]

_AUDIT = "/v2.1/audit"
_PAGE = 1000
_VERIFY_S = 600.0
"""For the answer to a check: the service reads the whole trail before it answers."""

Json = dict[str, Any]


class Audit:
    """Who changed what."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        *,
        project_id: str | None = None,
        actor: str | None = None,
        action: str | None = None,
        target: str | None = None,
        after: int | None = None,
        limit: int | None = None,
    ) -> Iterator[Json]:
        """Changes, page by page as they are asked for: the newest first, or the oldest first with `after`.

        Args:
            project_id: Only of this project; left out, of the whole installation.
            actor: Whose.
            action: Such as "policy.changed", or "policy" for all about policies.
            target: What was changed.
            after: Only greater numbers; 0 is all, in the order in which they were made.
        """
        params = {"project_id": project_id, "actor": actor, "action": action, "target": target, "after": after}
        return turn_pages(self._transport, _AUDIT, params=params, limit=limit, size=_PAGE)

    def verify(self) -> Json:
        """Whether the trail is as it was written."""
        return self._transport.request("GET", f"{_AUDIT}/verify", timeout_s=_VERIFY_S)
