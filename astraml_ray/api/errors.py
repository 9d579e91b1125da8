"""What a request can come to grief on. Each class is one code of the catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from astraml_ray.errors import AstraError, Problem

__all__ = [
    "ArtifactNotFoundError",
    "BodyTimeoutError",
    "BodyTooLargeError",
    "ErrorCodeNotFoundError",
    "HttpError",
    "KeyInFlightError",
    "KeyInvalidError",
    "KeyReusedError",
    "MalformedBodyError",
    "MediaTypeError",
    "MethodNotAllowedError",
    "NotASweepError",
    "NotReadyError",
    "NotResumableError",
    "OverloadedError",
    "ParameterError",
    "RangeNotSatisfiableError",
    "RouteNotFoundError",
    "ValidationTimeoutError",
]


class HttpError(AstraError):
    """An error that only a request can have.

    Args:
        headers: Added to the answer.
        members: Added to the problem object.
    """

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        hint: str | None = None,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, param=param, hint=hint)
        self.headers = dict(headers or {})
        self.members = dict(members or {})


class MalformedBodyError(HttpError):
    """The body is not JSON (or YAML) that every reader understands alike."""

    code = "invalid_json"


class ParameterError(HttpError):
    """A parameter of the query, a header, or a field of a body that is no spec."""

    code = "invalid_parameter"

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> ParameterError:
        """All problems at once; the first one speaks for them."""
        found = list(problems)
        members = {"problems": [{"param": p.param, "message": p.message, "hint": p.hint} for p in found]}
        return cls(found[0].message, param=found[0].param, hint=found[0].hint, members=members)


class MediaTypeError(HttpError):
    """The body's type or encoding is not supported."""

    code = "unsupported_media_type"


class BodyTooLargeError(HttpError):
    """The body is larger than any spec."""

    code = "body_too_large"


class BodyTimeoutError(HttpError):
    """The body did not arrive in time."""

    code = "request_timeout"


class RouteNotFoundError(HttpError):
    """There is nothing at this path."""

    code = "route_not_found"


class MethodNotAllowedError(HttpError):
    """The path is known, with other methods."""

    code = "method_not_allowed"


class ArtifactNotFoundError(HttpError):
    """The run has no such file."""

    code = "artifact_not_found"


class ErrorCodeNotFoundError(HttpError):
    """The catalogue has no such code."""

    code = "error_code_not_found"


class RangeNotSatisfiableError(HttpError):
    """The range begins after the file's end."""

    code = "range_not_satisfiable"


class NotResumableError(HttpError):
    """The job left nothing to go on from, or has not ended."""

    code = "job_not_resumable"


class NotASweepError(HttpError):
    """The job trains one model, and has no trials."""

    code = "not_a_sweep"


class KeyInvalidError(HttpError):
    """The idempotency key is not 1 to 255 printable ASCII characters."""

    code = "idempotency_key_invalid"


class KeyReusedError(HttpError):
    """The idempotency key belongs to another request."""

    code = "idempotency_key_reused"


class KeyInFlightError(HttpError):
    """A request with the same key may be under way."""

    code = "idempotency_key_in_flight"


class OverloadedError(HttpError):
    """As many requests are under way as this process takes."""

    code = "overloaded"
    retryable = True


class ValidationTimeoutError(HttpError):
    """Looking at the dataset took too long."""

    code = "validation_timeout"
    retryable = True


class NotReadyError(HttpError):
    """The service cannot do its work at the moment."""

    code = "not_ready"
    retryable = True
