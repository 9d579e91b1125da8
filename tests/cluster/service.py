"""An installation of the service for tests: real processes in a home of its own, and their ids to kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from astraml_ray.client import Client
from astraml_ray.installation import load_installation

_WAIT_S = 900.0  # a bound against hanging; busy machines are slow
_GLANCE_S = 0.3  # a look costs the service, and so the job, a part of the machine
_HTTP = httpx.Client(timeout=30.0)  # one for all: to make one costs more than to ask


@dataclass
class Installed:
    """A service that `astraml up` started."""

    home: Path
    s3: Path
    env: dict[str, str]

    @property
    def address(self) -> str:
        installation = load_installation(self.home)
        assert installation is not None
        return installation.address

    @property
    def auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {(self.home / 'token').read_text().strip()}"}

    def client(self) -> Client:
        return Client(self.address, token=(self.home / "token").read_text().strip())

    def astraml(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "astraml_ray", *arguments],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def json(self, *arguments: str) -> dict[str, Any]:
        """The last object that a verb printed."""
        found: dict[str, Any] = json.loads(self.astraml(*arguments, "--output", "json").stdout.splitlines()[-1])
        return found

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        """A GET that waits for a service that is being restarted."""

        def answer() -> dict[str, Any] | None:
            try:
                response = _HTTP.get(self.address + path, params=params, headers=self.auth)
            except httpx.HTTPError:
                return None
            if response.status_code >= 500:
                return None
            response.raise_for_status()
            found: dict[str, Any] = response.json()
            return found

        return wait_for(answer)

    def job(self, job_id: str) -> dict[str, Any]:
        return self.get(f"/v2.1/jobs/{job_id}")

    def ended(self, job_id: str) -> dict[str, Any]:
        """The job, once it has ended."""

        def terminal() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["terminal"] else None

        return wait_for(terminal)

    def at_step(self, job_id: str, step: int) -> dict[str, Any]:
        """The job, once it trains and has done so many steps."""

        def there() -> dict[str, Any] | None:
            job = self.job(job_id)
            assert not job["terminal"], job
            return job if job["status"] == "running" and job["progress"]["step"] >= step else None

        return wait_for(there)

    def processes(self, title: str) -> list[psutil.Process]:
        """Processes of the installation's cluster whose title begins so."""
        installation = load_installation(self.home)
        assert installation is not None
        assert installation.head is not None
        found = psutil.Process(installation.head["pid"]).children(recursive=True)
        return [process for process in found if _title(process).startswith(title)]

    def kill(self, title: str) -> int:
        """Kills with -9 the processes of that title; waits for there to be one."""

        def victims() -> list[psutil.Process]:
            return self.processes(title)

        processes = wait_for(victims)
        for process in processes:
            process.kill()
        return len(processes)


def start(home: Path, s3: Path, *options: str) -> Installed:
    """`astraml up`, with an S3 server."""
    (s3 / "bucket").mkdir(parents=True, exist_ok=True)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_", "ASTRAML_"))}
    env |= {"ASTRAML_HOME": str(home), "ASTRAML_CACHE": str(home / "cache"), "PYTHONUNBUFFERED": "1"}
    installed = Installed(home, s3, env)
    installed.astraml("up", "--s3", str(s3), *options)
    return installed


def wait_for(look: Callable[[], Any]) -> Any:
    """What `look` finds, once it finds something."""
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(_GLANCE_S)
    raise AssertionError(f"{look.__qualname__}: nothing in {_WAIT_S:.0f} s")


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
