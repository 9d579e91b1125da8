"""The app: routes, middleware and error handler put together."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.params import Depends
from fastapi.routing import APIRoute, APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import Response

from astraml_ray import __version__
from astraml_ray.api import (
    routes_artifacts,
    routes_audit,
    routes_datasets,
    routes_jobs,
    routes_members,
    routes_policies,
    routes_projects,
    routes_records,
    routes_schedules,
    routes_secrets,
    routes_service,
    routes_sweeps,
    routes_tokens,
    routes_v1,
    routes_webhooks,
)
from astraml_ray.api.admission import ApiLimits
from astraml_ray.api.middleware import OPEN_PATHS, Door, Frame, Intake
from astraml_ray.api.openapi import describe
from astraml_ray.api.problems import answer_error
from astraml_ray.api.services import Requires, Services, Validator
from astraml_ray.errors import AstraError

__all__ = ["ApiLimits", "Services", "Validator", "build_app"]

_ROUTERS = (
    routes_jobs.router,
    routes_datasets.router,
    routes_records.router,
    routes_sweeps.router,
    routes_artifacts.router,
    routes_projects.router,
    routes_members.router,
    routes_tokens.router,
    routes_audit.router,
    routes_policies.router,
    routes_secrets.router,
    routes_schedules.router,
    routes_webhooks.router,
    routes_v1.router,
    routes_service.router,
)
_DESCRIPTION = """A job that was answered with 201 is stored, and runs exactly once.

Errors are problem objects (RFC 9457); `code` is stable, and GET /v2.1/errors explains each. Send an `Idempotency-Key`
with what makes a job, and repeat the request with the same key if you get no answer."""


def build_app(services: Services, *, routers: tuple[APIRouter, ...] = ()) -> FastAPI:
    """An ASGI app over its services; it holds no state besides.

    Args:
        services: The store and the rest.
        routers: More routes.

    Raises:
        ValueError: A route declares no permission.
    """
    app = FastAPI(
        title="AstraML",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,  # a page that loads its scripts from elsewhere, and that no browser could send a token for
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.services = services
    included = (*_ROUTERS, *routers)
    for router in included:
        _check_permissions(router)
        app.include_router(router)
    _handle_errors(app, included)
    describe(app)
    # The last one added is the outermost.
    app.add_middleware(Intake, admission=services.admission, limits=services.limits)
    app.add_middleware(Door, services=services)
    app.add_middleware(Frame, sends_request_id=services.sends_request_id)
    return app


def _check_permissions(router: APIRouter) -> None:
    for route in router.routes:
        if isinstance(route, APIRoute) and route.path not in OPEN_PATHS:
            declared = [one for one in route.dependencies if isinstance(one, Depends)]
            if not any(isinstance(one.dependency, Requires) for one in declared):
                raise ValueError(f"{route.path} declares no permission: add Depends(Requires(...))")


def _handle_errors(app: FastAPI, routers: tuple[APIRouter, ...]) -> None:
    async def handle(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException) and error.status_code == 405:
            allowed = ", ".join(_methods_of(request.scope["path"], routers))
            if request.method == "OPTIONS":
                return Response(status_code=204, headers={"Allow": allowed})
            error = HTTPException(405, headers={"Allow": allowed})
        return answer_error(error, request.scope)

    for kind in (AstraError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, handle)


def _methods_of(path: str, routers: tuple[APIRouter, ...]) -> list[str]:
    """Of all routes of a path; a router only knows those of the first one."""
    methods = {"OPTIONS"}
    for router in routers:
        for route in router.routes:
            if isinstance(route, APIRoute) and route.path_regex.match(path):
                methods |= set(route.methods or ())
    return sorted(methods | ({"HEAD"} if "GET" in methods else set()))
