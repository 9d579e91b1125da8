"""Policies of projects and of the organisation, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from astraml_ray.client.following import turn_pages
from astraml_ray.client.transport import Transport
from astraml_ray.errors import RequestError

__all__ = ["Policies"]

_REPLAY_S = 180.0
"""For the answer to a replay of a thousand jobs."""

Json = dict[str, Any]


class Policies:
    """Policies. A `project_id` of None is the organisation, whose policy holds in every project."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, project_id: str | None, version: int | None = None) -> Json:
        """A version, or the one in force; version 0 has no rules."""
        more = () if version is None else ("versions", str(version))
        return self._transport.request("GET", _policy(project_id, *more))

    def set(
        self,
        project_id: str | None,
        document: Mapping[str, Any],
        *,
        note: str | None = None,
        expected: int | None = None,
    ) -> Json:
        """Puts a policy in force, as a new version.

        Args:
            document: `{"rules": {path: {verb: value}}}`.
            note: Why.
            expected: The version it was made from: it is refused if there is another by now.
        """
        body = {"document": dict(document), "note": note, "expected": expected}
        return self._transport.request("PUT", _policy(project_id), body=body)

    def versions(self, project_id: str | None, *, limit: int | None = None) -> Iterator[Json]:
        """All versions without their rules, newest first."""
        return turn_pages(self._transport, _policy(project_id, "versions"), limit=limit)

    def diff(self, project_id: str | None, before: int | None = None, after: int | None = None) -> Json:
        """What one version says differently from another: left out, the newest from the one before it."""
        return self._transport.request("GET", _policy(project_id, "diff"), params={"from": before, "to": after})

    def restore(
        self, project_id: str | None, version: int, *, note: str | None = None, expected: int | None = None
    ) -> Json:
        """Puts an earlier version in force again, as a new one."""
        body = {"version": version, "note": note, "expected": expected}
        return self._transport.request("POST", _policy(project_id, "restore"), body=body)

    def replay(self, project_id: str | None, document: Mapping[str, Any], *, last: int = 100) -> Json:
        """What a policy would have changed or rejected among the last jobs; changes nothing."""
        body = {"document": dict(document), "last": last}
        path = _policy(project_id, "replay")
        return self._transport.request("POST", path, body=body, repeatable=True, timeout_s=_REPLAY_S)


def _policy(project_id: str | None, *more: str) -> str:
    if project_id is None:
        place = "/v2.1/organisation"
    elif project_id.strip():
        place = f"/v2.1/projects/{quote(project_id, safe='')}"
    else:
        raise RequestError("the name of a project is missing")
    return "/".join([place, "policy", *more])
