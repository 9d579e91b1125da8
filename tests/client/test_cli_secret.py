"""`astraml secret`, and the client's secrets: values go in by ways that nobody watches, and never come out."""

from __future__ import annotations

import base64
import json
import os
import pty
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from astraml_ray.access.grants import SecretGrant
from astraml_ray.access.secrets import SecretRef, load_keys
from astraml_ray.access.vault import release_secrets
from astraml_ray.cli.main import main
from astraml_ray.client import Client
from astraml_ray.client.failures import ApiError
from astraml_ray.errors import RequestError
from astraml_ray.store.secrets import find_secret
from tests.client.conftest import Astraml, LiveService

VALUE = "wJalrXUtnFEMI/K7MDENG"
IN_PROJECT = ("--project", "p-demo")


def typed(text: str | bytes, *arguments: str, code: int = 0) -> Result:
    """A command line with something piped in."""
    done = CliRunner().invoke(main, ["secret", *arguments], input=text)
    assert done.exit_code == code, f"{done.exit_code}\n{done.stdout}\n{done.stderr}\n{done.exception!r}"
    assert VALUE not in done.output
    return done


def stored(service: LiveService, name: str, *, job_id: str = "") -> str:
    """The value, as a worker of a job is given it."""
    with service.store.write() as conn:
        secret = find_secret(conn, "p-demo", name)
        assert secret is not None
        ref = SecretRef("p-demo", name, secret.version)
        grant = SecretGrant(job_id or None, 1, "ana", (ref,), time.time() + 60)
        ring = load_keys(None, service.keys, create=False)
        return release_secrets(conn, ring, grant, now=time.time())[name]


def test_the_ways_in(service: LiveService, job_id: str, tmp_path: Path) -> None:
    done = typed(f"{VALUE}\n", "set", "s3-prod", *IN_PROJECT)
    assert done.stdout == "stored s3-prod v1 in p-demo\n"
    assert "{secret: s3-prod}" in done.stderr
    assert stored(service, "s3-prod") == VALUE
    typed(f"{VALUE}\r\n", "set", "s3-prod", *IN_PROJECT)
    assert stored(service, "s3-prod") == VALUE
    file = tmp_path / "value"
    file.write_text(f"line 1\n{VALUE}\n\n")
    answer = json.loads(typed("", "set", "lines", *IN_PROJECT, "--from-file", str(file), "--output", "json").stdout)
    assert (answer["name"], answer["version"]) == ("lines", 1)
    assert stored(service, "lines") == f"line 1\n{VALUE}\n"
    assert "not masked" in typed("1234", "set", "pin", *IN_PROJECT).stderr


def test_a_value_is_no_argument(service: LiveService, job_id: str) -> None:
    done = typed("", "set", "hf", VALUE, *IN_PROJECT, code=2)
    assert "the value is no argument" in done.stderr
    assert "--value" not in CliRunner().invoke(main, ["secret", "set", "--help"]).output
    assert typed("", "list", *IN_PROJECT).stdout.startswith("there are no secrets in p-demo")


@pytest.mark.parametrize(("text", "says"), [("", "empty"), (b"\xff\xfe" * 9, "not text"), ("x" * 70_000, "64 KiB")])
def test_what_is_no_value(service: LiveService, job_id: str, text: str | bytes, says: str) -> None:
    done = CliRunner().invoke(main, ["secret", "set", "hf", *IN_PROJECT], input=text)
    assert done.exit_code in (2, 10)
    assert says in done.stderr


def test_asked_for_on_a_terminal_without_an_echo(service: LiveService, job_id: str) -> None:
    command = [sys.executable, "-m", "astraml_ray", "secret", "set", "hf", *IN_PROJECT]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(command[0], command)
    said = b""
    for asks in (b"value of hf: ", b"once more: "):
        while asks not in said:
            said += os.read(terminal, 1000)
        os.write(terminal, f"{VALUE}\n".encode())
    while b"stored hf v1" not in said:
        said += os.read(terminal, 1000)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)
    assert VALUE.encode() not in said
    assert stored(service, "hf") == VALUE


def test_list_uses_and_delete(service: LiveService, astraml: Astraml, job_id: str) -> None:
    typed(VALUE, "set", "s3-prod", *IN_PROJECT)
    assert "not used yet" in astraml("secret", "list", *IN_PROJECT).stdout
    assert "no job was given" in astraml("secret", "uses", "s3-prod", *IN_PROJECT).stdout
    stored(service, "s3-prod", job_id=job_id)
    listed = astraml("secret", "list", *IN_PROJECT).stdout
    assert listed.startswith(f"s3-prod  v1, {len(VALUE)} characters, stored ")
    assert "last used" in listed
    (use,) = json.loads(astraml("secret", "uses", "s3-prod", *IN_PROJECT, "--output", "json").stdout)["data"]
    assert (use["job_id"], use["attempt"], use["subject"]) == (job_id, 1, "ana")
    assert f"{job_id} attempt 1  v1  ana" in astraml("secret", "uses", "s3-prod", *IN_PROJECT).stdout
    assert "destroyed" in astraml("secret", "delete", "s3-prod", *IN_PROJECT).stdout
    assert "there is no secret" in astraml("secret", "delete", "s3-prod", *IN_PROJECT, code=10).stderr
    assert "there are no secrets" in astraml("secret", "list", *IN_PROJECT).stdout


def test_submitted_with_references(service: LiveService, astraml: Astraml, job_id: str) -> None:
    for name in ("s3-prod", "hf"):
        typed(VALUE, "set", name, *IN_PROJECT)
    line = "submit --project p-demo --model bert-base --dataset s3://bucket/dataset --output json"
    references = ("--set", "dataset.credentials.secret=s3-prod", "--set", "env.HF_TOKEN.secret=hf")
    made: dict[str, Any] = json.loads(astraml(*line.split(), *references).stdout.splitlines()[-1])
    assert made["spec"]["dataset"]["credentials"] == {"secret": "s3-prod"}
    assert made["spec"]["env"] == {"HF_TOKEN": {"secret": "hf"}}


def test_the_client(client: Client, job_id: str) -> None:
    assert client.secrets.set("p-demo", "a.b", VALUE)["version"] == 1
    assert [one["name"] for one in client.secrets.list("p-demo")] == ["a.b"]
    assert list(client.secrets.uses("p-demo", "a.b")) == []
    with pytest.raises(ApiError) as caught:
        client.secrets.set("p-demo", "a/b", VALUE)
    assert VALUE not in str(caught.value)
    with pytest.raises(RequestError):
        client.secrets.delete("p-demo", " ")


def test_new_key(astraml: Astraml) -> None:
    one, other = (astraml("secret", "new-key").stdout.strip() for _ in range(2))
    assert len(base64.b64decode(one, validate=True)) == 32
    assert one != other


def test_rotate_is_for_where_the_service_is(
    service: LiveService, astraml: Astraml, job_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from astraml_ray.installation import Installation, save_installation

    assert "there is no service of this home" in astraml("secret", "rotate", code=30).stderr
    typed(VALUE, "set", "hf", *IN_PROJECT)
    old = load_keys(None, service.keys, create=False)
    monkeypatch.setenv("ASTRAML_HOME", str(tmp_path))
    url = f"sqlite:///{tmp_path / 'astraml.db'}"
    here = Installation(tmp_path, service.address, "x:1", None, None, None, str(tmp_path), url, None)
    assert asdict(here)["home"] == service.keys.parent
    save_installation(here)
    said = astraml("secret", "rotate").stdout
    assert "versions of secrets encrypted anew: 1" in said
    assert f"old keys dropped: {old.primary_id}" in said
    assert load_keys(None, service.keys, create=False).primary_id != old.primary_id
    assert stored(service, "hf") == VALUE
