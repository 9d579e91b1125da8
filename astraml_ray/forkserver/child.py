"""What a forked process does to be the one that Ray wanted."""

from __future__ import annotations

import contextlib
import ctypes
import os
import runpy
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Order", "become"]

_MALLOPT = {"MALLOC_ARENA_MAX": -8, "MALLOC_MMAP_THRESHOLD_": -3, "MALLOC_TRIM_THRESHOLD_": -1}
"""glibc reads these variables when a process starts; their numbers in malloc.h."""


@dataclass(frozen=True)
class Order:
    """A process that a stub asks for.

    Attributes:
        connection: To the stub, which takes its end for the end of the process.
        descriptors: Standard input, output and error.
        arguments: A script and its arguments.
        environment: Its whole environment.
        folder: Where it works.
        oom_score_adj: See proc(5).
    """

    connection: socket.socket
    descriptors: list[int]
    arguments: list[str]
    environment: dict[str, str]
    folder: str
    oom_score_adj: str

    def close(self) -> None:
        """Forgets it, in the process that was not forked for it."""
        self.connection.close()
        for descriptor in self.descriptors:
            os.close(descriptor)


def become(order: Order) -> None:
    """Runs the order's script in this process, as if it had been started for it."""
    os.setsid()  # a raylet kills a worker's whole process group
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    for target, descriptor in enumerate(order.descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.chdir(order.folder)
    os.environ.clear()
    os.environ.update(order.environment)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(order.oom_score_adj)
    _set_malloc(order.environment)
    _set_threads(order.environment)
    order.connection.sendall(b"+")
    _run(order.arguments, order.environment.get("PYTHONPATH", ""))


def _set_malloc(environment: dict[str, str]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    for name, number in _MALLOPT.items():
        value = environment.get(name, "")
        if mallopt is not None and value.isdecimal():
            mallopt(number, min(int(value), 2**31 - 1))


def _set_threads(environment: dict[str, str]) -> None:
    """OpenMP reads the variable when it is loaded, and Ray has another one for each process."""
    threads = environment.get("OMP_NUM_THREADS", "")
    if threads.isdecimal() and int(threads):
        sys.modules["torch"].set_num_threads(int(threads))


def _run(arguments: list[str], python_path: str) -> None:
    sys.argv = arguments
    script = arguments[0]
    more = [place for place in python_path.split(os.pathsep) if place and place not in sys.path]
    # As Python does it: the first place is the script's folder; the server's was where it was started.
    sys.path[:1] = [str(Path(script).parent), *more]
    runpy.run_path(script, run_name="__main__")
