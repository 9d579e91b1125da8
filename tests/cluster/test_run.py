"""`astraml run` for real: S3, Ray Data, TorchTrainer, two workers; then faults, one after the other."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from astraml_ray.cli.s3_server import S3Server
from astraml_ray.spec.loading import parse_document, parse_spec
from tests.cluster.conftest import SPEC, Command, result_of
from tests.conftest import word_rows, write_dataset

pytestmark = pytest.mark.ray


def weights(result: dict[str, Any]) -> str:
    return hashlib.sha256((Path(result["model_path"]) / "model.safetensors").read_bytes()).hexdigest()


def records(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(result["run_path"]) / "metrics.jsonl").read_text().splitlines()]


def train_losses(result: dict[str, Any]) -> list[tuple[int, float]]:
    return [(r["step"], r["train/loss"]) for r in records(result) if "train/loss" in r]


def test_the_result_object_and_the_folder(finished: dict[str, Any]) -> None:
    assert (finished["status"], finished["reason"]) in [("succeeded", "completed"), ("succeeded", "early_stopping")]
    assert finished["train_rows"] == 405
    assert finished["effective_batch_size"] == 16
    assert finished["epochs_completed"] == 3
    assert finished["steps"] == 78
    assert finished["workers"] == 2
    assert {"train/loss", "validation/loss", "validation/accuracy", "test/loss", "test/accuracy"} <= set(
        finished["metrics"]
    )
    assert finished["metrics"]["test/accuracy"] > 0.8
    folder = Path(finished["run_path"])
    assert {"model", "checkpoints", "tensorboard"} <= {p.name for p in folder.iterdir() if p.is_dir()}
    spec = parse_spec(parse_document((folder / "spec.yaml").read_text(), source="spec.yaml"))
    assert (spec.task, spec.resources.workers, spec.resources.gpus) == ("text-classification", 2, 0)
    receipt = json.loads((folder / "receipt.json").read_text())
    assert receipt["weights_sha256"] == weights(finished)
    assert {"spec_sha256", "manifest_sha256", "seed", "versions"} <= set(receipt)
    assert [step for step, _ in train_losses(finished)] == list(range(1, 79))
    assert train_losses(finished)[-1][1] < train_losses(finished)[0][1]
    assert re.search(r"step \d+/78 .*validation/loss", finished["stderr"])


def test_the_model_loads_with_transformers_and_knows_its_labels(finished: dict[str, Any]) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(finished["model_path"])
    tokenizer = AutoTokenizer.from_pretrained(finished["model_path"])
    rows = word_rows(50, seed=9).to_pylist()
    answers = model(**tokenizer([row["text"] for row in rows], return_tensors="pt", padding=True)).logits.argmax(-1)
    right = [model.config.id2label[int(a)] == row["label"] for a, row in zip(answers, rows, strict=True)]
    assert sum(right) > 40


def test_verify_repeats_a_stretch_bit_for_bit_and_notices_a_difference(
    finished: dict[str, Any], storage: Path, tmp_path: Path
) -> None:
    code, out, err = Command.run("verify", finished["run_id"], "--storage", str(storage), "--output", "json")
    assert code == 0, err
    report = result_of(out)
    assert report["identical"]
    assert report["to_step"] - report["from_step"] <= 10

    # The same run, whose last checkpoint says that it has other weights.
    other = tmp_path / "other"
    shutil.copytree(finished["run_path"], other)
    file = other / "checkpoints" / f"step-{report['to_step']:09d}" / "manifest.json"
    file.write_text(file.read_text().replace(report["expected_sha256"], "0" * 64))
    code, out, err = Command.run("verify", str(other), "--output", "json")
    assert code == 22
    assert "other weights" in err


def test_resuming_a_finished_run_gives_its_result(finished: dict[str, Any], storage: Path) -> None:
    code, out, _ = Command.run("run", "--resume", finished["run_id"], "--storage", str(storage), "--output", "json")
    assert code == 0
    assert result_of(out)["metrics"] == finished["metrics"]


def _fork_server_of(driver: int) -> int:
    (found,) = (p for p in psutil.Process(driver).children() if "astraml_ray.forkserver.server" in p.cmdline())
    return found.pid


def _workers_of(driver: int) -> list[int]:
    """Ray Train workers among the processes that this driver started."""
    listing = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    parents, train = {}, []
    for line in listing.splitlines()[1:]:
        pid, parent, arguments = line.split(None, 2)
        parents[int(pid)] = int(parent)
        if arguments.startswith("ray::RayTrainWorker") or "ray::_RayTrainWorker" in arguments:
            train.append(int(pid))

    def descends(pid: int) -> bool:
        while pid > 1:
            if pid == driver:
                return True
            pid = parents.get(pid, 0)
        return False

    return [pid for pid in train if descends(pid)]


def test_a_killed_worker_costs_little_and_changes_nothing(
    finished: dict[str, Any], spec_file: Path, storage: Path
) -> None:
    """Nor does the end of the fork server: the processes of the second attempt are plain ones."""
    command = Command.start(
        "run", "-f", str(spec_file), "--workers", "2", "--name", "killed", "--storage", str(storage), "--output", "json"
    )
    command.read_until("step 20/78")
    victims = _workers_of(command.process.pid)
    assert victims
    os.kill(_fork_server_of(command.process.pid), signal.SIGKILL)
    os.kill(victims[-1], signal.SIGKILL)
    code, out, err = command.finish()
    assert code == 0, err
    result = result_of(out)
    assert result["attempts"] == 2
    assert "going on from step" in err
    at = int(re.search(r"going on from step (\d+)", err)[1])  # type: ignore[index]
    assert at >= 20
    assert weights(result) == weights(finished)
    assert train_losses(result) == train_losses(finished)


def test_a_killed_driver_goes_on_with_resume(finished: dict[str, Any], spec_file: Path, storage: Path) -> None:
    command = Command.start(
        "run", "-f", str(spec_file), "--workers", "2", "--name", "driver", "--storage", str(storage)
    )
    folder = command.read_until("run ").split()[-1]
    command.read_until("step 30/78")
    command.process.kill()
    command.finish()
    code, out, err = Command.run("run", "--resume", folder, "--output", "json")
    assert code == 0, err
    assert weights(result_of(out)) == weights(finished)
    assert train_losses(result_of(out)) == train_losses(finished)


def test_a_stop_saves_and_leaves_and_resumes_to_the_same_weights(
    finished: dict[str, Any], spec_file: Path, storage: Path
) -> None:
    command = Command.start(
        "run",
        "-f",
        str(spec_file),
        "--workers",
        "2",
        "--name",
        "stopped",
        "--storage",
        str(storage),
        "--output",
        "json",
    )
    folder = command.read_until("run ").split()[-1]
    command.read_until("step 10/78")
    command.process.send_signal(signal.SIGTERM)
    code, out, err = command.finish()
    assert code == 40
    answer = result_of(out)
    assert (answer["status"], answer["reason"]) == ("cancelled", "stopped")
    saved = int(re.search(r"saved at step (\d+)", err)[1])  # type: ignore[index]
    assert (Path(folder) / "checkpoints" / f"step-{saved:09d}" / "manifest.json").exists()
    code, out, err = Command.run("run", "--resume", folder, "--output", "json")
    assert code == 0, err
    assert weights(result_of(out)) == weights(finished)


def test_a_second_signal_leaves_at_once(spec_file: Path, storage: Path) -> None:
    command = Command.start("run", "-f", str(spec_file), "--storage", str(storage))
    command.read_until("run ")
    command.process.send_signal(signal.SIGINT)
    command.process.send_signal(signal.SIGTERM)
    command.process.send_signal(signal.SIGINT)
    assert command.finish()[0] == 40


def test_a_run_folder_in_a_bucket(spec_file: Path, s3: S3Server) -> None:
    """One worker; the model, the metrics and the events are objects."""
    code, out, err = Command.run(
        "run",
        "-f",
        str(spec_file),
        "--storage",
        "s3://bucket/runs",
        "--output",
        "json",
        "--set",
        "hyperparams.dropout=0.0",
        "--set",
        "hyperparams.max_steps=12",
    )
    assert code == 0, err
    result = result_of(out)
    assert result["run_path"].startswith("s3://bucket/runs/")
    folder = s3.folder / "bucket" / "runs" / result["run_id"]
    assert (folder / "model" / "model.safetensors").exists()
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 12 + 2 + 1
    assert list((folder / "tensorboard").iterdir())


def test_a_dataset_changed_under_the_run_is_said(s3: S3Server, tmp_path: Path) -> None:
    data = write_dataset(s3.folder / "bucket" / "moving", rows=405, group=60)
    spec = yaml.safe_load(SPEC) | {"dataset": "s3://bucket/moving"}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    command = Command.start(
        "run", "-f", str(tmp_path / "spec.yaml"), "--set", "hyperparams.lr=1e-3", "--storage", str(tmp_path)
    )
    command.read_until("run ")
    time.sleep(0.1)
    write_dataset(data, rows=404)
    code, _, err = command.finish()
    assert code == 20
    assert "changed under the run" in err
    assert "train.parquet" in err
    assert "Traceback" not in err


def test_a_loss_that_is_not_finite_is_exit_22(spec_file: Path, tmp_path: Path) -> None:
    code, out, err = Command.run(
        "run",
        "-f",
        str(spec_file),
        "--lr",
        "100",
        "--set",
        "hyperparams.max_grad_norm=null",
        "--set",
        "hyperparams.weight_decay=10.0",
        "--set",
        "hyperparams.epochs=60",
        "--storage",
        str(tmp_path),
        "--output",
        "json",
    )
    assert code == 22, err
    assert result_of(out)["reason"] == "numeric"
    assert "lower lr" in err


def test_a_gpu_that_is_not_there_is_said_before_anything_starts(spec_file: Path, tmp_path: Path) -> None:
    code, _, err = Command.run("run", "-f", str(spec_file), "--gpus", "1", "--storage", str(tmp_path))
    assert code == 30
    assert "the cluster has 0" in err
    assert "resources.gpus=0" in err


def test_language_models_train_too(s3: S3Server, tmp_path: Path) -> None:
    folder = s3.folder / "bucket" / "corpus"
    folder.mkdir()
    (folder / "train.txt").write_text("\n".join(word_rows(300)["text"].to_pylist()))
    code, out, err = Command.run(
        "run",
        "--dataset",
        "s3://bucket/corpus",
        "--model",
        "tiny-gpt",
        "--gpus",
        "0",
        "--epochs",
        "1",
        "--lr",
        "1e-3",
        "--batch-size",
        "16",
        "--storage",
        str(tmp_path),
        "--output",
        "json",
    )
    assert code == 0, err
    result = result_of(out)
    assert result["task"] == "causal-lm"
    assert result["metrics"]["validation/perplexity"] < 4000
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(result["model_path"])
