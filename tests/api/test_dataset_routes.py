"""Looking at a dataset over HTTP: what it holds, whose rules hold, and what it is refused for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from astraml_ray.control.dry_run import inspect
from astraml_ray.errors import DataError
from tests.api.conftest import Api


@pytest.fixture
def real(api: Api) -> Api:
    """An app that reads datasets in this process, as its worker would."""
    api.validator.inspection = lambda spec, limit: inspect(spec, limit=limit)
    return api


def ask(api: Api, **query: Any) -> tuple[int, dict[str, Any]]:
    answer = api.client.get("/v2.1/datasets:inspect", params={"project_id": "p-demo", **query})
    return answer.status_code, answer.json()


def test_what_a_dataset_holds(real: Api, dataset: Path) -> None:
    status, found = ask(real, path=str(dataset), limit=55)
    assert status == 200
    assert found["splits"]["train"]["rows_read"] == found["limit"] == 55
    assert found["findings"][0]["code"] == "limited"
    assert ask(real, path=str(dataset))[1]["splits"]["train"]["rows"] == 200


def test_errors(real: Api, tmp_path: Path) -> None:
    status, problem = ask(real, path=str(tmp_path / "nothing"))
    assert (status, problem["code"]) == (422, DataError.code)
    for query, code in (
        ({}, "invalid_parameter"),
        ({"path": "s3://b/k", "limit": 0}, "invalid_parameter"),
        ({"path": "s3://b/k", "colour": "red"}, "invalid_parameter"),
        ({"path": "s3://b/k", "project_id": "-"}, "invalid_parameter"),
        ({"path": "http://169.254.169.254/latest"}, "target_not_allowed"),
        ({"path": "simplecache::http://127.0.0.1:8700/x"}, "target_not_allowed"),
    ):
        status, problem = ask(real, **query)
        assert (status < 500, problem["code"]) == (True, code), query


def test_policies_of_datasets_hold_and_those_of_models_do_not(api: Api) -> None:
    rules = {
        "dataset.endpoint_url": {"force": "https://1.1.1.1"},
        "dataset.path": {"allow": ["s3://ours/*"]},
        "model.name": {"allow": ["bert-*"]},
        "resources.gpus": {"require": True},
    }
    api.client.post("/v2.1/projects", json={"id": "p-demo"})
    made = api.client.put("/v2.1/projects/p-demo/policy", json={"document": {"rules": rules}})
    assert made.is_success, made.text
    assert ask(api, path="s3://ours/dataset")[0] == 200
    assert api.validator.seen[-1]["dataset"]["endpoint_url"] == "https://1.1.1.1"
    status, problem = ask(api, path="s3://theirs/dataset")
    assert (status, problem["code"]) == (422, "policy_violation")
    assert [one["param"] for one in problem["problems"]] == ["/dataset/path"]
    assert len(api.validator.seen) == 1


def test_places_are_shared_with_dry_runs(real: Api, dataset: Path) -> None:
    places = real.services.limits.max_validations
    taken = [real.services.validations.acquire(blocking=False) for _ in range(places)]
    assert all(taken)
    assert ask(real, path=str(dataset))[1]["code"] == "overloaded"
    real.services.validations.release(places)
    assert ask(real, path=str(dataset))[0] == 200
