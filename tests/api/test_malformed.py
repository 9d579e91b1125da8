"""Whatever is sent: no 5xx, and nothing stored. `--requests 100000` sends as many as were sent before a release."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any
from urllib.parse import unquote

import pytest
from sqlalchemy import MetaData, func, select

from tests.api.conftest import Api
from tests.api.malformed import Malformed, malformed_requests

_UNCOUNTED = {"alembic_version"}


def test_malformed_requests_are_refused_and_leave_nothing(api: Api, pytestconfig: pytest.Config) -> None:
    api.new_job()
    api.client.get("/v2.1/jobs")
    before = _rows(api)
    statuses: Counter[int] = Counter()

    async def send_all() -> None:
        for one in malformed_requests(pytestconfig.getoption("--requests"), seed=20261126):
            status, body = await _send(api, one)
            statuses[status] += 1
            shown = (status, body[:300], one.method, one.path[:200], one.query[:200], one.headers, one.body[:300])
            assert 400 <= status < 500, shown
            assert one.method == "HEAD" or b'"code"' in body, shown

    asyncio.run(send_all())
    assert _rows(api) == before
    assert {400, 401, 404, 405, 415, 422} <= set(statuses)
    print(sorted(statuses.items()))


async def _send(api: Api, one: Malformed) -> tuple[int, bytes]:
    """Straight into the app, as a server would: some of it no client library would send."""
    # From many addresses: else the limit on failed tokens would answer everything.
    source = f"10.{hash(one.path) % 256}.{hash(one.query) % 256}.{hash(one.body) % 256}"
    headers = [(n.lower().encode("latin-1"), _latin(v, api)) for n, v in one.headers]
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": one.method,
        "scheme": "http",
        "path": unquote(one.path),  # as uvicorn does
        "raw_path": one.path.encode("latin-1"),
        "query_string": one.query.encode("latin-1"),
        "headers": headers,
        "client": (source, 1),
        "server": ("test", 80),
        "state": {},
    }
    parts: list[Any] = []
    sent = iter([{"type": "http.request", "body": one.body, "more_body": False}])

    async def receive() -> Any:
        return next(sent, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        parts.append(message)

    await api.app(scope, receive, send)
    return parts[0]["status"], b"".join(part.get("body", b"") for part in parts[1:])


def _latin(value: str, api: Api) -> bytes:
    return (api.auth["Authorization"] if value == "ADMIN" else value).encode("latin-1")


def _rows(api: Api) -> dict[str, int]:
    """Rows of every table, whatever tables there are."""
    metadata = MetaData()
    with api.store.read() as conn:
        metadata.reflect(conn)
        return {
            table.name: conn.execute(select(func.count()).select_from(table)).scalar_one()
            for table in metadata.sorted_tables
            if table.name not in _UNCOUNTED
        }
