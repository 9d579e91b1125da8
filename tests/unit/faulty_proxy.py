"""An HTTP proxy in front of a real S3 server that spoils answers as a test has planned."""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

__all__ = ["FAULTS", "FaultyProxy", "Request", "faulty", "seeded"]

FAULTS = (
    "slow_down",  # 503, and the body that S3 has with it
    "error_500",
    "bad_gateway",  # 502 of a load balancer: HTML
    "reset_before",  # RST instead of an answer
    "closed_before",  # FIN instead of an answer
    "reset_in_body",
    "truncated",  # FIN in the middle of the body
    "short_length",  # half of the body, and a Content-Length that says so
    "other_place",  # a Content-Range that is not the one asked for
    "stall_before",
    "stall_in_body",
    "slow_bytes",  # never quite stalls
)
_STALL_S = 20.0
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass(frozen=True)
class Request:
    """One that came, and what was done to its answer."""

    number: int
    method: str
    path: str
    range: str | None
    fault: str | None


Plan = Callable[[int, str, str], "str | None"]
"""From number, method and path of a request to a fault, to an HTTP status such as "403", or to None."""


@dataclass
class FaultyProxy:
    """
    Attributes:
        address: Its URL.
        plan: Asked for each request; may be replaced at any time.
        requests: All that came.
        connections: How many there were.
    """

    behind: tuple[str, int]
    plan: Plan
    address: str = ""
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def faults(self) -> Counter[str]:
        return Counter(request.fault for request in self.requests if request.fault)

    def take(self, method: str, path: str, asked: str | None) -> str | None:
        with self.lock:
            fault = self.plan(len(self.requests), method, path)
            self.requests.append(Request(len(self.requests), method, path, asked, fault))
        return fault


def seeded(seed: int, rate: float, faults: tuple[str, ...] = FAULTS) -> Plan:
    """Spoils a part of the requests; which, and how, depends on the seed and their numbers."""

    def plan(number: int, method: str, path: str) -> str | None:
        rng = random.Random(f"{seed}-{number}")
        return rng.choice(faults) if rng.random() < rate else None

    return plan


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy

    def setup(self) -> None:
        super().setup()
        with self.proxy.lock:
            self.proxy.connections += 1

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.proxy.take(self.command, self.path, self.headers.get("Range"))
        before = {
            "reset_before": self._reset,
            "closed_before": self._close,
            "stall_before": self._stall,
            "slow_down": lambda: self._refuse(503, "SlowDown"),
            "error_500": lambda: self._refuse(500, "InternalError"),
            "bad_gateway": lambda: self._refuse(502, ""),
        }
        if fault in before:
            return before[fault]()
        if fault is not None and fault.isdigit():
            return self._refuse(int(fault), {"403": "AccessDenied", "412": "PreconditionFailed"}.get(fault, "Odd"))
        status, headers, data = self._ask(body)
        return self._answer(status, headers, data, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        behind = http.client.HTTPConnection(*self.proxy.behind, timeout=60)
        try:
            behind.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():  # as they were signed
                behind.putheader(name, value)
            behind.endheaders(body or None)
            answer = behind.getresponse()
            data = answer.read()
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
            return answer.status, [*headers, ("Content-Length", length or "0")], data
        finally:
            behind.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, fault: str | None) -> None:
        if fault == "short_length" and self.command != "HEAD":
            data = data[: len(data) // 2]
            headers = [(name, str(len(data)) if name == "Content-Length" else value) for name, value in headers]
        if fault == "other_place":
            headers = [(n, v.replace("bytes ", "bytes 1") if n == "Content-Range" else v) for n, v in headers]
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        half = len(data) // 2
        if fault in ("reset_in_body", "truncated", "stall_in_body"):
            self.wfile.write(data[:half])
            if fault == "reset_in_body":
                time.sleep(0.05)  # a reset drops what the other side has not read
            {"reset_in_body": self._reset, "truncated": self._close, "stall_in_body": self._stall}[fault]()
        elif fault == "slow_bytes":
            for byte in range(len(data)):
                self.wfile.write(data[byte : byte + 1])
                time.sleep(0.02)
        else:
            self.wfile.write(data)

    def _refuse(self, status: int, code: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>Please reduce your request rate.</Message></Error>".encode()
        if not code:
            body = b"<html><body>Bad Gateway</body></html>"
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.rfile.close()
        with contextlib.suppress(OSError):
            self.wfile.close()

    def _close(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _stall(self) -> None:
        """Until the client has had enough."""
        self.close_connection = True
        self.connection.settimeout(_STALL_S)
        with contextlib.suppress(OSError):
            self.connection.recv(1)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """Clients that go away are what this is for."""


@contextlib.contextmanager
def faulty(address: str, plan: Plan = lambda *_: None, *, port: int = 0) -> Iterator[FaultyProxy]:
    """A proxy in front of a server, until the block ends."""
    parts = urlsplit(address)
    assert parts.hostname
    assert parts.port
    proxy = FaultyProxy((parts.hostname, parts.port), plan)
    server = _Server(("127.0.0.1", port), type("Handler", (_Handler,), {"proxy": proxy}))
    proxy.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
