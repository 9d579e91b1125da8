"""The shapes of secrets, for OpenAPI. None has a value in it but the request that stores one."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from astraml_ray.api.schemas import Shape
from astraml_ray.api.schemas_access import Input

__all__ = ["DeletedSecret", "Secret", "SecretList", "SecretRequest", "SecretUse", "SecretUsePage", "StoredSecret"]


class Secret(Shape):
    """A secret, without its value, which nobody can read back."""

    project_id: str
    name: str
    version: int
    """1, 2, 3 ...; jobs that run keep the one that they began with."""
    size: int
    """Characters; a value under 8 is not masked in logs."""
    created_at: datetime
    created_by: str
    last_used_at: datetime | None


class StoredSecret(Secret):
    """A secret that was just stored."""

    warnings: list[str]


class SecretList(Shape):
    """A project's secrets, by name."""

    data: list[Secret]


class DeletedSecret(Shape):
    """A secret whose value is destroyed, in all its versions."""

    project_id: str
    name: str


class SecretUse(Shape):
    """A job that was given a secret."""

    id: int
    version: int
    job_id: str
    attempt: int
    subject: str
    """Who submitted the job."""
    at: datetime


class SecretUsePage(Shape):
    """A page of uses, the newest first."""

    data: list[SecretUse]
    next_cursor: str | None


class SecretRequest(Input):
    """A secret to be stored."""

    value: Annotated[str, Field(min_length=1, json_schema_extra={"writeOnly": True})]
    """Any text, at most 64 KiB."""
