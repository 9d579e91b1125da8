"""Starting a fork server, and having Ray use it."""

from __future__ import annotations

import os
import secrets
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from astraml_ray.settings import WORKER_ENVIRONMENT, Settings

__all__ = ["fork_server", "new_name", "runtime_env", "start_server"]

_BACKLOG = 256
_ENVIRONMENT = {
    "OMP_WAIT_POLICY": WORKER_ENVIRONMENT["OMP_WAIT_POLICY"],
    # Whether there is CUDA is otherwise asked of the driver, which does not outlive a fork.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}
"""What libraries read as they are loaded, which is before a fork."""
_STUB = Path(__file__).with_name("stub.py")


def new_name() -> str | None:
    """The name of a server to be; None where there can be none: it needs Linux."""
    return f"astraml-fork-{os.getuid()}-{secrets.token_hex(8)}" if sys.platform == "linux" else None


def start_server(name: str, *command: str, environment: Mapping[str, str], **options: Any) -> subprocess.Popen[bytes]:
    """Starts a server; stubs may come from now on, and wait while it imports.

    Args:
        name: From `new_name`.
        command: That it starts, and ends with; without one it ends when its standard input does.
        environment: Of it and the command.
        options: Of Popen.
    """
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen(_BACKLOG)
        return subprocess.Popen(
            [sys.executable, "-m", "astraml_ray.forkserver.server", str(listener.fileno()), *command],
            pass_fds=[listener.fileno()],
            env={**environment, **_ENVIRONMENT},
            **options,
        )


def runtime_env(name: str | None) -> dict[str, Any]:
    """Ray's `runtime_env` with which processes come from a server; empty without one."""
    if name is None:
        return {}
    return {"py_executable": f"{shlex.quote(sys.executable)} -I -S {shlex.quote(str(_STUB))} {name}"}


@contextmanager
def fork_server(settings: Settings) -> Iterator[Settings]:
    """A server for as long as the block, or this process, lasts; its imports go on beside what is done here.

    Yields:
        The settings that name it; as they were, if the cluster is another's.
    """
    name = new_name() if settings.ray_address is None else None
    if name is None:
        yield settings
        return
    with start_server(
        name,
        environment=os.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # signals of the terminal are for this process
    ) as server:
        try:
            yield replace(settings, fork_server=name)
        finally:
            server.kill()  # it holds nothing, and may be in the middle of its imports
