"""Looking at a dataset over HTTP: what it holds, whose rules hold, and what it is refused for."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from astraml_ray.control.dry_run import inspect, preview
from astraml_ray.errors import DataError
from tests.api.conftest import Api
from tests.unit.images import write_images


@pytest.fixture
def real(api: Api) -> Api:
    """An app that reads datasets in this process, as its worker would."""
    api.validator.inspection = lambda spec, limit: inspect(spec, limit=limit)
    api.validator.previewed = preview
    return api


def ask(api: Api, verb: str = "inspect", **query: Any) -> tuple[int, dict[str, Any]]:
    answer = api.client.get(f"/v2.1/datasets:{verb}", params={"project_id": "p-demo", **query})
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


def test_a_preview_of_texts(real: Api, dataset: Path) -> None:
    status, found = ask(real, "preview", path=str(dataset), augmentation="strong", rows=5, seed=3)
    assert (status, found["kind"], found["seed"], found["left_out"]) == (200, "texts", 3, 0)
    assert len(found["rows"]) == 5
    assert any(row["before"] != row["after"] for row in found["rows"])
    assert ask(real, "preview", path=str(dataset), augmentation="strong", rows=5, seed=3)[1] == found


def test_a_preview_of_images(real: Api, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", rows=20)
    status, found = ask(real, "preview", path=str(folder), rows=3, draws=2, image_size=16)
    assert (status, found["kind"], found["size"]) == (200, "images", 16)
    for row in found["rows"]:
        assert [one["epoch"] for one in row["after"]] == [0, 1]
        for file in (row["before"], *row["after"]):
            assert file["media_type"] == "image/png"
            assert base64.b64decode(file["data"]).startswith(b"\x89PNG")


def test_a_preview_s_errors(real: Api, tmp_path: Path) -> None:
    for query, code in (
        ({"path": str(tmp_path / "nothing")}, DataError.code),
        ({"path": "s3://b/k", "rows": 65}, "invalid_parameter"),
        ({"path": "s3://b/k", "augmentation": "none"}, "invalid_parameter"),
        ({"path": "s3://b/k", "image_size": 4096}, "invalid_parameter"),
        ({"path": "http://169.254.169.254/latest"}, "target_not_allowed"),
    ):
        status, problem = ask(real, "preview", **query)
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
