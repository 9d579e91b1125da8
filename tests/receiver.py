"""A real HTTP server that webhooks are sent to, and an independent check of what arrives."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Got:
    """A request that arrived."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def signed_by(self, key: str) -> bool:
        """As https://www.standardwebhooks.com describes it, from the raw body."""
        secret = base64.b64decode(key.split("_", 1)[1])
        content = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.body
        expected = base64.b64encode(hmac.new(secret, content, hashlib.sha256).digest()).decode()
        return f"v1,{expected}" in self.headers["webhook-signature"].split(" ")


@dataclass
class Receiver:
    """What a receiver answers, and in which pieces; what it got, and how many bytes of its answers it could write."""

    port: int = 0
    got: list[Got] = field(default_factory=list)
    answer: Callable[[Got, int], tuple[int, dict[str, str], bytes]] = lambda got, number: (200, {}, b"ok")
    slow: Callable[[Got], None] = lambda got: None
    piece: int = 65536
    between: Callable[[], None] = lambda: None
    written: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str = "/hook", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def wait(self, count: int) -> list[Got]:
        """Until so many have arrived."""
        end = time.monotonic() + 20
        while len(self.got) < count:
            assert time.monotonic() < end, f"{len(self.got)} of {count} arrived"
            time.sleep(0.005)
        return self.got


@contextmanager
def serve(receiver: Receiver | None = None, *, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A receiver on a free port of loopback."""
    here = receiver or Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got = Got(self.path, {key.lower(): value for key, value in self.headers.items()}, body)
            here.got.append(got)
            here.slow(got)
            status, headers, text = here.answer(got, len(here.got))
            try:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(text))}.items():
                    self.send_header(name, value)
                self.end_headers()
                for begin in range(0, len(text), here.piece):
                    self.wfile.write(text[begin : begin + here.piece])
                    here.written += len(text[begin : begin + here.piece])
                    here.between()
            except OSError:
                return  # whoever asked has left
            finally:
                here.over.set()

        def log_message(self, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    here.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        server.server_close()
