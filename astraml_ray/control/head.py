"""The Ray head of an installation: started, found again, and ended with all its processes, and no others."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from astraml_ray.errors import InfrastructureError
from astraml_ray.forkserver.start import new_name, start_server
from astraml_ray.installation import write_private
from astraml_ray.settings import RAY_ENVIRONMENT

__all__ = [
    "Head",
    "end_head",
    "end_process",
    "free_port",
    "is_alive",
    "port_is_free",
    "start_head",
    "token_environment",
]

_START_S = 90.0
_PREFIX = "astraml-ray-"
_END_S = 3.0  # a raylet that is asked to leave drains for 30 s; what is running goes on from its checkpoint

Head = dict[str, Any]


def token_environment(token_path: str | None) -> dict[str, str]:
    """The variables with which a process is let into the cluster."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token_path} if token_path else {}


def start_head(
    home: Path, *, num_cpus: int, dashboard_port: int | None, environment: dict[str, str]
) -> tuple[Head, str, str]:
    """Starts a head with a token of its own, on free ports, so that installations do not meet.

    Args:
        home: Of the installation.
        num_cpus: Logical CPUs.
        dashboard_port: Where the dashboard and `ray job submit` answer on loopback; None for no dashboard.
        environment: For the head and all its workers, besides this process's own.

    Returns:
        The head, its address, and the path of its token.

    Raises:
        InfrastructureError: It did not start; the message has what it printed.
    """
    token = home / "ray_token"
    if not token.exists():
        write_private(token, secrets.token_hex(32))
    whole = {**os.environ, **RAY_ENVIRONMENT, **environment, **token_environment(str(token))}
    # None is for workers: they hold no way into the database or to its secrets, and no cluster but their own.
    for name in ("ASTRAML_DATABASE_URL", "ASTRAML_MASTER_KEY", "ASTRAML_TOKEN", "RAY_ADDRESS"):
        whole.pop(name, None)
    for last in (False, False, True):
        port = free_port()
        head = _spawn(home, _command(home, port, num_cpus, dashboard_port), whole)
        try:
            _wait_for(head, home / "ray.log")
            return head, f"127.0.0.1:{port}", str(token)
        except InfrastructureError as error:
            end_head(head)
            # Ray gives its raylet 30 s, whatever else the machine is doing.
            if last or "timed out" not in error.message:
                raise
    raise AssertionError("unreachable")


def _command(home: Path, port: int, num_cpus: int, dashboard_port: int | None) -> list[str]:
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--disable-usage-stats"]
    command += [f"--port={port}", "--node-ip-address=127.0.0.1", f"--temp-dir={_short_folder(home)}"]
    command += [f"--num-cpus={num_cpus}", f"--ray-client-server-port={free_port()}"]
    command += ["--min-worker-port=0", "--max-worker-port=0"]  # any: Ray's own range is one for all of a machine
    if dashboard_port is None:
        return [*command, "--include-dashboard=false"]
    return [*command, "--include-dashboard=true", f"--dashboard-port={dashboard_port}", "--dashboard-host=127.0.0.1"]


def _spawn(home: Path, command: list[str], environment: dict[str, str]) -> Head:
    """Starts it below a fork server, which its processes come from, where there can be one."""
    folder, forks = _short_folder(home), new_name()
    shutil.rmtree(folder, ignore_errors=True)
    with (home / "ray.log").open("wb") as output:
        options: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": output,
            "stderr": output,
            "start_new_session": True,
            "cwd": home,
        }
        if forks:
            process = start_server(forks, *command, environment=environment, **options)
        else:
            process = subprocess.Popen(command, env=environment, **options)
    created = psutil.Process(process.pid).create_time()
    return {"pid": process.pid, "created": created, "ray_temp_dir": str(folder), "fork_server": forks}


def _short_folder(home: Path) -> Path:
    """Ray's folder: its sockets' paths may have 107 characters, and a home may be deep."""
    digest = hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:10]
    return Path(tempfile.gettempdir()) / f"{_PREFIX}{os.getuid()}-{digest}"


def _wait_for(head: Head, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        alive = is_alive(head)
        text = log.read_text(errors="replace")
        if "Ray runtime started" in text:
            return
        if not alive:
            lines = [line.strip() for line in text.splitlines() if line.strip()][-3:]
            raise InfrastructureError(f"Ray does not start: {' / '.join(lines)}", hint=f"see {log}")
        time.sleep(0.05)
    raise InfrastructureError(f"Ray timed out: it did not start in {_START_S:.0f} s", hint=f"see {log}")


def free_port() -> int:
    """A port of loopback that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_alive(process: Head | None) -> bool:
    """Whether it is still the process that was started, and no other of the same id."""
    if process is None:
        return False
    try:
        found = psutil.Process(process["pid"])
        return bool(found.create_time() == process["created"] and found.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def end_process(process: Head) -> None:
    """Ends a process and its descendants; touches no file."""
    _end_all(_tree(process))


def end_head(head: Head) -> None:
    """Ends a head, also what its raylet has left behind, and removes Ray's own temporary folder."""
    temporary = head["ray_temp_dir"]
    _end_all(_tree(head) + [found for found in psutil.process_iter(["cmdline"]) if _is_of(found, temporary)])
    if Path(temporary).name.startswith(_PREFIX):
        shutil.rmtree(temporary, ignore_errors=True)


def _end_all(processes: list[psutil.Process]) -> None:
    victims = {found.pid: found for found in processes if found.pid != os.getpid()}
    for found in victims.values():
        _send(found, "terminate")
    _, left = psutil.wait_procs(list(victims.values()), timeout=_END_S)
    for found in left:
        _send(found, "kill")
    psutil.wait_procs(left, timeout=5.0)


def _tree(process: Head) -> list[psutil.Process]:
    if not is_alive(process):
        return []
    try:
        root = psutil.Process(process["pid"])
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _is_of(found: psutil.Process, folder: str) -> bool:
    """Workers rename themselves, but the raylet, the GCS and the agents name their folder."""
    try:
        return any(folder in argument for argument in found.info["cmdline"] or ())
    except psutil.Error:
        return False


def _send(found: psutil.Process, what: str) -> None:
    try:
        getattr(found, what)()
    except psutil.NoSuchProcess:
        # It left by itself.
        return


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
