"""What goes wrong with storage: whether it may pass, and an error that says what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    NoCredentialsError,
    ProfileNotFound,
    ProxyConnectionError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from astraml_ray.data.storage.credentials import OWN, Access
from astraml_ray.data.storage.retries import Failure, FailureKind
from astraml_ray.errors import AstraError, DamagedError, DataError, InfrastructureError, StorageOutageError

__all__ = ["OtherVersionError", "WrongLengthError", "failure_of", "first_line", "given_up", "reading"]

_CONNECTION_WORDS = ("connect", "timed out", "timeout", "connection", "unreachable", "resolve")
_BUSY_CODES = {
    "BandwidthLimitExceeded",
    "RequestLimitExceeded",
    "RequestThrottled",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "TooManyRequestsException",
}
_PASSING_CODES = {"InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable"}
_BUSY_STATUSES = (429, 503)
_PASSING_STATUSES = (408, 425, 500, 502, 504, 507, 509, 520, 522, 524)


class WrongLengthError(OSError):
    """Other bytes came than were asked for: too few, too many, or of another place."""


class OtherVersionError(OSError):
    """The object is not the one that was asked for any more."""


def failure_of(error: BaseException) -> Failure:
    """What a failed request tells of the next one. What is not known to pass does not."""
    import aiohttp  # botocore's requests go through it, so it is there by now

    cause = first_line(error)
    if isinstance(error, ClientError):
        return _refusal(error, cause)
    if isinstance(error, EndpointConnectionError):
        # aiobotocore says this of connections that broke as well.
        inner = error.kwargs.get("error")
        if isinstance(inner, aiohttp.ClientConnectionError) and not isinstance(inner, aiohttp.ClientConnectorError):
            return Failure(FailureKind.PASSING, f"the connection broke: {first_line(inner)}")
        return Failure(FailureKind.UNREACHABLE, cause)
    if isinstance(error, (ConnectTimeoutError, ProxyConnectionError, SSLError)):
        return Failure(FailureKind.UNREACHABLE, cause)
    timeouts = (asyncio.TimeoutError, TimeoutError)  # one class since Python 3.11
    answers = (IncompleteReadError, ResponseParserError, WrongLengthError)
    accounts = (CredentialRetrievalError, MetadataRetrievalError)
    if isinstance(error, (HTTPClientError, aiohttp.ClientError, ConnectionError, *timeouts, *answers, *accounts)):
        return Failure(FailureKind.PASSING, cause)
    return Failure(FailureKind.FINAL, cause)


def _refusal(error: ClientError, cause: str) -> Failure:
    code = str(error.response.get("Error", {}).get("Code", ""))
    answer = error.response.get("ResponseMetadata", {})
    status = int(answer.get("HTTPStatusCode") or 0)
    if code in _BUSY_CODES or (status in _BUSY_STATUSES and code not in _PASSING_CODES):
        return Failure(FailureKind.BUSY, cause, _retry_after(answer))
    if code in _PASSING_CODES or status in (*_BUSY_STATUSES, *_PASSING_STATUSES):
        return Failure(FailureKind.PASSING, cause, _retry_after(answer))
    return Failure(FailureKind.FINAL, cause)


def _retry_after(answer: dict[str, Any]) -> float:
    """In seconds; a date is not understood, and not needed: S3 sends none."""
    try:
        return max(0.0, float(answer.get("HTTPHeaders", {}).get("retry-after", 0)))
    except ValueError:
        return 0.0


def given_up(uri: str, failure: Failure, *, tries: int, spent_s: float) -> StorageOutageError:
    """The error after the last try."""
    return StorageOutageError(
        f"the storage failed {tries} times in {spent_s:.0f} s, the last time: {failure.cause}",
        param=uri,
        hint="check that the storage is up and not overloaded; ASTRAML_STORAGE_DEADLINE_S says how long to insist",
    )


@contextmanager
def reading(uri: str, access: Access = OWN) -> Iterator[None]:
    """Turns what filesystems, botocore and Arrow raise into an error that says what to do, and no secret."""
    try:
        with _explained(uri):
            yield
    except AstraError as error:
        error.message = access.hidden(error.message)
        raise


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    try:
        yield
    except AstraError:
        raise
    except OtherVersionError as error:
        raise DataError(
            f"changed while it was read: {first_line(error)}",
            param=uri,
            hint="read it again when nothing writes to it any more",
        ) from error
    except FileNotFoundError as error:
        missing = "the bucket does not exist" if "bucket" in str(error).lower() else "does not exist"
        raise DataError(missing, param=uri, hint="check the name, the endpoint and the profile") from error
    except (PermissionError, NoCredentialsError, ProfileNotFound) as error:
        raise DataError(
            f"access is denied: {error}",
            param=uri,
            hint="give this machine credentials that may list and read it (AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE), or name a secret that holds some: dataset.credentials",
        ) from error
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, UnicodeDecodeError) as error:
        raise DamagedError(
            f"is damaged or not what its name says: {first_line(error)}",
            param=uri,
            hint=_hint_for(error),
        ) from error
    except (ClientError, BotoCoreError, OSError, asyncio.TimeoutError) as error:
        raise _storage_failure(uri, error) from error


def _storage_failure(uri: str, error: BaseException) -> AstraError:
    text = first_line(error)
    if "NoSuchBucket" in text:
        return DataError("the bucket does not exist", param=uri, hint="check the bucket's name and the endpoint")
    if any(word in f"{type(error).__name__} {text}".lower() for word in _CONNECTION_WORDS):
        return InfrastructureError(
            f"the storage endpoint does not answer: {text}",
            param=uri,
            hint="check AWS_ENDPOINT_URL (or dataset.endpoint_url) and that the server runs",
        )
    if any(word in text for word in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "403")):
        return DataError(
            f"access is denied: {text}",
            param=uri,
            hint="check the credentials: this machine's, or those of dataset.credentials",
        )
    if "Parquet" in text or "thrift" in text.lower():
        return DamagedError(f"is damaged: {text}", param=uri, hint="write the object again")
    return InfrastructureError(f"reading failed: {text}", param=uri)


def first_line(error: BaseException) -> str:
    """Of an error's text, or its class."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _hint_for(error: Exception) -> str:
    text = str(error).lower()
    if isinstance(error, UnicodeDecodeError) or "utf8" in text or "utf-8" in text:
        return "write it as UTF-8 (iconv -f LATIN1 -t UTF-8, if it is Latin-1), or take it out of the dataset"
    return "write the object again, or take it out of the dataset"
