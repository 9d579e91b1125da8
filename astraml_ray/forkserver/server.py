"""The fork server: imports what Ray's processes import, and forks one for each stub that asks.

python -m astraml_ray.forkserver.server DESCRIPTOR              # until its standard input ends
python -m astraml_ray.forkserver.server DESCRIPTOR COMMAND...   # starts the command, and ends with it

The descriptor is a socket that listens already, so that no stub comes too early.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import warnings

from astraml_ray.forkserver.child import Order, become
from astraml_ray.forkserver.stub import peer_uid

__all__ = ["main"]

_MODULES = (
    "pandas",
    "pyarrow.parquet",
    "rich.console",
    "tensorboardX",
    "fastapi",
    "transformers.models.bert.modeling_bert",
    "astraml_ray.data.blocks",
    "astraml_ray.data.prepare",
    "astraml_ray.training.checkpoint",
    "astraml_ray.training.evaluation",
    "astraml_ray.training.loop",
    "astraml_ray.training.models",
    "astraml_ray.training.tasks",
)
"""None of them imports `ray`, which reads the job's id from the environment when it is imported."""

_GPU_DEVICES = "/dev/nvidia"
_ORDER_S = 10.0
_MOST = 1 << 24  # bytes of an order: what the kernel lets a process start with is less
_PART = 1 << 16


def main() -> None:
    descriptor, *command = sys.argv[1:]
    with socket.socket(fileno=int(descriptor)) as listener:
        listener.set_inheritable(False)
        end = _start(command) if command else sys.stdin.fileno()
        for module in _MODULES:
            importlib.import_module(module)
        if _touched_cuda():
            return  # it cannot be used after a fork: the stubs become interpreters of their own
        gc.collect()
        gc.freeze()  # what is shared stays shared
        order = _serve(listener, end)
    if order is not None:
        become(order)


def _start(command: list[str]) -> int:
    """Starts a command that is ended with this process; returns a descriptor that tells of its end."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    return os.pidfd_open(process.pid)


def _serve(listener: socket.socket, end: int) -> Order | None:
    """Forks until the end; in a child, returns what it is to be."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)  # OpenBLAS's can fork
    while True:
        ready, _, _ = select.select([listener.fileno(), end], [], [])
        if end in ready:
            return None
        connection, _ = listener.accept()
        order = _read(connection)
        if order is None:
            connection.close()
            continue
        with contextlib.suppress(OSError):  # no process to be had: the stub is told by the end of the connection
            if os.fork() == 0:
                return order
        order.close()


def _read(connection: socket.socket) -> Order | None:
    """What a stub asks for; None if it is no stub of ours, or left."""
    connection.settimeout(_ORDER_S)
    descriptors: list[int] = []
    try:
        if peer_uid(connection) != os.getuid():
            return None
        head, descriptors, _, _ = socket.recv_fds(connection, 8, 3)
        size, message = int.from_bytes(head, "big"), bytearray()
        while len(message) < size:
            part = connection.recv(_PART) if size <= _MOST else b""
            if not part:
                raise ConnectionResetError
            message += part
        return Order(connection, descriptors, **json.loads(message))
    except (OSError, ValueError, TypeError):
        for descriptor in descriptors:
            os.close(descriptor)
        return None


def _touched_cuda() -> bool:
    """Whether something that was imported has begun to use a GPU: it has the driver's devices open then.

    To have loaded libcuda is no sign of it: torch's CUDA builds do so when they are imported.
    """
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{descriptor}").startswith(_GPU_DEVICES):
                return True
    return False


if __name__ == "__main__":
    main()
