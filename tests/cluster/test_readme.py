"""The README's commands, as they are written there. The two under "Try it" and "Test it" are run by .ci/run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from astraml_ray.cli.s3_server import S3Server
from astraml_ray.settings import RAY_ENVIRONMENT
from tests.conftest import write_dataset

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
pytestmark = pytest.mark.ray


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    return [line for block in blocks("console") for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def home(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the README's specs, and their dataset in the bucket."""
    write_dataset(s3.folder / "bucket" / "dataset")
    folder = tmp_path_factory.mktemp("readme")
    for name, text in zip(("spec.yaml", "sweep.yaml"), blocks("yaml"), strict=True):
        (folder / name).write_text(text)
    return folder


def shell(command: str, home: Path, **extra: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "ASTRAML_STORAGE": str(home / "runs"), **extra}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def commands_below(heading: str) -> list[str]:
    """The commands of one section."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    return [line for block in found for line in block.splitlines() if line.strip()]


def test_the_service_s_commands(tmp_path: Path) -> None:
    """`up` to `down` as a reader would type them, in a home of their own; only the port may be another."""
    write_dataset(tmp_path / "s3" / "bucket" / "dataset")
    for name, text in zip(("job.json", "policy.json"), blocks("json"), strict=True):
        (tmp_path / name).write_text(text)
    local = commands_below("The service")
    assert (local[0].split()[1], local[-1].split()[1]) == ("up", "down")
    mine = {"ASTRAML_HOME": str(tmp_path / "home")}
    outputs = {}
    try:
        for command in local:
            if "127.0.0.1:8700" in command:
                address = json.loads((tmp_path / "home" / "service.json").read_text())["address"]
                command = command.replace("http://127.0.0.1:8700", address)
                command = command.replace("~/.astraml", str(tmp_path / "home"))
            outputs[command.split()[1]] = outputs[command] = shell(command, tmp_path, **mine)
    finally:
        shell("astraml down", tmp_path, **mine)
    assert json.loads(outputs["-sS"])["status"] == "queued"
    assert any("succeeded" in out for command, out in outputs.items() if command.startswith("astraml submit"))
    assert "capped from 8 by project policy v1" in outputs["astraml show latest --provenance"]
    assert "policy.changed" in outputs["audit"]
    assert "resources.gpus=0" in outputs["explain"]
    assert "cancelled" in outputs["cancel"]


def test_every_command_without_a_service(home: Path) -> None:
    local = [command for command in commands() if command.startswith("astraml")]
    local = [command for command in local if command not in commands_below("The service")]
    assert len(local) == 7
    for command in local:
        runs = sorted((home / "runs").glob("second-*")) if (home / "runs").exists() else []
        out = shell(command, home, RUN=str(runs[0]) if runs else "")
        if "--output json" in command:
            assert json.loads(out.splitlines()[-1])["workers"] == 2
    assert "identical" in out


def test_ray_job_submit_as_in_the_readme(home: Path, tmp_path: Path) -> None:
    """A real head with its dashboard, 2 CPUs, and a token."""
    submit = next(command for command in commands() if command.startswith("ray job submit"))
    token = tmp_path / "token"
    token.write_text("a" * 64)
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), **RAY_ENVIRONMENT}
    binary = Path(sys.executable).parent
    command = [str(binary / "ray"), "start", "--head", "--block", "--port", "26379", "--dashboard-port", "28265"]
    path = f"{binary}{os.pathsep}{os.environ['PATH']}"
    head = subprocess.Popen(
        [*command, "--num-cpus", "2", "--num-gpus", "0", "--disable-usage-stats"],
        env={**os.environ, **environment, "PATH": path, "ASTRAML_STORAGE": str(home / "runs")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for_dashboard(head)
        out = shell(submit, home, RAY_API_SERVER_ADDRESS="http://127.0.0.1:28265", **environment)
        assert "succeeded" in out
        assert list((home / "runs").glob("third-*/result.json"))
    finally:
        head.terminate()
        head.wait(60)


def _wait_for_dashboard(head: subprocess.Popen[bytes]) -> None:
    import socket
    import time

    for _ in range(600):
        assert head.poll() is None, "ray start failed"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 28265)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("the dashboard does not answer")


def test_demo(tmp_path: Path) -> None:
    """Beats the majority class by far, and leaves nothing behind."""
    # A short name: Ray puts its sockets there, whose paths may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="d-", dir="/tmp") as temporary:
        out = shell("astraml demo --output json", tmp_path, TMPDIR=temporary)
        left = [path.name for path in Path(temporary).iterdir()]
    result = json.loads(out.splitlines()[-1])
    assert result["metrics"]["validation/accuracy"] > 2.5 * result["majority_class_accuracy"]
    assert len(result["answers"]) == 2
    assert not [name for name in left if name.startswith("astraml-") and name != "astraml-ray-train"]
