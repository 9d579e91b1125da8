"""The fork server, with scripts in the place of Ray's workers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from astraml_ray.forkserver.start import fork_server, new_name, runtime_env, start_server
from astraml_ray.settings import load_settings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no fork server but on Linux")

SCRIPT = """
import json, os, sys
print(json.dumps({
    "pid": os.getpid(), "parent": os.getppid(), "group": os.getpgid(0), "arguments": sys.argv, "folder": os.getcwd(),
    "name": __name__, "path": sys.path[:2], "environment": dict(os.environ), "torch": "torch" in sys.modules,
    "threads": sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None,
    "ray": "ray" in sys.modules, "input": sys.stdin.read(),
    "oom_score_adj": open("/proc/self/oom_score_adj").read().strip(),
}), flush=True)
"""
PLAIN = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}


@pytest.fixture(scope="module")
def name() -> Iterator[str]:
    with fork_server(replace(load_settings(), ray_address=None)) as settings:
        assert settings.fork_server is not None
        yield settings.fork_server


@pytest.fixture
def script(tmp_path: Path) -> Path:
    file = tmp_path / "the script.py"
    file.write_text(SCRIPT)
    return file


def start(name: str, script: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """As Ray starts a worker: the executable of the runtime environment, by bash."""
    executable = runtime_env(name)["py_executable"]
    return subprocess.Popen(
        ["bash", "-c", f'exec {executable} "$@"', "bash", str(script), *arguments],
        env={**PLAIN, **environment},
        cwd=script.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen[str], given: str = "") -> dict[str, Any]:
    out, err = process.communicate(given, timeout=120)
    assert out, err
    found: dict[str, Any] = json.loads(out)
    return found


def soon(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_process_is_as_if_it_had_been_started(name: str, script: Path) -> None:
    stub = start(name, script, "--one", "two words", COLOUR="blue", PYTHONPATH="/somewhere/else")
    found = answer(stub, "what is read")
    assert stub.returncode == 0
    assert found["arguments"] == [str(script), "--one", "two words"]
    assert (found["folder"], found["name"]) == (str(script.parent), "__main__")
    assert found["path"] == [str(script.parent), "/somewhere/else"]
    environment = {
        k: v for k, v in found["environment"].items() if k not in ("SHLVL", "_", "PWD", "OLDPWD", "LC_CTYPE")
    }
    assert environment == {**PLAIN, "COLOUR": "blue", "PYTHONPATH": "/somewhere/else"}
    assert found["input"] == "what is read"
    assert found["torch"]
    assert not found["ray"]
    assert found["pid"] == found["group"] != stub.pid
    assert found["parent"] != os.getpid()


def test_processes_are_apart_and_their_stubs_stay_as_long(name: str, tmp_path: Path) -> None:
    script = tmp_path / "s.py"
    script.write_text("import os, sys\nprint(os.getpid(), flush=True)\nsys.stdin.read()\nsys.exit(3)\n")
    stubs = [start(name, script) for _ in range(3)]
    pids = [int(stub.stdout.readline()) for stub in stubs]  # type: ignore[union-attr]
    assert len(set(pids)) == 3
    os.kill(pids[0], signal.SIGKILL)
    assert stubs[0].wait(60) == 0
    assert soon(lambda: gone(pids[0]))
    assert stubs[1].poll() is None
    for stub in stubs[1:]:
        stub.communicate(timeout=60)
    assert soon(lambda: all(gone(pid) for pid in pids))  # none is left to be waited for


def test_malloc_s_variables_hold_in_a_process(name: str, tmp_path: Path) -> None:
    """A block below the threshold comes from the heap, which a fresh process would map apart."""
    script = tmp_path / "s.py"
    script.write_text(
        "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.malloc.restype = ctypes.c_void_p\n"
        "heap = next(line.split()[0] for line in open('/proc/self/maps') if line.rstrip().endswith('[heap]'))\n"
        "place = libc.malloc(ctypes.c_size_t(64 << 20))\n"
        "start = int(heap.split('-')[0], 16)\nprint(start <= place < start + (4 << 30), flush=True)\n"
    )
    given = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(1 << 31), "MALLOC_TRIM_THRESHOLD_": "no number"}
    assert start(name, script, **given).communicate(timeout=60)[0] == "True\n"
    assert start(name, script).communicate(timeout=60)[0] == "False\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        (5).to_bytes(8, "big") + b"12345",
        (2).to_bytes(8, "big") + b"{}",
        (7).to_bytes(8, "big") + b"[1,2,3]",
        (1 << 20).to_bytes(8, "big") + b"{",
    ],
)
def test_nonsense_is_hung_up_on(name: str, script: Path, sent: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(f"\0{name}")
        other.sendall(sent)
        other.shutdown(socket.SHUT_WR)
        other.settimeout(60)
        with contextlib.suppress(ConnectionResetError):  # it hung up before it had read everything
            assert other.recv(10) == b""
    assert answer(start(name, script))["torch"]


@pytest.mark.parametrize(("given", "threads"), [("1", 1), ("3", 3), ("0", None), ("many", None)])
def test_a_process_has_the_threads_that_ray_gives_it(name: str, script: Path, given: str, threads: int | None) -> None:
    plain = answer(start(name, script))["threads"]
    assert answer(start(name, script, OMP_NUM_THREADS=given))["threads"] == (threads or plain)


def test_what_the_raylet_said_of_memory_is_passed_on(name: str, script: Path) -> None:
    executable = runtime_env(name)["py_executable"]
    adjusted = f'echo 700 > /proc/self/oom_score_adj && exec {executable} "{script}"'
    stub = subprocess.run(["bash", "-c", adjusted], env=PLAIN, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(stub.stdout)["oom_score_adj"] == "700"


def test_without_a_server_the_process_is_a_plain_one(script: Path) -> None:
    stub = start("astraml-fork-nobody", script, "one", COLOUR="blue")
    found = answer(stub, "read")
    assert (found["pid"], found["torch"], found["input"]) == (stub.pid, False, "read")
    assert (found["arguments"], found["environment"]["COLOUR"]) == ([str(script), "one"], "blue")


def test_a_server_of_another_user_is_not_asked(tmp_path: Path, script: Path) -> None:
    """Whoever is first has the name."""
    if os.getuid() != 0:
        pytest.skip("takes another user")
    taken = new_name()
    code = (
        f"import os, socket\nos.setuid(65534)\ns = socket.socket(socket.AF_UNIX)\ns.bind('\\0{taken}')\n"
        "s.listen()\nprint('up', flush=True)\nc = s.accept()[0]\nprint(c.recv(1000), flush=True)\nc.sendall(b'+')\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as thief:
        assert thief.stdout is not None
        assert thief.stdout.readline() == "up\n"
        assert taken is not None
        stub = start(taken, script)
        assert answer(stub)["pid"] == stub.pid
        assert thief.stdout.readline() == "b''\n"


def test_it_ends_with_whoever_started_it(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom astraml_ray.forkserver.start import fork_server\n"
        "from astraml_ray.settings import load_settings\n"
        "with fork_server(load_settings({})) as settings:\n"
        "    print(settings.fork_server, flush=True)\n    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        starter.stdout.readline()
        (found,) = psutil.Process(starter.pid).children()
        starter.kill()
    assert soon(lambda: gone(found.pid))


def test_with_a_command_it_ends_with_that_and_ends_it() -> None:
    for how in ("the command", "the server"):
        name = new_name()
        assert name is not None
        process = start_server(name, sys.executable, "-c", "import time; time.sleep(600)", environment=os.environ)
        assert soon(lambda process=process: bool(psutil.Process(process.pid).children()))  # type: ignore[misc]
        (command,) = psutil.Process(process.pid).children()
        (command if how == "the command" else psutil.Process(process.pid)).terminate()
        process.wait(60)
        assert soon(lambda command=command: gone(command.pid)), how  # type: ignore[misc]


def test_a_cluster_that_was_there_has_none() -> None:
    settings = replace(load_settings(), ray_address="127.0.0.1:6379")
    with fork_server(settings) as found:
        assert found == settings
    assert runtime_env(None) == {}


@pytest.mark.parametrize(("device", "forks"), [("nvidia0", False), ("other0", True)])
def test_a_server_that_touched_cuda_forks_nothing(
    tmp_path: Path, script: Path, monkeypatch: pytest.MonkeyPatch, device: str, forks: bool
) -> None:
    """One of its modules opens a GPU's device (here a file, elsewhere): the stub becomes a plain interpreter."""
    opening = f"""
import sys
sys.modules["__main__"]._GPU_DEVICES = {str(tmp_path / "nvidia")!r}
opened = open({str(tmp_path / device)!r}, "w")
"""
    (tmp_path / "tensorboardX.py").write_text(opening)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with fork_server(replace(load_settings(), ray_address=None)) as settings:
        assert settings.fork_server is not None
        stub = start(settings.fork_server, script)
        found = answer(stub)
    assert (found["pid"] != stub.pid, found["torch"]) == (forks, forks)
