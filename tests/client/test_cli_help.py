"""The command line as a whole: help, completion, imports, and what happens without a service or with Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from astraml_ray.cli.group import Verb
from astraml_ray.cli.main import main
from astraml_ray.cli.service import STATUSES
from astraml_ray.spec.states import JobStatus
from tests.client.conftest import Astraml, LiveService

VERBS = dict(main.verbs)  # type: ignore[attr-defined]
OF_A_JOB = ["show", "wait", "logs", "events", "metrics", "cancel", "resume", "clone", "explain", "download"]


@pytest.mark.parametrize("name", VERBS)
def test_help_of_every_verb(name: str) -> None:
    verb: Verb = VERBS[name]
    done = CliRunner().invoke(main, [name, "--help"], prog_name="astraml")
    assert done.exit_code == 0, done.output
    assert f"Usage: astraml {name}" in done.output
    command = verb.load()
    assert command.name == name
    assert (command.help or "").split("\n\n")[0].replace("\n", " ") == verb.help


def test_help_has_sections() -> None:
    text = CliRunner().invoke(main, ["--help"]).output
    places = [text.index(f"{title}:") for title in ("Service", "Jobs", "Without a service", "Reference")]
    assert places == sorted(places)
    assert all(f"  {name}" in text for name in VERBS)


def test_a_misspelt_verb() -> None:
    done = CliRunner().invoke(main, ["sumbit", "--model", "x"])
    assert done.exit_code == 2
    assert "did you mean 'submit'" in done.stderr
    assert CliRunner().invoke(main, ["qqq"]).exit_code == 2


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["submit", "--help"], ["list", "--help"]])
def test_nothing_heavy_is_imported_for_help(arguments: list[str]) -> None:
    heavy = ["ray", "torch", "pydantic", "yaml", "httpx", "rich", "plotext", "fastapi", "sqlalchemy"]
    code = (
        f"import sys, atexit; atexit.register(lambda: print([m for m in {heavy} if m in sys.modules]))\n"
        f"from astraml_ray.cli.main import main; main({arguments})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_states_are_the_services() -> None:
    assert set(STATUSES) == {status.value for status in JobStatus}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    done = CliRunner().invoke(main, ["completion", shell])
    assert done.exit_code == 0
    assert "_ASTRAML_COMPLETE" in done.output


def test_completion_completes(service: LiveService, job_id: str) -> None:
    def completed(line: str) -> set[str]:
        shell = {"_ASTRAML_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        command = [str(Path(sys.executable).parent / "astraml")]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **shell}, check=True)
        return {found.split(",", 1)[1] for found in done.stdout.split()}

    assert completed("astraml s") == {name for name in VERBS if name.startswith("s")}
    assert completed("astraml show job-") == {job_id}
    assert completed("astraml show l") == {"latest"}
    assert completed("astraml list --status ca") == {"cancelled"}


@pytest.mark.parametrize("verb", [*OF_A_JOB, "list", "submit"])
def test_no_service(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTRAML_ADDRESS", "http://127.0.0.1:9")
    monkeypatch.setattr("astraml_ray.client.transport._FIRST_CONTACT_S", 0.1)
    given = {"list": [], "submit": ["--model", "m", "--dataset", "s3://b/d"]}.get(verb, ["job-1"])
    done = CliRunner().invoke(main, [verb, *given])
    assert done.exit_code == 30, done.output
    assert "astraml up" in done.stderr
    assert "ASTRAML_ADDRESS" in done.stderr
    assert done.stdout == ""


def test_a_bad_address_is_the_callers_fault() -> None:
    done = CliRunner().invoke(main, ["list", "--address", "ftp://x"])
    assert done.exit_code == 10
    assert "http://127.0.0.1:8700" in done.stderr


def test_ctrl_c_leaves_the_job_running(service: LiveService, job_id: str) -> None:
    waiting = subprocess.Popen(
        [sys.executable, "-m", "astraml_ray", "wait", job_id], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert waiting.stderr
    assert "queued" in waiting.stderr.readline()
    waiting.send_signal(signal.SIGINT)
    _, said = waiting.communicate(timeout=30)
    assert waiting.returncode == 130
    assert f"astraml logs {job_id} -f" in said
    assert f"astraml cancel {job_id}" in said
    assert "Traceback" not in said
    assert service.status_of(job_id) == "queued"


def test_a_reader_that_leaves_early(service: LiveService, astraml: Astraml, job_id: str) -> None:
    service.log(job_id, *(f"line {number}" for number in range(20_000)))
    command = f"{sys.executable} -m astraml_ray logs {job_id} | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "rank 0 | line 0\n"
    assert "Traceback" not in done.stderr
