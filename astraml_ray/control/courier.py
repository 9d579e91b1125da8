"""One try to send a message: to an address that was checked just then, and never for longer than it may take."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from urllib.parse import urlsplit, urlunsplit

import httpx

from astraml_ray.access.denials import TargetNotAllowedError
from astraml_ray.access.targets import AllowedTargets, Target, check_url, resolve_name
from astraml_ray.control.deliveries import Reply, retry_after_of

__all__ = ["Courier"]

_ANSWER_BYTES = 4096
_SHOWN = 500
_ADDRESSES = 3


@dataclass(frozen=True)
class Courier:
    """Sends messages.

    Attributes:
        targets: Addresses that may be called, besides public ones.
        resolve: From a name to its addresses; None is the system's.
        clock: Seconds since the epoch.
        connect_s: For a connection, at most.
        whole_s: For a try after its name is looked up, at most, however slowly the receiver answers.
    """

    targets: AllowedTargets
    resolve: Callable[[str], list[str]] | None = None
    clock: Callable[[], float] = time.time
    connect_s: float = 5.0
    whole_s: float = 15.0

    def __post_init__(self) -> None:
        # They log each address, whose path is a secret.
        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)

    def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """One try. Nothing of the address but its host is in the answer."""
        began = time.monotonic()
        try:
            target = check_url(url, allowed=self.targets, resolve=self.resolve, param="/url")
            addresses = target.addresses or tuple((self.resolve or resolve_name)(target.host))
            work = self._post_to_any(target, addresses[:_ADDRESSES], headers, body)
            reply = asyncio.run(asyncio.wait_for(work, self.whole_s))
        except TargetNotAllowedError as error:
            reply = Reply(None, f"must not be called: {error.problems[0].message}")
        except (TimeoutError, asyncio.TimeoutError, httpx.TimeoutException):
            reply = Reply(None, f"no whole answer within {self.whole_s:g} s")
        except httpx.HTTPError as error:
            reply = Reply(None, f"{type(error).__name__}: {error}"[:_SHOWN])
        except (OSError, ValueError) as error:
            reply = Reply(None, type(error).__name__)
        return replace(reply, took_s=time.monotonic() - began)

    async def _post_to_any(
        self, target: Target, addresses: tuple[str, ...], headers: Mapping[str, str], body: bytes
    ) -> Reply:
        """Sends it to the first address that takes connections."""
        reply = Reply(None, "the name is not known to the resolver")
        for address in addresses:
            try:
                return await self._post(target, address, headers, body)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                reply = Reply(None, f"no connection to {address}: {error or type(error).__name__}"[:_SHOWN])
        return reply

    async def _post(self, target: Target, address: str, headers: Mapping[str, str], body: bytes) -> Reply:
        url = _pinned(target, address)
        sent = {**headers, "host": urlsplit(target.url).netloc, "accept-encoding": "identity"}
        timeout = httpx.Timeout(self.whole_s, connect=self.connect_s)
        extensions = {"sni_hostname": target.host}
        # No proxy of this process's environment: it would look the name up again.
        async with (
            httpx.AsyncClient(verify=_tls(), timeout=timeout, follow_redirects=False, trust_env=False) as client,
            client.stream("POST", url, content=body, headers=sent, extensions=extensions) as answer,
        ):
            text = b""
            async for chunk in answer.aiter_raw(_ANSWER_BYTES):
                text += chunk
                if len(text) >= _ANSWER_BYTES:
                    break
            wait = retry_after_of(answer.headers, now=self.clock())
            return Reply(answer.status_code, None, wait, text[:_SHOWN].decode(errors="replace"))


def _pinned(target: Target, address: str) -> str:
    """The URL with an address in place of the name that was checked, which may lead elsewhere a moment later."""
    shown = f"[{address}]" if ":" in address else address
    return urlunsplit(urlsplit(target.url)._replace(netloc=f"{shown}:{target.port}"))


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """Made once: reading the authorities' certificates takes a while."""
    return httpx.create_ssl_context()
