"""A load generator for one core: raw HTTP/1.1 over kept connections, so that the generator is not what is measured."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Answer", "Connection", "Load", "burst", "closed_loop", "percentiles", "post_request"]

_LEAD_S = 1.0


@dataclass(frozen=True)
class Answer:
    """One answer; header names are in lower case."""

    status: int
    seconds: float
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Load:
    """What a closed loop saw.

    Attributes:
        accepted_per_second: Answers 201 that came within the time.
        latencies_s: Of all answers 201 to requests sent within it, also if they came later.
        statuses: How often each status came, all in all; 0 is a connection that broke.
        generator_cores: CPU time of this process by the time it took.
    """

    accepted_per_second: float
    latencies_s: list[float]
    statuses: dict[int, int]
    generator_cores: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "accepted_per_second": round(self.accepted_per_second, 1),
            **percentiles(self.latencies_s),
            "statuses": self.statuses,
            "generator_cores": round(self.generator_cores, 3),
        }


class Connection:
    """One kept connection, one request at a time."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        """Connects, unless it is connected."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)

    def close(self) -> None:
        """Ends the connection."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def send(self, request: bytes) -> Answer:
        """Sends a request and reads the whole answer.

        Raises:
            OSError, EOFError, ValueError: The connection broke, or this is no HTTP/1.1; it is closed.
        """
        try:
            await self.open()
            assert self._reader is not None
            assert self._writer is not None
            started = time.perf_counter()
            self._writer.write(request)
            head = await self._reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await _read_body(self._reader, headers)
            answer = Answer(int(first.split()[1]), time.perf_counter() - started, headers, body)
        except BaseException:
            self.close()
            raise
        if headers.get("connection") == "close":
            self.close()
        return answer


def post_request(address: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """A POST of JSON as it goes over the wire."""
    given = {"Host": urlsplit(address).netloc, "Content-Type": "application/json", **headers}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def closed_loop(address: str, make_request: Callable[[], bytes], *, clients: int, seconds: float) -> Load:
    """Clients that each send the next request as soon as the last one is answered; a second's lead is not counted."""
    return asyncio.run(_closed_loop(address, make_request, clients, seconds))


async def _closed_loop(address: str, make_request: Callable[[], bytes], clients: int, seconds: float) -> Load:
    statuses: Counter[int] = Counter()
    latencies: list[float] = []
    in_time = 0
    connections = [Connection(address) for _ in range(clients)]
    await asyncio.gather(*(connection.open() for connection in connections))
    cpu, began = time.process_time(), time.perf_counter()
    started, end = began + _LEAD_S, began + _LEAD_S + seconds

    async def client(connection: Connection) -> None:
        nonlocal in_time
        while (sent := time.perf_counter()) < end:
            try:
                answer = await connection.send(make_request())
            except (OSError, EOFError, ValueError):
                statuses[0] += 1
                continue
            statuses[answer.status] += 1
            if answer.status == 201:
                latencies.extend([answer.seconds] if sent >= started else [])
                in_time += started <= time.perf_counter() < end

    await asyncio.gather(*(client(connection) for connection in connections))
    cores = (time.process_time() - cpu) / (time.perf_counter() - began)
    for connection in connections:
        connection.close()
    return Load(in_time / seconds, latencies, dict(sorted(statuses.items())), cores)


def burst(address: str, request: bytes, *, count: int, max_tries: int = 30) -> list[list[Answer]]:
    """Sends one request over many connections at once, and again where the answer asks for that (409, 503).

    Returns:
        For each connection its answers; the last one is final, unless it gave up.
    """
    return asyncio.run(_burst(address, request, count, max_tries))


async def _burst(address: str, request: bytes, count: int, max_tries: int) -> list[list[Answer]]:
    connections = [Connection(address) for _ in range(count)]
    await asyncio.gather(*(connection.open() for connection in connections))

    async def insist(connection: Connection) -> list[Answer]:
        answers: list[Answer] = []
        while len(answers) < max_tries:
            try:
                answers.append(await connection.send(request))
            except (OSError, EOFError, ValueError):
                answers.append(Answer(0, 0.0, {}, b""))
            if answers[-1].status not in (0, 409, 503):
                break
            # Spread, as clients do, or all of them would come at once again.
            await asyncio.sleep(float(answers[-1].headers.get("retry-after", 1)) * random.uniform(1, 3))
        connection.close()
        return answers

    return list(await asyncio.gather(*(insist(connection) for connection in connections)))


def percentiles(seconds: list[float]) -> dict[str, float | int | None]:
    """Count, median, 95th and 99th percentile and greatest, in milliseconds."""
    ordered = sorted(seconds)

    def at(share: float) -> float | None:
        return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3) if ordered else None

    return {"count": len(ordered), "p50_ms": at(0.5), "p95_ms": at(0.95), "p99_ms": at(0.99), "max_ms": at(1.0)}


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(headers["content-length"]))
    chunks = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        chunks.append((await reader.readexactly(size + 2))[:-2])
    await reader.readuntil(b"\r\n")
    return b"".join(chunks)
