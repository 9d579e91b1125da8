"""Lists page by page, and numbered records (log lines, events) as a stream that is followed to its end.

Connections may break anywhere: nothing is lost, and nothing comes twice.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import httpx

from astraml_ray.client.failures import ApiError
from astraml_ray.client.outage import Outage
from astraml_ray.client.sse import Message, SseParser
from astraml_ray.client.transport import Transport
from astraml_ray.errors import AstraError, InfrastructureError

__all__ = ["follow_stream", "read_pages", "turn_pages"]

_PAGE = 200


def turn_pages(
    transport: Transport,
    path: str,
    *,
    params: Mapping[str, Any] | None = None,
    limit: int | None = None,
    size: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Yields what a list holds, in pages of `size` as they are asked for; at most `limit`."""
    size = size or _PAGE
    left, cursor = limit, None
    while left is None or left > 0:
        many = size if left is None else min(left, size)
        page = transport.request("GET", path, params={**(params or {}), "cursor": cursor, "limit": many})
        yield from page["data"]
        left = None if left is None else left - len(page["data"])
        cursor = page.get("next_cursor")
        if cursor is None:
            return


def read_pages(
    transport: Transport, path: str, *, params: Mapping[str, Any], after: int, limit: int
) -> Generator[dict[str, Any], None, int]:
    """Yields what is there after a number, in pages of `limit`; returns the number up to which it has looked."""
    asked = dict(params)
    while True:
        page = transport.request("GET", path, params={**asked, "after": after or None, "limit": limit})
        yield from page["data"]
        after = page["next_after"]
        if not page["has_more"]:
            return after
        asked.pop("tail", None)  # it counts from the end, and has been answered


def follow_stream(
    transport: Transport, path: str, *, params: Mapping[str, Any], after: int, patience_s: float
) -> Iterator[dict[str, Any]]:
    """Yields the data of the messages after a number, until the stream says that it has ended.

    Args:
        after: Number of the last message already seen.
        patience_s: How long the service may be away.

    Raises:
        ApiError: The service refuses the stream.
        InfrastructureError: The service is away for longer than that.
    """
    outage = Outage()
    last = after
    while True:
        headers = {"Last-Event-ID": str(last)} if last else {}
        advanced = False
        failure: AstraError
        try:
            with transport.stream(
                path, params={**params, "follow": "true", "after": last or None}, headers=headers
            ) as response:
                parser = SseParser()
                for chunk in response.iter_raw():
                    outage.over()
                    for message in parser.feed(chunk):
                        if message.event == "end":
                            return
                        number = _number(message)
                        if number is not None and number <= last:
                            continue
                        last = max(last, number or 0)
                        advanced = True
                        yield _data(message)
            failure = InfrastructureError("the stream ended early", param=path)
        except httpx.TransportError as error:
            failure = transport.lost(error)
        except ApiError as error:
            if error.status < 500 and error.status != 429:
                raise
            failure = error
        if not advanced:
            wait = failure.retry_after_s if isinstance(failure, ApiError) else None
            outage.bear(failure, patience_s=transport.patience(patience_s), at_least_s=wait or 0.0)


def _number(message: Message) -> int | None:
    return int(message.id) if message.id and message.id.isdigit() else None


def _data(message: Message) -> dict[str, Any]:
    try:
        found = json.loads(message.data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InfrastructureError("a message of the stream is no JSON object", param=message.event)
    return found
