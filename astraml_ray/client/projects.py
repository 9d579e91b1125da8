"""Projects, their members and their quotas, over HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

from astraml_ray.client.failures import ApiError
from astraml_ray.client.following import turn_pages
from astraml_ray.client.transport import Transport
from astraml_ray.errors import RequestError

__all__ = ["Projects"]

_PROJECTS = "/v2.1/projects"
_ORGANISATION = "/v2.1/organisation"

Json = dict[str, Any]


class Projects:
    """Projects. Where `project_id` may be None, that is the organisation."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, *, limit: int | None = None) -> Iterator[Json]:
        """Those that the token may see, by id."""
        return turn_pages(self._transport, _PROJECTS, limit=limit)

    def create(self, project_id: str, *, title: str | None = None) -> Json:
        """A new project."""
        return self._transport.request("POST", _PROJECTS, body={"id": project_id, "title": title})

    def get(self, project_id: str) -> Json:
        """A project, what the token may do there, and its quota."""
        return self._transport.request("GET", _place(project_id))

    def archive(self, project_id: str) -> Json:
        """Closes a project for new jobs."""
        return self._transport.request("POST", _place(project_id, "archive"), repeatable=True)

    def reopen(self, project_id: str) -> Json:
        """Opens an archived project again."""
        return self._transport.request("POST", _place(project_id, "reopen"), repeatable=True)

    def members(self, project_id: str | None, *, limit: int | None = None) -> Iterator[Json]:
        """Who has a role, by name."""
        return turn_pages(self._transport, _place(project_id, "members"), limit=limit)

    def grant(
        self,
        project_id: str | None,
        subject: str,
        role: str,
        *,
        permissions: Iterable[str] = (),
        expires_at: str | None = None,
        expires_in: str | None = None,
    ) -> Json:
        """Gives someone a role, in place of the one they have.

        Args:
            permissions: Given besides the role.
            expires_at: Its end, ISO 8601.
            expires_in: Its end from now on, such as "30d".
        """
        asked = {"role": role, "permissions": [*permissions], "expires_at": expires_at, "expires_in": expires_in}
        body = {name: value for name, value in asked.items() if value is not None}
        return self._transport.request("PUT", _place(project_id, "members", subject), body=body, repeatable=True)

    def revoke(self, project_id: str | None, subject: str) -> Json | None:
        """Takes someone's role; returns the one that they had, or None if only the answer to the first try was lost."""
        try:
            return self._transport.request("DELETE", _place(project_id, "members", subject), repeatable=True)
        except ApiError as error:
            if error.code == "not_found" and error.repeated:
                return None
            raise

    def quota(self, project_id: str | None) -> Json:
        """The bounds, and what is taken of them."""
        return self._transport.request("GET", _place(project_id, "quota"))

    def set_quota(
        self,
        project_id: str | None,
        *,
        gpus_at_once: int | None,
        jobs_at_once: int | None,
        gpu_hours_per_week: float | None,
    ) -> Json:
        """Sets all three bounds; None takes one away."""
        body = {
            "gpus_at_once": gpus_at_once,
            "jobs_at_once": jobs_at_once,
            "gpu_hours_per_week": gpu_hours_per_week,
        }
        return self._transport.request("PUT", _place(project_id, "quota"), body=body, repeatable=True)


def _place(project_id: str | None, *more: str) -> str:
    names = [*more] if project_id is None else [project_id, *more]
    if not all(name.strip() for name in names):
        raise RequestError("the name of a project or member is missing")
    place = _ORGANISATION if project_id is None else f"{_PROJECTS}/{quote(project_id, safe='')}"
    return "/".join([place, *(quote(part, safe="") for part in more)])
