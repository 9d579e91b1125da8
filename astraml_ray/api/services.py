"""What the routes work with, and the one question they ask about rights."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

import anyio
from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from astraml_ray.api.admission import Admission, ApiLimits
from astraml_ray.api.queries import strict_query
from astraml_ray.store.engine import Store

__all__ = ["PERMISSIONS", "ApiServices", "Authorize", "Requires", "Services", "Validator", "authorize_project"]

PERMISSIONS = frozenset(
    {
        "artifact.read",
        "catalogue.read",
        "cluster.read",
        "job.cancel",
        "job.read",
        "job.resume",
        "job.submit",
    }
)
"""Every permission that a route can ask for."""

Authorize = Callable[[Request, str, "str | None"], None]
"""Takes the request, the permission and the project, and raises if the caller may not.

It is asked before a request is read, with None for the project: who is it? And again once the project is known: may
they? Only what is of no project, such as a list of all projects' jobs, is asked for with None alone.
"""


class Validator(Protocol):
    """Dry runs."""

    def validate(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Reads the bucket and the model's files, and tells what a run would do.

        Raises:
            AstraError: What is wrong with the spec, the dataset or the model.
        """


@dataclass
class Services:
    """What an app is made of.

    Attributes:
        store: The database.
        validator: Dry runs.
        nudge: Tells the controller that there is news; what it raises is logged, and no more.
        clock: Seconds since the epoch.
        limits: Bounds of this process.
        authorize: None leaves everything open.
        cluster: What the controller knows of the cluster, if anyone can tell.
        sends_request_id: False behind a proxy that adds X-Request-Id to the answers itself.
    """

    store: Store
    validator: Validator
    nudge: Callable[[], None]
    clock: Callable[[], float] = time.time
    limits: ApiLimits = field(default_factory=ApiLimits)
    authorize: Authorize | None = None
    cluster: Callable[[], dict[str, Any]] | None = None
    sends_request_id: bool = True

    def __post_init__(self) -> None:
        self.admission = Admission(max_concurrent=self.limits.max_concurrent, max_streams=self.limits.max_streams)
        self.validations = threading.BoundedSemaphore(self.limits.max_validations)
        # Threads of their own, so that followers hold up no requests, and a slow bucket no followers.
        self.stream_threads = anyio.CapacityLimiter(16)
        self.download_threads = anyio.CapacityLimiter(16)


def _services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _services_dependency(request: Request) -> Services:
    return _services_of(request)


ApiServices = Annotated[Services, Depends(_services_dependency)]
"""A route's parameter: the app's services."""


class Requires:
    """A route's declaration of the permission that it asks for.

    Args:
        permission: One of PERMISSIONS.
    """

    def __init__(self, permission: str) -> None:
        if permission not in PERMISSIONS:
            raise ValueError(f"unknown permission {permission!r}")
        self.permission = permission

    async def __call__(self, request: Request) -> None:
        """Asks for it, of no particular project yet, and only then looks at the query."""
        request.state.permission = self.permission
        authorize = _services_of(request).authorize
        if authorize is not None:
            await run_in_threadpool(authorize, request, self.permission, None)
        await strict_query(request)


def authorize_project(request: Request, project_id: str) -> None:
    """Asks for the route's permission in a project."""
    authorize = _services_of(request).authorize
    if authorize is not None:
        authorize(request, request.state.permission, project_id)
