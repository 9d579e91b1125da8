"""The command line without Ray: exit codes, messages, and what it prints for machines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from tests.conftest import write_dataset


def astraml(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    import os

    command = [sys.executable, "-m", "astraml_ray", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, **(env or {})}, check=False
    )


def last_object(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_invalid_spec_is_exit_10_with_every_problem() -> None:
    done = astraml("run", "--model", "tiny-bert", "--lr", "-1", "--set", "hyperparams.epoch=3", "--output", "json")
    assert done.returncode == 10
    answer = last_object(done)
    assert (answer["status"], answer["reason"]) == ("failed", "invalid_spec")
    assert {p["param"] for p in answer["error"]["problems"]} == {"/dataset", "/hyperparams/lr", "/hyperparams/epoch"}  # type: ignore[index]
    assert "did you mean hyperparams.epochs" in done.stderr


def test_missing_file_and_resume_with_flags() -> None:
    assert astraml("run", "-f", "no-such.yaml").returncode == 10
    done = astraml("run", "--resume", "x", "--lr", "1")
    assert done.returncode == 10
    assert "--resume takes no spec" in done.stderr


def test_missing_dataset_is_exit_20(tmp_path: Path) -> None:
    done = astraml("run", "--model", "tiny-bert", "--dataset", str(tmp_path / "nothing"))
    assert done.returncode == 20
    assert "nothing" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("offline", ["0", "1"])
def test_a_hub_that_does_not_answer_is_said_at_once(offline: str, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "d")
    env = {"HF_HUB_OFFLINE": offline, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf")}
    done = astraml("run", "--model", "bert-base", "--dataset", str(data), env=env)
    assert done.returncode == 10
    assert "/model/name" in done.stderr
    assert "s3:// prefix" in done.stderr


def test_a_model_without_safetensors_or_config_says_so(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    done = astraml("run", "--model", str(tmp_path / "model"), "--dataset", "x")
    assert done.returncode == 10
    assert "config.json" in done.stderr


def test_unknown_run_is_exit_30(tmp_path: Path) -> None:
    for verb in (["run", "--resume", "nobody"], ["verify", "nobody"]):
        done = astraml(*verb, "--storage", str(tmp_path))
        assert done.returncode == 30
        assert "no run of that name" in done.stderr


def test_schema_describes_the_reference_request() -> None:
    schema = json.loads(astraml("schema").stdout)
    jsonschema.validate({"dataset": "s3://b/d", "model": "bert-base", "resources": {"gpus": 1}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"dataset": "s3://b/d", "model": "bert-base", "gpus": 1}, schema)


def test_models_and_help_are_quick_to_import() -> None:
    assert "tiny-bert" in astraml("models").stdout
    heavy = "('ray', 'torch', 'transformers', 'pyarrow')"
    code = f"import sys, astraml_ray.cli.main; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
