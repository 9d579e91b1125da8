"""Where the service is, and with which token it is spoken to."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from astraml_ray.errors import RequestError
from astraml_ray.settings import Settings

__all__ = ["DEFAULT_ADDRESS", "Endpoint", "find_endpoint"]

DEFAULT_ADDRESS = "http://127.0.0.1:8700"


@dataclass(frozen=True)
class Endpoint:
    """A service's address, without a slash at its end, and the bearer token for it."""

    address: str
    token: str | None = field(default=None, repr=False)

    @property
    def is_local(self) -> bool:
        """Whether the address is this machine's loopback."""
        host = urlsplit(self.address).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


def find_endpoint(settings: Settings, *, address: str | None = None, token: str | None = None) -> Endpoint:
    """What is given goes first, then the environment, then what `astraml up` wrote under the home folder.

    Raises:
        RequestError: The address is none, or a file of the home folder cannot be read.
    """
    told = (address or settings.address) and (token or settings.token)
    written = {} if told else _service_file(settings.home / "service.json")
    own = written.get("address") or DEFAULT_ADDRESS
    found = Endpoint(_normal(address or settings.address or own), token or settings.token)
    if found.token is None and (found.is_local or found.address == _normal(own)):
        # This machine's admin token is for this machine's service: no other one is sent it.
        return replace(found, token=_read(Path(written.get("token") or settings.home / "token")))
    return found


def _normal(address: str) -> str:
    full = address.strip() if "://" in address else f"http://{address.strip()}"
    try:
        parts = urlsplit(full)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        known = False
    if not known:
        raise RequestError(
            f"{address!r} is no address of a service", param="address", hint=f"write it as {DEFAULT_ADDRESS}"
        )
    return full.rstrip("/")


def _service_file(path: Path) -> dict[str, Any]:
    text = _read(path)
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RequestError("is no JSON object", param=str(path), hint="`astraml up` writes it anew")
    return found


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RequestError(
            f"cannot be read: {error.strerror}", param=str(path), hint="check its owner, or set ASTRAML_TOKEN"
        ) from error
