"""One local cluster per session for what runs in this process; the command line's tests start their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from astraml_ray.cli.s3_server import S3Server
from astraml_ray.forkserver.start import fork_server
from astraml_ray.settings import apply_ray_environment, load_settings
from astraml_ray.training.cluster import cluster
from tests.conftest import write_dataset


@dataclass
class Command:
    """`astraml` in a process of its own."""

    process: subprocess.Popen[str]

    @classmethod
    def start(cls, *arguments: str, env: dict[str, str] | None = None) -> Command:
        command = [sys.executable, "-m", "astraml_ray", *arguments]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
        return cls(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        )

    @classmethod
    def run(cls, *arguments: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
        return cls.start(*arguments, env=env).finish()

    def finish(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=1200)
        return self.process.returncode, out, err

    def read_until(self, text: str) -> str:
        """Reads stderr up to the line that has a text."""
        assert self.process.stderr is not None
        seen = []
        for line in self.process.stderr:
            seen.append(line)
            if text in line:
                return line
        raise AssertionError("".join(seen))


def result_of(out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def cores() -> Iterator[int | None]:
    """A cluster of this process; the cores of the machine."""
    apply_ray_environment()
    with fork_server(load_settings()) as settings, cluster(settings, 2) as local_cores:
        yield local_cores


SPEC = """
dataset: s3://bucket/cluster
model: tiny-bert
hyperparams: {batch_size: 16, lr: 1e-3, epochs: 3, eval_every: 10 steps, max_length: 32}
augmentation: [{type: random_deletion, rate: 0.2}]
checkpoint: {every: 5 steps}
resources: {gpus: 0, threads_per_worker: 1}
seed: 11
"""


@pytest.fixture(scope="session")
def spec_file(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spec of 78 steps, with 5 workers' worth of uneven ends."""
    write_dataset(s3.folder / "bucket" / "cluster", rows=405, group=60)
    file = tmp_path_factory.mktemp("spec") / "spec.yaml"
    file.write_text(SPEC)
    return file


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="session")
def finished(spec_file: Path, storage: Path) -> dict[str, Any]:
    """The undisturbed run that others are compared with: 2 workers."""
    code, out, err = Command.run(
        "run", "-f", str(spec_file), "--workers", "2", "--name", "whole", "--storage", str(storage), "--output", "json"
    )
    assert code == 0, err
    return {**result_of(out), "stderr": err}
