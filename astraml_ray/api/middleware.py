"""What surrounds every request: its id, the last error handler, who asks, admission, the body's bounds. Pure ASGI."""

from __future__ import annotations

import asyncio
import re
import uuid

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from astraml_ray.api.admission import Admission, ApiLimits
from astraml_ray.api.errors import BodyTimeoutError, BodyTooLargeError
from astraml_ray.api.problems import answer_error
from astraml_ray.api.services import Services

__all__ = ["OPEN_PATHS", "Door", "Frame", "Intake"]

_SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PROBES = ("/healthz", "/readyz", "/metrics")
OPEN_PATHS = ("/healthz", "/readyz")
"""The health checks: all that answers without a token."""
_BODIES = ("POST", "PUT", "PATCH", "DELETE")


class _GoneError(Exception):
    """The client left before its request was whole."""


class Frame:
    """The outermost layer: request ids, headers, HEAD, and an answer to what nobody else caught.

    Args:
        app: The rest.
        sends_request_id: Whether X-Request-Id is added; false behind a proxy that adds it.
    """

    def __init__(self, app: ASGIApp, *, sends_request_id: bool) -> None:
        self._app = app
        self._sends_request_id = sends_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD"
        state = {**scope.get("state", {}), "request_id": _request_id(scope), "is_head": is_head}
        scope = {**scope, "state": state, "method": "GET" if is_head else scope["method"]}
        started = False

        async def framed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self._add_headers(message, scope)
            elif is_head and message["type"] == "http.response.body":
                if message.get("more_body"):
                    return
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        try:
            await self._app(scope, receive, framed)
        except _GoneError:
            return
        except Exception as error:
            if started:
                raise
            await answer_error(error, scope)(scope, receive, framed)

    def _add_headers(self, message: Message, scope: Scope) -> None:
        headers = MutableHeaders(scope=message)
        if self._sends_request_id:
            headers["X-Request-Id"] = scope["state"]["request_id"]
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Referrer-Policy"] = "no-referrer"
        headers.setdefault("Cache-Control", "no-store")
        headers["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"


class Door:
    """Lets nobody in who does not say who they are: whatever is asked for but the health checks, and before a body is
    read. The principal goes on with the request."""

    def __init__(self, app: ASGIApp, *, services: Services) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            header = _authorization(scope)
            now, gate = self._services.clock(), self._services.gate
            principal = gate.remembered(header, now=now)
            if principal is None:
                source = (scope.get("client") or ("unknown",))[0]
                principal = await run_in_threadpool(gate.authenticate, header, now=now, source=source)
            scope["state"]["principal"] = principal
        await self._app(scope, receive, send)


class Intake:
    """Takes in as many requests as the process can serve, each with its whole body in memory.

    A slow sender therefore holds no place, and what is too large never reaches the routes.
    """

    def __init__(self, app: ASGIApp, *, admission: Admission, limits: ApiLimits) -> None:
        self._app = app
        self._admission = admission
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection."""
        if scope["type"] != "http" or scope["path"] in _PROBES:
            await self._app(scope, receive, send)
            return
        self._admission.refuse_if_full()
        if scope["method"] in _BODIES:
            receive = _replay(await self._body(scope, receive), receive)
        slot = self._admission.enter()
        scope["state"]["slot"] = slot
        try:
            await self._app(scope, receive, send)
        finally:
            slot.leave()

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        limit = self._limits.max_body_bytes
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdigit() and len(length) < 20 and int(length) > limit:
            raise _too_large(limit)
        try:
            return await asyncio.wait_for(_read(receive, limit), self._limits.body_timeout_s)
        except asyncio.TimeoutError:
            raise BodyTimeoutError(
                f"the body did not arrive within {self._limits.body_timeout_s:g} s", headers={"Connection": "close"}
            ) from None


def _authorization(scope: Scope) -> str | None:
    """The header; two of them are none."""
    values = Headers(scope=scope).getlist("authorization")
    return values[0] if len(values) == 1 else " " if values else None


async def _read(receive: Receive, limit: int) -> bytes:
    chunks = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _GoneError
        chunks += message.get("body", b"")
        if len(chunks) > limit:
            raise _too_large(limit)
        if not message.get("more_body"):
            return bytes(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body once, then whatever else the server tells."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay


def _too_large(limit: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"the body is over {limit} bytes", headers={"Connection": "close"})


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _SANE_ID.fullmatch(given) else f"req-{uuid.uuid4().hex}"
