"""What webhooks are told, as the texts that are signed and sent. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from astraml_ray.store.plain import iso_time, to_json

__all__ = ["Message", "body_of"]

_LONGEST = 2000


@dataclass(frozen=True)
class Message:
    """Something to be told.

    Attributes:
        event: Such as "job.failed".
        at: When it was, in seconds since the epoch.
        project_id: Where.
        subject: The id of the job or schedule that it is about.
        title: That, for people.
        text: What happened, for people.
        data: What happened, for programs; plain data of bounded size.
    """

    event: str
    at: float
    project_id: str
    subject: str | None
    title: str
    text: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


def body_of(message: Message, style: str) -> str:
    """The body, byte for byte as it is kept, signed and sent.

    Args:
        message: What is told.
        style: "standard", or "slack", which Mattermost and others read as well.
    """
    if style == "slack":
        why = f"\n{_escaped(_short(message.text))}" if message.text else ""
        head = f"*{message.event}* {_escaped(message.title)} in {_escaped(message.project_id)}"
        return to_json({"text": head + why})
    text = None if message.text is None else _short(message.text)
    data = {"project_id": message.project_id, "message": text, **message.data}
    return to_json({"type": message.event, "timestamp": iso_time(message.at), "data": data})


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _escaped(text: str) -> str:
    """Slack gives these three a meaning: links, mentions of everyone, and entities."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
