"""What the routes work with, and the questions they ask about rights."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol

import anyio
from fastapi import Depends, Request

from astraml_ray.access.gate import Gate
from astraml_ray.access.permissions import Permission
from astraml_ray.access.targets import AllowedTargets
from astraml_ray.access.tokens import Principal
from astraml_ray.api.admission import Admission, ApiLimits
from astraml_ray.api.queries import strict_query
from astraml_ray.store.engine import Store

__all__ = [
    "ApiServices",
    "Caller",
    "Requires",
    "Services",
    "Validator",
    "authorize_project",
    "caller_of",
]


class Validator(Protocol):
    """Dry runs."""

    def validate(self, spec: dict[str, Any], *, grant: str | None = None) -> dict[str, Any]:
        """Reads the bucket and the model's files, and tells what a run would do.

        Args:
            spec: Of the job.
            grant: For the dataset's credentials, if the spec names some.

        Raises:
            AstraError: What is wrong with the spec, the dataset or the model.
        """

    def inspect(self, spec: dict[str, Any], *, limit: int, grant: str | None = None) -> dict[str, Any]:
        """Reads the dataset, and tells what it holds.

        Args:
            spec: Of a job; only its dataset counts.
            limit: Rows of each split.
            grant: For the dataset's credentials, if the spec names some.

        Raises:
            AstraError: The dataset cannot be read.
        """

    def preview(self, spec: dict[str, Any], *, rows: int, draws: int, grant: str | None = None) -> dict[str, Any]:
        """Reads the first training rows, and tells what augmentation makes of them.

        Args:
            spec: Of a job; its model does not count.
            rows: How many, at most.
            draws: Of images: epochs to show of each row.
            grant: For the dataset's credentials, if the spec names some.

        Raises:
            AstraError: The dataset cannot be read, or its augmentation does not fit it.
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
        targets: Addresses that jobs may name, besides public ones.
        keys: The file of the master keys, read whenever it is needed; None for an app without secrets.
        cluster: What the controller knows of the cluster, if anyone can tell.
        sends_request_id: False behind a proxy that adds X-Request-Id to the answers itself.
    """

    store: Store
    validator: Validator
    nudge: Callable[[], None]
    clock: Callable[[], float] = time.time
    limits: ApiLimits = field(default_factory=ApiLimits)
    targets: AllowedTargets = field(default_factory=AllowedTargets)
    keys: Path | None = None
    cluster: Callable[[], dict[str, Any]] | None = None
    sends_request_id: bool = True

    def __post_init__(self) -> None:
        self.gate = Gate(self.store)
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


async def _caller_dependency(request: Request) -> Principal:
    return caller_of(request)


Caller = Annotated[Principal, Depends(_caller_dependency)]
"""A route's parameter: who asks."""


def caller_of(request: Request) -> Principal:
    """Who asks; nothing reaches a route before that is known."""
    principal: Principal = request.scope["state"]["principal"]
    return principal


class Requires:
    """A route's declaration of the permission that it asks for.

    Args:
        permission: Asked for in the project that the request turns out to be about, by `authorize_project`; None is
            for whoever has a token.
        organisation: The route is about no project, and so it is asked for at once.
    """

    def __init__(self, permission: Permission | None, *, organisation: bool = False) -> None:
        self.permission = permission
        self.organisation = organisation

    async def __call__(self, request: Request) -> None:
        """Looks at the query too, but not for those who may not ask at all."""
        request.state.permission = self.permission
        if self.organisation and self.permission is not None:
            caller_of(request).require(self.permission, None)
        await strict_query(request)


def authorize_project(request: Request, project_id: str, permission: Permission | None = None) -> None:
    """Asks for the route's permission in a project, or for another one.

    Raises:
        ProjectNotFoundError: There is none, or the caller is no member.
        PermissionDeniedError: The caller's role lacks it.
    """
    asked = permission or request.state.permission
    _services_of(request).gate.require(caller_of(request), asked, project_id)
