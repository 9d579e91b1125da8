"""How the objects of a dataset are reached: at which endpoint, and with whose credentials."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from astraml_ray.data.masking import Masker
from astraml_ray.errors import DataError
from astraml_ray.settings import load_settings

__all__ = ["OWN", "Access", "Credentials", "parse_credentials"]

_FIELD = "/dataset/credentials"
_AWS_NAMES = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "aws_endpoint_url": "endpoint_url",
    "aws_endpoint_url_s3": "endpoint_url",
    "aws_region": "region",
    "aws_default_region": "region",
}
_NEEDED = ("access_key_id", "secret_access_key")
_KNOWN = (*_NEEDED, "session_token", "endpoint_url", "region")
_EXPECTED = (
    'store a JSON object: {"access_key_id": "…", "secret_access_key": "…"}, and if need be "session_token", '
    '"endpoint_url" and "region"; or lines such as AWS_ACCESS_KEY_ID=…'
)


@dataclass(frozen=True)
class Credentials:
    """Of an S3 account. Its text does not show them."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    endpoint_url: str | None = None
    region: str | None = None


@dataclass(frozen=True)
class Access:
    """How objects are reached. Holds no secret, only the way to it, and so can be sent to other processes.

    Attributes:
        endpoint_url: Of S3; None is what the credentials say, or this machine.
        secret: Gives the text of the credentials, in whichever process it is asked; None is this machine's own.
    """

    endpoint_url: str | None = None
    secret: Callable[[], str] | None = None

    def options(self) -> dict[str, Any]:
        """What a RetryingS3 takes.

        Raises:
            DataError: The secret holds no credentials.
        """
        settings = load_settings()
        found: dict[str, Any] = {"deadline_s": settings.storage_deadline_s, "stall_s": settings.storage_stall_s}
        endpoint_url = self.endpoint_url
        if self.secret is not None:
            credentials = parse_credentials(self.secret())
            found |= {"key": credentials.access_key_id, "secret": credentials.secret_access_key}
            found["token"] = credentials.session_token
            endpoint_url = endpoint_url or credentials.endpoint_url
            if credentials.region:
                found["client_kwargs"] = {"region_name": credentials.region}
        if endpoint_url:
            found["endpoint_url"] = endpoint_url
        return found

    def hidden(self, text: str) -> str:
        """A text of an error, without the credentials."""
        return text if self.secret is None else Masker({"credentials": self.secret()}).mask(text)


OWN = Access()
"""This machine's endpoint and credentials."""


def parse_credentials(text: str) -> Credentials:
    """Credentials of a secret's text: a JSON object, or lines `NAME=value`; with AWS's names or with ours.

    Raises:
        DataError: It holds none; the error does not repeat it.
    """
    fields: dict[str, str] = {}
    for name, value in (_json_fields(text) if text.lstrip().startswith("{") else _lines(text)).items():
        known = _AWS_NAMES.get(name.lower(), name.lower())
        if known in _KNOWN and value is not None:
            if not isinstance(value, str):
                raise _malformed(f"{known} is not text")
            fields.setdefault(known, value.strip())
    missing = [name for name in _NEEDED if not fields.get(name)]
    if missing:
        raise _malformed(f"there is no {' and no '.join(missing)} in it")
    return Credentials(**{name: value for name, value in fields.items() if value})


def _json_fields(text: str) -> Mapping[str, Any]:
    try:
        fields: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError):
        raise _malformed("it begins like JSON, and is none") from None
    return fields


def _lines(text: str) -> dict[str, str]:
    """As in a shell script or a file of AWS's."""
    pairs = (line.strip().removeprefix("export ").partition("=") for line in text.splitlines())
    return {name.strip(): value.strip().strip("\"'") for name, equals, value in pairs if equals}


def _malformed(why: str) -> DataError:
    return DataError(f"the secret holds no S3 credentials: {why}", param=_FIELD, hint=_EXPECTED)
