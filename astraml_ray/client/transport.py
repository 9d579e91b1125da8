"""Requests to the service: tried again where that is safe, and every failure an error of ours."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

import astraml_ray
from astraml_ray.client.endpoint import Endpoint
from astraml_ray.client.failures import ApiError, unreachable
from astraml_ray.client.outage import Outage
from astraml_ray.errors import AstraError, InfrastructureError

__all__ = ["Transport"]

_TRY_AGAIN = frozenset({408, 429, 502, 503})
_FIRST_CONTACT_S = 3.0
"""A service that never answered is more likely not there than on its way back."""
_SILENCE_S = 60.0
"""A stream is dead after so long without a byte; the service sends one every 15 s."""


class Transport:
    """One connection pool to one service.

    Args:
        timeout_s: For one answer.
        retry_s: How long a request is tried again while the service is away.
    """

    def __init__(self, endpoint: Endpoint, *, timeout_s: float, retry_s: float) -> None:
        self.endpoint = endpoint
        self.retry_s = retry_s
        self._timeout_s = timeout_s
        self._met = False
        headers = {"User-Agent": f"astraml/{astraml_ray.__version__}"}
        if endpoint.token:
            headers["Authorization"] = f"Bearer {endpoint.token}"
        self._http = httpx.Client(
            base_url=endpoint.address,
            headers=headers,
            # A proxy of the environment cannot reach this machine's loopback.
            trust_env=not endpoint.is_local,
            # To read all certificate authorities takes longer than most commands; without TLS none is needed.
            verify=not endpoint.is_local or endpoint.address.startswith("https:"),
        )

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def patience(self, wanted_s: float) -> float:
        """How long to bear with a service that is away: shorter if it never answered."""
        return wanted_s if self._met else min(wanted_s, _FIRST_CONTACT_S)

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        key: str | None = None,
        repeatable: bool = False,
        patience_s: float | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """The JSON object of an answer.

        Args:
            key: An idempotency key, which makes any request repeatable.
            repeatable: To send it twice does what sending it once does. A GET is.
            patience_s: How long to try again; `retry_s` if left out.
            timeout_s: For one answer, where it takes longer than others.

        Raises:
            ApiError: The service refused, or failed.
            InfrastructureError: It does not answer.
        """
        safe = repeatable or key is not None or method == "GET"
        patience_s = self.retry_s if patience_s is None else patience_s
        headers = {"Idempotency-Key": key} if key is not None else {}
        timeout = httpx.Timeout(timeout_s or self._timeout_s, connect=min(5.0, self._timeout_s))
        outage = Outage()
        tries = 0
        while True:
            try:
                response = self._http.request(
                    method, path, params=_flat(params), json=body, headers=headers, timeout=timeout
                )
                self._met = True
                self._raise_for_status(response)
                return self._json_object(response)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                # Nothing was sent, so nothing can have happened twice.
                failure: AstraError = self.lost(error)
            except httpx.TransportError as error:
                failure = self.lost(error)
                if not safe:
                    raise failure from error
            except ApiError as error:
                error.repeated = tries > 0
                if not (safe and _passes(error)):
                    raise
                failure = error
            outage.bear(failure, patience_s=self.patience(patience_s), at_least_s=_asked(failure))
            tries += 1

    @contextmanager
    def stream(
        self, path: str, *, params: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[httpx.Response]:
        """A response whose body is still to be read, as it was sent. One try.

        Raises:
            ApiError: The service refused, or failed.
            httpx.TransportError: The connection failed, here or while the body is read.
        """
        timeout = httpx.Timeout(self._timeout_s, connect=min(5.0, self._timeout_s), read=_SILENCE_S)
        asked = {"Accept-Encoding": "identity", **(headers or {})}
        with self._http.stream("GET", path, params=_flat(params), headers=asked, timeout=timeout) as response:
            self._met = True
            if response.status_code >= 300:
                response.read()
                self._raise_for_status(response)
            yield response

    def lost(self, error: httpx.TransportError) -> InfrastructureError:
        """A failed connection as an error of ours."""
        # Something took the connection.
        self._met = self._met or not isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
        if isinstance(error, httpx.ReadTimeout):
            why = "no answer in time"
        else:
            why = str(error).strip() or type(error).__name__
        failure = unreachable(self.endpoint.address, why)
        failure.__cause__ = error
        return failure

    def _raise_for_status(self, response: httpx.Response) -> None:
        if response.status_code < 300:
            return
        try:
            problem = response.json()
        except ValueError:
            problem = None
        if not isinstance(problem, dict):
            problem = {
                "title": f"the service answered {response.status_code} {response.reason_phrase}",
                "param": str(response.request.url),
                "hint": f"is {self.endpoint.address} an AstraML service?" if response.status_code < 500 else None,
            }
        raise ApiError(response.status_code, problem, retry_after_s=_retry_after_s(response))

    def _json_object(self, response: httpx.Response) -> dict[str, Any]:
        try:
            found = response.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise InfrastructureError(
                "the answer is no JSON object",
                param=str(response.request.url),
                hint=f"is {self.endpoint.address} an AstraML service?",
            )
        return found


def _flat(params: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (params or {}).items() if value is not None}


def _passes(error: ApiError) -> bool:
    return error.status in _TRY_AGAIN or error.code == "idempotency_key_in_flight"


def _asked(failure: AstraError) -> float:
    return (failure.retry_after_s or 0.0) if isinstance(failure, ApiError) else 0.0


def _retry_after_s(response: httpx.Response) -> float | None:
    """`Retry-After` in seconds: it may be written as a number or as a date."""
    text = response.headers.get("Retry-After")
    if text is None:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None
