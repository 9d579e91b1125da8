"""What the client decides without a service: addresses, exit codes, backoff, advice, paths, words."""

from __future__ import annotations

import pickle
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from astraml_ray.cli.advice import explain_job, set_arguments
from astraml_ray.cli.quantities import age, eta, number, printable, seconds_between, size, span
from astraml_ray.client import ApiError, outcome_exit_code
from astraml_ray.client.downloads import select_files
from astraml_ray.client.endpoint import DEFAULT_ADDRESS, find_endpoint
from astraml_ray.client.outage import backoff_s
from astraml_ray.errors import RequestError, StorageError
from astraml_ray.settings import Settings, load_settings


def settings(home: Path, **environment: str) -> Settings:
    return load_settings({"ASTRAML_HOME": str(home), **environment})


class TestEndpoint:
    def test_order_of_addresses(self, tmp_path: Path) -> None:
        assert find_endpoint(settings(tmp_path)).address == DEFAULT_ADDRESS
        (tmp_path / "service.json").write_text('{"address": "http://127.0.0.1:9001"}')
        assert find_endpoint(settings(tmp_path)).address == "http://127.0.0.1:9001"
        told = settings(tmp_path, ASTRAML_ADDRESS="https://ml.example.org/")
        assert find_endpoint(told).address == "https://ml.example.org"
        assert find_endpoint(told, address="other:80").address == "http://other:80"

    def test_order_of_tokens(self, tmp_path: Path) -> None:
        assert find_endpoint(settings(tmp_path)).token is None
        (tmp_path / "token").write_text("of-home\n")
        assert find_endpoint(settings(tmp_path)).token == "of-home"
        (tmp_path / "other").write_text("of-service")
        (tmp_path / "service.json").write_text(f'{{"address": "http://h:1", "token": "{tmp_path / "other"}"}}')
        assert find_endpoint(settings(tmp_path)).token == "of-service"
        told = settings(tmp_path, ASTRAML_TOKEN="of-environment")
        assert find_endpoint(told).token == "of-environment"
        found = find_endpoint(told, token="given")
        assert found.token == "given"
        assert "given" not in repr(found)

    def test_the_token_of_this_machines_service_stays_with_it(self, tmp_path: Path) -> None:
        (tmp_path / "other").write_text("of-service")
        (tmp_path / "service.json").write_text(f'{{"address": "http://h:1", "token": "{tmp_path / "other"}"}}')
        assert find_endpoint(settings(tmp_path), address="http://elsewhere:1").token is None

    @pytest.mark.parametrize("address", ["ftp://x", "http://", "http://h:port", "http://h:99999", "://x"])
    def test_no_address(self, address: str, tmp_path: Path) -> None:
        with pytest.raises(RequestError, match="no address"):
            find_endpoint(settings(tmp_path), address=address)

    @pytest.mark.parametrize("text", ["{", "[]", "1"])
    def test_broken_service_file(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "service.json").write_text(text)
        with pytest.raises(RequestError, match=r"service\.json"):
            find_endpoint(settings(tmp_path))

    @pytest.mark.parametrize(
        ("address", "local"),
        [("http://127.0.0.1:1", True), ("http://[::1]:1", True), ("localhost:1", True), ("http://10.0.0.1:1", False)],
    )
    def test_loopback(self, address: str, local: bool, tmp_path: Path) -> None:
        assert find_endpoint(settings(tmp_path), address=address).is_local is local


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        ("succeeded", None, 0),
        ("cancelled", None, 40),
        ("failed", {"code": "data", "class": "data"}, 20),
        ("failed", {"code": "out_of_memory", "class": "memory"}, 21),
        ("failed", {"code": "numeric", "class": "numeric"}, 22),
        ("failed", {"code": "repeated_failure", "class": "infrastructure"}, 30),
        ("failed", {"code": "resources", "class": "infrastructure"}, 30),
        ("failed", {"code": "storage", "class": "storage"}, 30),
        ("failed", {"code": "model", "class": "request"}, 10),
        ("failed", {"code": "queue_timeout", "class": "limit"}, 1),
        ("failed", {"code": "internal", "class": "internal"}, 1),
        ("failed", {"code": "of_the_future", "class": "numeric"}, 22),
        ("failed", None, 1),
    ],
)
def test_exit_code_of_an_outcome(status: str, error: Any, code: int) -> None:
    assert outcome_exit_code({"status": status, "reason": None, "error": error}) == code


@pytest.mark.parametrize(
    ("status", "problem", "code"),
    [
        (404, {"code": "job_not_found", "class": "request"}, 10),
        (422, {"code": "data", "class": "data"}, 20),
        (503, {"code": "overloaded", "class": "service"}, 30),
        (500, {"code": "internal", "class": "internal"}, 30),
        (502, {}, 30),
        (418, {}, 10),
    ],
)
def test_exit_code_of_an_answer(status: int, problem: dict[str, Any], code: int) -> None:
    error = ApiError(status, problem)
    assert error.exit_code == code
    again = pickle.loads(pickle.dumps(error))
    assert (again.exit_code, again.code, again.status, str(again)) == (code, error.code, status, str(error))


def test_an_answers_problems_are_all_told() -> None:
    problems = [{"param": "/lr", "message": "too high", "hint": "lower it"}, {"param": "", "message": "odd"}]
    error = ApiError(422, {"code": "invalid_spec", "detail": "2 problems", "problems": problems})
    assert str(error) == "spec: 2 problems\n  /lr: too high (lower it)\n  /: odd"
    assert error.as_dict()["problems"] == problems


def test_backoff_grows_to_a_bound_and_spreads() -> None:
    assert [backoff_s(tries, 1.0) for tries in range(4)] == [0.2, 0.4, 0.8, 1.6]
    assert backoff_s(10_000, 1.0) == 5.0
    assert backoff_s(0, 0.0) == 0.1


class TestFiles:
    LISTING: tuple[dict[str, Any], ...] = (
        {"path": "model/config.json", "size": 2},
        {"path": "model/deep/weights", "size": 3},
        {"path": "model.txt", "size": 4},
        {"path": "result.json", "size": 5},
    )

    @pytest.mark.parametrize(
        ("path", "places"),
        [
            ("model", ["config.json", "deep/weights"]),
            ("model/", ["config.json", "deep/weights"]),
            ("model/deep", ["weights"]),
            ("model/config.json", ["config.json"]),
            ("/", ["model/config.json", "model/deep/weights", "model.txt", "result.json"]),
        ],
    )
    def test_a_file_or_what_is_below_a_folder(self, path: str, places: list[str]) -> None:
        assert [file.place for file in select_files(self.LISTING, path)] == places

    def test_unknown(self) -> None:
        with pytest.raises(StorageError, match=r"there is model, model\.txt, result\.json"):
            select_files(self.LISTING, "mod")
        with pytest.raises(StorageError, match="left nothing"):
            select_files([], "model")

    @pytest.mark.parametrize("path", ["../x", "model/../../x", "/etc/x", "model//x", "model/..\\x", "model/./x"])
    def test_nothing_leaves_the_target(self, path: str) -> None:
        with pytest.raises(StorageError, match="outside"):
            select_files([{"path": path, "size": 1}], "" if not path.startswith("model") else "model")


class TestAdvice:
    def job(self, **more: Any) -> dict[str, Any]:
        base = {"id": "job-1", "status": "queued", "reason": None, "message": None, "error": None, "run_path": None}
        return base | {"wait": None, "progress": None, "cancel_requested": None, "result": None, "spec": {}} | more

    def test_queued_says_what_would_start_it(self) -> None:
        wait = {"message": "needs 1 GPU; the cluster has 0", "would_start_with": {"resources.gpus": 0}}
        told = explain_job(self.job(wait=wait))
        assert told["summary"] == "needs 1 GPU; the cluster has 0"
        assert told["hint"] == "it would start now with resources.gpus=0"
        assert told["commands"] == ["astraml clone job-1 --set resources.gpus=0 && astraml cancel job-1"]

    def test_failed_says_where_and_suggests(self) -> None:
        error = {"code": "numeric", "message": "loss is NaN", "param": "step 7", "hint": "lower lr", "rank": 3}
        told = explain_job(self.job(status="failed", error=error, spec={"hyperparams": {"lr": 1e-4}}))
        assert told["summary"] == "numeric: loss is NaN"
        assert told["where"] == ["step 7", "first on rank 3"]
        assert told["commands"][0] == "astraml clone job-1 --set hyperparams.lr=1e-05"
        assert "--rank 3" in told["commands"][-1]

    def test_a_job_without_a_model_offers_none(self) -> None:
        assert explain_job(self.job(status="succeeded", reason="completed"))["commands"] == ["astraml download job-1"]
        assert explain_job(self.job(status="succeeded", reason="dataset_unchanged"))["commands"] == []

    def test_memory_keeps_the_effective_batch(self) -> None:
        error = {"code": "out_of_memory", "message": "m", "param": None, "hint": None}
        hyper = {"batch_size": 32, "gradient_accumulation_steps": 2}
        told = explain_job(self.job(status="failed", error=error, spec={"hyperparams": hyper}))
        change = "--set hyperparams.batch_size=16 --set hyperparams.gradient_accumulation_steps=4"
        assert told["commands"][0] == f"astraml clone job-1 {change}"

    def test_the_services_suggestion_wins_and_what_may_pass_is_resumed(self) -> None:
        error = {"code": "numeric", "message": "m", "suggested_patch": {"hyperparams.max_grad_norm": 0.5}}
        told = explain_job(self.job(status="failed", error=error, spec={"hyperparams": {"lr": 1e-4}}))
        assert told["commands"][0] == "astraml clone job-1 --set hyperparams.max_grad_norm=0.5"
        error = {"code": "infrastructure", "message": "m", "retryable": True}
        told = explain_job(self.job(status="failed", error=error, run_path="/runs/x"))
        assert told["commands"][0] == "astraml resume job-1"

    def test_patches_are_quoted_for_a_shell(self) -> None:
        assert set_arguments({"name": "a b"}) == "--set 'name=\"a b\"'"
        assert set_arguments([{"op": "replace", "path": "/resources/gpus", "value": 0}]) == "--set resources.gpus=0"
        assert set_arguments(None) == ""


def test_control_sequences_do_not_reach_the_terminal() -> None:
    told = "a\x1b[31mred\x1b[0m \x1b]0;title\x07b\x1b]8;;http://x\x1b\\c\r\x07\x9b\td\ne → ü"
    assert printable(told) == "ared bc\td\ne → ü"


def test_words() -> None:
    assert [span(s) for s in (0, 59.9, 61, 3600, 90061)] == ["0s", "59s", "1m01s", "1h00m", "1d01h"]
    assert eta([180, 540]) == "3m00s to 9m00s left"
    assert eta([60, 60]) == "1m00s left"
    assert eta(None) == eta([None, 3]) == ""
    now = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
    assert age("2026-01-01T11:58:20.500Z", now) == "1m39s"
    assert seconds_between("2026-01-01T00:00:00.000Z", "2026-01-01T00:01:00.000Z") == 60
    assert [size(n) for n in (0, 999, 1000, 123_456, 1_234_567, 5e12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "123 kB",
        "1.2 MB",
        "5.0 TB",
    ]
    assert [number(x) for x in (None, 3, 0.12345, 3e-5, "x")] == ["nan", "3", "0.1235", "3e-05", "x"]
