"""Server-sent events: a job's log or events, followed to the job's end. No connection to the database is held."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import anyio
from starlette.responses import StreamingResponse

from astraml_ray.api.admission import ApiLimits
from astraml_ray.api.answers import json_bytes
from astraml_ray.api.services import Services
from astraml_ray.errors import StoreError

__all__ = ["News", "SseAnswer", "event_name", "frame"]

_LOG = logging.getLogger(__name__)
_RETRY_MS = 1000
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class News:
    """What one look at the store gave.

    Attributes:
        frames: Ready to be sent.
        after: Where the next look begins.
        newest: Where the log or the events end.
        end: The data of the `end` event, if the job has ended.
        ended_at: When it did, in seconds since the epoch.
    """

    frames: bytes
    after: int
    newest: int
    end: dict[str, Any] | None
    ended_at: float | None


Look = Callable[[int], News]
"""Reads what comes after a number; called in a thread."""


class SseAnswer(StreamingResponse):
    """A stream that ends with the job, or after `max_stream_s`."""

    media_type = "text/event-stream"

    def __init__(self, services: Services, look: Look, *, after: int) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(_follow(services, look, after), headers=headers)


def frame(data: Any, *, number: int | None = None, event: str | None = None) -> bytes:
    """One event."""
    lines = [b"id: %d" % number] if number is not None else []
    if event is not None:
        lines.append(b"event: " + event.encode())
    lines.append(b"data: " + json_bytes(data))
    return b"\n".join(lines) + b"\n\n"


def event_name(kind: str) -> str:
    """The kind as the name of an event; no kind may break out of its line, or look like the stream's end."""
    return kind if _NAME.fullmatch(kind) and kind not in ("end", "gap") else "message"


async def _follow(services: Services, look: Look, after: int) -> AsyncIterator[bytes]:
    limits = services.limits
    opened = spoke = time.monotonic()
    ended: float | None = None
    pause = limits.poll_s
    yield b"retry: %d\n\n" % _RETRY_MS
    while time.monotonic() - opened < limits.max_stream_s:
        news = await _look(services, look, after)
        now = time.monotonic()
        if news is not None:
            moved, after = news.after > after, news.after
            if news.frames:
                spoke = now
                yield news.frames
            if moved and after < news.newest:
                continue
            pause = limits.poll_s if moved else min(pause * 1.5, limits.max_poll_s)
            if news.end is not None:
                ended = ended or now
                if (after >= news.newest or not moved) and _is_settled(services, news, now - ended):
                    yield frame({**news.end, "last_id": after}, event="end")
                    return
        if now - spoke >= limits.heartbeat_s:
            spoke = now
            yield b": heartbeat\n\n"
        await anyio.sleep(_pause(limits, pause, now - spoke))


async def _look(services: Services, look: Look, after: int) -> News | None:
    """None while the database fails: it may come back, and until then the stream stays open."""
    try:
        return await anyio.to_thread.run_sync(look, after, limiter=services.stream_threads)
    except StoreError as error:
        _LOG.warning("a stream could not look: %s", error)
        return None


def _is_settled(services: Services, news: News, seen_for: float) -> bool:
    """Whether late lines of an ended job are no longer to be expected."""
    since = services.clock() - news.ended_at if news.ended_at is not None else 0.0
    return max(since, seen_for) >= services.limits.settle_s


def _pause(limits: ApiLimits, pause: float, silent: float) -> float:
    return max(0.0, min(pause, limits.heartbeat_s - silent))
