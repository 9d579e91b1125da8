"""A TCP proxy that cuts connections where a test wants them cut."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

__all__ = ["CuttingProxy", "cutting"]


class CuttingProxy:
    """Passes bytes on between a client and a service.

    Attributes:
        cuts: Bytes of the service's answers after which the next connections are cut, one entry each; then none is.
        connections: How many there were.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._behind = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.cuts: list[int] = []
        self.connections = 0
        self.sent = 0
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            limit = self.cuts.pop(0) if self.cuts else None
            threading.Thread(target=self._serve, args=(client, limit), daemon=True).start()

    def _serve(self, client: socket.socket, limit: int | None) -> None:
        with client, socket.create_connection(self._behind) as behind:
            self._open |= {client, behind}
            threading.Thread(target=self._upload, args=(client, behind), daemon=True).start()
            left = limit
            with contextlib.suppress(OSError):
                while data := behind.recv(65536):
                    passed = data if left is None else data[:left]
                    client.sendall(passed)
                    self.sent += len(passed)
                    if left is not None:
                        left -= len(passed)
                        if left == 0:
                            break
            for one in (client, behind):
                # The other thread still reads from it: closing alone would not end the connection.
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            self._open -= {client, behind}

    @staticmethod
    def _upload(client: socket.socket, behind: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                behind.sendall(data)
            behind.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Takes no more connections, and breaks those there are."""
        # A thread that waits in accept() would keep the port open.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def cutting(address: str) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(address)
    try:
        yield proxy
    finally:
        proxy.close()
