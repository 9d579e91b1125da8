"""Secrets through a whole service: a job that cannot run without them, and then nothing anywhere that holds one."""

from __future__ import annotations

import base64
import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psutil
import pytest
import ray

from astraml_ray.access.secrets import new_master_key
from astraml_ray.cli.s3_server import S3Server, serve_s3
from astraml_ray.control.head import free_port
from astraml_ray.forkserver.start import fork_server
from astraml_ray.installation import load_installation
from astraml_ray.settings import apply_ray_environment, load_settings
from astraml_ray.spec.loading import parse_spec
from astraml_ray.training.cluster import cluster
from astraml_ray.training.preparation import prepare
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.training.runner import Watcher, run_attempts, start_run
from astraml_ray.training.stop import Stop
from tests.cluster.service import Installed
from tests.conftest import write_dataset

pytestmark = pytest.mark.ray

TOKEN = "correct-horse+battery/staple=%42?"
SPEC: dict[str, Any] = {
    "project_id": "p-test",
    "dataset": {"path": "s3://bucket/dataset", "credentials": {"secret": "s3-prod"}},
    "model": "tiny-bert",
    "hyperparams": {"batch_size": 16, "lr": 1e-3, "epochs": 4, "eval_every": "40 steps", "max_length": 32},
    "env": {"HF_TOKEN": {"secret": "hf"}, "PLAIN": "value"},
    "resources": {"gpus": 0, "threads_per_worker": 1},
}


@pytest.fixture(scope="module")
def store_of_rows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server whose keys are in no environment of the service."""
    folder = tmp_path_factory.mktemp("rows")
    write_dataset(folder / "bucket" / "dataset", rows=405, group=60)
    with serve_s3(folder) as server:
        yield server


@pytest.fixture(scope="module")
def up(store_of_rows: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    home = tmp_path_factory.mktemp("service") / "home"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_", "ASTRAML_"))}
    env |= {"ASTRAML_HOME": str(home), "ASTRAML_CACHE": str(home / "cache"), "PYTHONUNBUFFERED": "1"}
    env |= {
        "ASTRAML_ALLOWED_TARGETS": store_of_rows.endpoint_url.removeprefix("http://"),
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",  # as this server needs it
        "AWS_EC2_METADATA_DISABLED": "true",
        "ASTRAML_MASTER_KEY": new_master_key(),
    }
    installed = Installed(home, store_of_rows.folder, env)
    installed.astraml("up", "--port", str(free_port()))
    installed.astraml("project", "create", "p-test")
    yield installed
    installed.astraml("down")


@pytest.fixture(scope="module")
def stored(up: Installed, store_of_rows: S3Server) -> list[str]:
    """The values that must be nowhere."""
    with up.client() as client:
        text = (
            f'{{"access_key_id": "{store_of_rows.access_key}", "secret_access_key": "{store_of_rows.secret_key}", '
            f'"endpoint_url": "{store_of_rows.endpoint_url}", "region": "us-east-1"}}'
        )
        assert client.secrets.set("p-test", "s3-prod", text)["version"] == 1
        assert client.secrets.set("p-test", "hf", TOKEN)["warnings"] == []
    return [store_of_rows.secret_key, TOKEN]


def forms(values: list[str]) -> list[bytes]:
    """As they are, in base64 and in URLs."""
    found = []
    for value in values:
        found += [value, base64.b64encode(value.encode()).decode().rstrip("="), quote(value, safe=""), quote(value)]
    return [form.encode() for form in found]


def files_with(folder: Path, wanted: list[bytes]) -> list[str]:
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            found += [str(path) for form in wanted if form in data]
    return found


def environments_with(up: Installed, wanted: list[bytes]) -> list[str]:
    found = []
    for process in up.processes(""):
        try:
            seen = Path(f"/proc/{process.pid}/environ").read_bytes() + Path(f"/proc/{process.pid}/cmdline").read_bytes()
        except (OSError, psutil.Error):
            continue
        found += [" ".join(process.cmdline()) for form in wanted if form in seen]
    return found


def test_a_job_runs_on_its_secrets_alone_and_nothing_holds_them(up: Installed, stored: list[str]) -> None:
    wanted = forms(stored)
    bare = {**SPEC, "dataset": "s3://bucket/dataset", "env": {}}
    with up.client() as client:
        with pytest.raises(Exception, match=r"denied|does not exist|credentials"):
            client.validate({**bare, "dataset": {"path": "s3://bucket/dataset"}})
        report = client.validate(SPEC)
        assert report["dataset"]["splits"]["train"]["rows"] == 405
        assert report["spec"]["env"] == {"HF_TOKEN": {"secret": "hf"}, "PLAIN": "value"}
        job_id = client.submit(SPEC)["id"]
    up.at_step(job_id, 5)
    assert up.processes("ray::RayTrainWorker")
    assert environments_with(up, [*wanted, up.env["ASTRAML_MASTER_KEY"].encode()]) == []
    job = up.ended(job_id)
    assert job["status"] == "succeeded", job

    with up.client() as client:
        used = {name: list(client.secrets.uses("p-test", name)) for name in ("s3-prod", "hf")}
        assert {name: [(u["job_id"], u["attempt"], u["version"]) for u in uses] for name, uses in used.items()} == {
            name: [(job_id, 1, 1)] for name in used
        }
        tried = [one for one in client.audit.list(project_id="p-test") if one["action"] == "secret.tried"]
        assert [one["target"] for one in tried] == ["s3-prod"]
    paths = ["", "/attempts", "/events", "/logs", "/metrics", "/artifacts", "/provenance"]
    paths = [f"/v2.1/jobs/{job_id}{path}" for path in paths]
    paths += ["/v2.1/jobs", "/v2.1/audit", *(f"/v2.1/projects/p-test/secrets{p}" for p in ("", "/hf/uses"))]
    for path in paths:
        answer = httpx.get(up.address + path, headers=up.auth, timeout=60.0).raise_for_status()
        assert not [form for form in wanted if form in answer.content], path
    installation = load_installation(up.home)
    assert installation is not None
    assert installation.head is not None
    assert files_with(up.home, [job_id.encode()])  # it can find something
    assert list(Path(installation.head["ray_temp_dir"]).rglob("*.log"))
    assert files_with(up.home, wanted) == []
    assert files_with(Path(job["run_path"]), wanted) == []
    assert files_with(Path(installation.head["ray_temp_dir"]), wanted) == []


def test_what_is_no_credentials_fails_the_job_and_is_not_repeated(up: Installed, stored: list[str]) -> None:
    secret = "AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI"
    with up.client() as client:
        client.secrets.set("p-test", "bad", secret)
        spec = {**SPEC, "dataset": {"path": "s3://bucket/dataset", "credentials": {"secret": "bad"}}, "env": {}}
        job_id = client.submit(spec)["id"]
        job = up.ended(job_id)
        assert (job["status"], job["reason"], job["error"]["class"]) == ("failed", "data", "data"), job
        assert job["error"]["param"] == "/dataset/credentials"
        assert "secret_access_key" in job["error"]["hint"]
        told = [str(job), *map(str, client.events(job_id)), *map(str, client.logs(job_id))]
        assert not [text for text in told if "wJalrXUtnFEMI" in text]


def test_a_new_master_key_while_the_service_runs(up: Installed, stored: list[str]) -> None:
    before = (up.home / "master.key").read_text()
    assert before.split() == [up.env["ASTRAML_MASTER_KEY"]]
    done = up.json("secret", "rotate")
    assert (done["moved"] >= 2, len(done["dropped"])) == (True, 1)
    assert (up.home / "master.key").read_text() != before
    assert (up.home / "master.key").stat().st_mode & 0o777 == 0o600
    with up.client() as client:
        assert client.validate(SPEC)["dataset"]["splits"]["train"]["rows"] == 405


@dataclass(frozen=True)
class Teller:
    """Gives a value, and lets the process that asked tell it in every way, as a careless library would."""

    def __call__(self, name: str) -> str:
        threading.Timer(1.0, self.tell).start()
        return TOKEN

    @staticmethod
    def tell() -> None:
        told = os.environ["HF_TOKEN"]
        print("told", told, flush=True)
        print("half of it", end=" ", flush=True)
        for letter in told:
            print(letter, end="", flush=True)
        print(" and done", base64.b64encode(told.encode()).decode())
        logging.getLogger("astraml_ray.teller").warning("told %s", quote(told, safe=""))


def test_what_a_worker_tells_of_its_environment_is_masked(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "d", rows=405, group=60)
    spec = {**SPEC, "dataset": str(data), "env": {"HF_TOKEN": {"secret": "hf"}}}
    lines: list[str] = []
    apply_ray_environment()
    with fork_server(load_settings()) as settings, cluster(settings, 1) as cores:
        inputs, _ = prepare(parse_spec(spec), load_settings(), secrets=Teller())
        folder = RunFolder(str(tmp_path / "run"))
        inputs, placement = start_run(inputs, folder, cores)
        watcher = Watcher(lambda _: None, Stop(), lambda _, new: lines.extend(line["text"] for line in new))
        run_attempts(inputs, folder, placement, watcher)
        session = Path(ray._private.worker._global_node.get_session_dir_path())
        time.sleep(1.0)  # Ray writes what a process said a moment later
    text = "\n".join(lines)
    assert "told ***" in text
    assert "half of it *** and done ***" in text
    assert text.count("***") >= 4
    assert not [form for form in forms([TOKEN]) if form.decode() in text]
    logs = files_with(session / "logs", forms([TOKEN]))
    assert logs == []
