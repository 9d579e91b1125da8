"""The one error handler: whatever goes wrong becomes a problem object (RFC 9457)."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from astraml_ray.access.denials import AccessError, PermissionDeniedError, ProblemsError
from astraml_ray.api.answers import ProblemAnswer
from astraml_ray.api.catalogue import CATALOGUE, entry_of
from astraml_ray.api.errors import HttpError, MethodNotAllowedError, ParameterError, RouteNotFoundError
from astraml_ray.errors import AstraError, Problem, SpecError

__all__ = ["answer_error", "did_you_mean", "problem_object"]

_LOG = logging.getLogger(__name__)
_EXPECTED = ("not_ready", "overloaded")  # by those who probe, and too often to be logged
_MAX_PROBLEMS = 100
_MAX_TEXT = 2_000


def answer_error(error: Exception, scope: Scope) -> ProblemAnswer:
    """The answer to a request that failed. What is no error of ours is logged, and told nothing of."""
    request_id = scope["state"]["request_id"]
    known = _as_known(error, scope)
    code = known.code if known else "internal"
    if known is None or code not in CATALOGUE or CATALOGUE[code].status is None or code == "internal":
        _LOG.error("request %s: %s %s failed", request_id, scope["method"], scope["path"], exc_info=error)
        known, code = None, "internal"
    elif (entry_of(code).status or 0) >= 500 and code not in _EXPECTED:
        _LOG.warning("request %s: %s %s: %s", request_id, scope["method"], scope["path"], known)
    entry = entry_of(code)
    headers = dict(known.headers) if isinstance(known, HttpError) else {}
    if entry.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
        if scope["method"] in ("POST", "PUT", "PATCH", "DELETE"):
            headers["Connection"] = "close"  # what is left of its body is not read
    if isinstance(known, AccessError) and known.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(known.retry_after)))
    if entry.retry_after_s is not None:
        headers.setdefault("Retry-After", str(entry.retry_after_s))
    return ProblemAnswer(problem_object(known, request_id), status_code=entry.status or 500, headers=headers)


def problem_object(error: AstraError | None, request_id: str) -> dict[str, Any]:
    """The members of a problem; None stands for a fault of the service."""
    entry = entry_of(error.code if error else "internal")
    detail = f"request {request_id} failed inside the service; its log says why"
    if error is not None:
        detail = _detail_of(error) if isinstance(error, (SpecError, ProblemsError)) else error.message
    problem: dict[str, Any] = {
        "type": f"/v2.1/errors/{entry.code}",
        "title": entry.title,
        "status": entry.status,
        "detail": detail[:_MAX_TEXT],
        "code": entry.code,
        "class": entry.error_class,
        "stage": entry.stage,
        "retryable": entry.retryable,
        "param": error.param if error else None,
        "hint": (error.hint if error else None) or entry.action,
        "request_id": request_id,
    }
    if isinstance(error, (SpecError, ProblemsError)):
        problem["problems"] = _listed(error.problems)
        problem["param"] = error.problems[0].param if error.problems else None
        problem["hint"] = (error.problems[0].hint if error.problems else None) or entry.action
    if isinstance(error, HttpError):
        problem.update(error.members)
    if isinstance(error, PermissionDeniedError):
        problem |= {"permission": error.permission, "roles": error.roles}
    return problem


def did_you_mean(name: str, known: Sequence[str]) -> str | None:
    """A hint towards a known name that is like this one."""
    close = difflib.get_close_matches(name[:200], known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return f"known here: {', '.join(known)}" if known else None


def _as_known(error: Exception, scope: Scope) -> AstraError | None:
    if isinstance(error, AstraError):
        return error
    if isinstance(error, RequestValidationError):
        return ParameterError.of(_parameter_problem(detail) for detail in error.errors())
    if isinstance(error, HTTPException):
        where = f"{scope['method']} {scope['path']}"
        if error.status_code == 404:
            old = f"{scope['path']}/".startswith("/v1/")
            hint = "of v1 there is POST /v1/jobs; everything else is under /v2.1" if old else None
            return RouteNotFoundError(f"there is nothing at {where}"[:300], hint=hint)
        if error.status_code == 405:
            return MethodNotAllowedError(f"{where} is not supported"[:300], headers=error.headers)
    return None


def _parameter_problem(detail: dict[str, Any]) -> Problem:
    place = [str(part) for part in detail["loc"][1:2]] or ["?"]
    message = str(detail["msg"])
    got = detail.get("input")
    shown = f"; got {got[:80]!r}" if isinstance(got, str) else ""
    return Problem(place[0], f"{place[0]}: {message[0].lower()}{message[1:]}{shown}")


def _detail_of(error: AstraError) -> str:
    problems: list[Problem] = getattr(error, "problems", [])
    if len(problems) == 1:
        return str(problems[0])
    return f"{len(problems)} problems, the first of them: {problems[0]}" if problems else error.message


def _listed(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    listed = [
        {"param": problem.param, "message": problem.message[:_MAX_TEXT], "hint": problem.hint}
        for problem in problems[:_MAX_PROBLEMS]
    ]
    if len(problems) > _MAX_PROBLEMS:
        more = len(problems) - _MAX_PROBLEMS
        listed.append({"param": "", "message": f"and {more} more", "hint": None})
    return listed
