"""A sweep's values are held to what a job is held to: policies, addresses, files."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from astraml_ray.access.denials import PolicyViolationError, TargetNotAllowedError
from astraml_ray.access.permissions import Role
from astraml_ray.access.resolution import resolve_document
from astraml_ray.access.sweeps import sweep_problems
from astraml_ray.access.targets import AllowedTargets
from astraml_ray.errors import Problem, SpecError
from astraml_ray.spec.loading import parse_spec
from astraml_ray.store.policies import PolicyRecord
from tests.access.conftest import ROOT, principal

SUBMITTER = principal(Role.SUBMITTER)


def made(
    parameters: dict[str, Any],
    rules: dict[str, Any] | None = None,
    by: Any = SUBMITTER,
    dataset: Any = "s3://bucket/data",
) -> Any:
    record = None if rules is None else PolicyRecord("p1", 3, {"rules": rules}, None, None, 0.0, "ana")
    document = {
        "project_id": "p1",
        "dataset": dataset,
        "model": "tiny-bert",
        "sweep": {"parameters": parameters, "trials": 4},
    }
    return resolve_document(document, (None, record), principal=by, targets=AllowedTargets())


def refused(kind: type[Exception], *arguments: Any, **more: Any) -> list[tuple[str, str]]:
    with pytest.raises(kind) as caught:
        made(*arguments, **more)
    return [(problem.param, problem.message) for problem in caught.value.problems]  # type: ignore[attr-defined]


def test_values_within_the_policy_are_free() -> None:
    rules = {"hyperparams.lr": {"max": 1e-2}, "model.name": {"allow": ["tiny-bert", "minilm"]}}
    parameters = {"hyperparams.lr": {"log_uniform": [1e-5, 1e-2]}, "model.name": {"choice": ["minilm", "tiny-bert"]}}
    assert made(parameters, rules).spec.sweep is not None


@pytest.mark.parametrize(
    ("rule", "parameters"),
    [
        ({"hyperparams.lr": {"max": 1e-3}}, {"hyperparams.lr": {"log_uniform": [1e-5, 1e-2]}}),
        ({"hyperparams.batch_size": {"min": 16}}, {"hyperparams.batch_size": {"int_uniform": [8, 64]}}),
        ({"model.name": {"allow": ["tiny-bert"]}}, {"model.name": {"choice": ["tiny-bert", "bert-base"]}}),
        ({"hyperparams.precision": {"force": "fp32"}}, {"hyperparams.precision": {"choice": ["fp32", "bf16"]}}),
        ({"hyperparams.lr": {"max": 1e-3, "on_violation": "clamp"}}, {"hyperparams.lr": {"uniform": [1e-4, 1.0]}}),
        ({"augmentation": {"force": []}}, {"augmentation": {"choice": ["none", "light"]}}),
        ({"augmentation": {"force": "none"}}, {"augmentation": {"choice": [[{"type": "random_swap"}]]}}),
        ({"sampling": {"force": "natural"}}, {"sampling": {"choice": [{"weights": {"a": 2}}]}}),
    ],
)
def test_a_policy_is_not_got_round_by_a_sweep(rule: dict[str, Any], parameters: dict[str, Any]) -> None:
    found = refused(PolicyViolationError, parameters, rule)
    (path,) = parameters
    assert {param for param, _ in found} == {f"/sweep/parameters/{path}"}


@pytest.mark.parametrize(
    ("rule", "parameters"),
    [
        ({"hyperparams.lr": {"force": 1e-3}}, {"hyperparams": {"choice": [{"lr": 0.1}, {"lr": 0.2}]}}),
        (
            {"hyperparams.lr": {"max": 1e-3, "on_violation": "clamp"}},
            {"hyperparams": {"choice": [{"lr": 0.1}, {"lr": 0.2}]}},
        ),
        ({"model.name": {"force": "tiny-bert"}}, {"model": {"choice": ["bert-base", {"name": "minilm"}]}}),
        (
            {"hyperparams.early_stopping.patience": {"force": 3}},
            {"hyperparams.early_stopping": {"choice": [{"patience": 50}, {"patience": 60}]}},
        ),
        ({"dataset.path": {"force": "s3://bucket/data"}}, {"dataset": {"choice": ["s3://other/a", "s3://other/b"]}}),
    ],
)
def test_a_policy_is_not_got_round_by_a_group_of_fields(rule: dict[str, Any], parameters: dict[str, Any]) -> None:
    for rules in (rule, None):
        ((param, message),) = refused(SpecError, parameters, rules)
        assert param == f"/sweep/parameters/{next(iter(parameters))}"
        assert "is a group of fields" in message


def test_lists_and_names_that_no_policy_sets_are_free() -> None:
    parameters = {
        "augmentation": {"choice": ["light", [{"type": "random_swap"}]]},
        "sampling": {"choice": ["natural", {"weights": {"a": 2}}]},
    }
    assert made(parameters, {"hyperparams.lr": {"max": 1e-2}}).spec.sweep is not None


def test_addresses_and_files_are_not_reached_by_a_sweep() -> None:
    inside = {"dataset.endpoint_url": {"choice": [None, "127.0.0.1:9000"]}}
    ((param, message),) = refused(TargetNotAllowedError, inside)
    assert param == "/sweep/parameters/dataset.endpoint_url"
    assert "127.0.0.1" in message
    local = {"model.name": {"choice": ["tiny-bert", "/etc"]}}
    ((param, message),) = refused(TargetNotAllowedError, local)
    assert (param, message.startswith('"/etc"')) == ("/sweep/parameters/model.name", True)
    assert made(local, by=ROOT).spec.sweep is not None


@pytest.mark.parametrize("path", ["dataset.path", "dataset.train"])
def test_a_datasets_credentials_are_taken_nowhere_by_a_sweep(path: str) -> None:
    """They would be sent to wherever the rows are; nor can other ones be named, or the whole dataset swapped."""
    rows = {path: "s3://bucket/data"} | ({} if path == "dataset.path" else {"dataset.validation": "s3://bucket/v"})
    dataset = {name.partition(".")[2]: uri for name, uri in rows.items()} | {"credentials": {"secret": "bucket"}}
    for address in ("https://169.254.169.254/latest", "http://[::1]:9000/d", "simplecache::http://2130706433/d"):
        ((param, message),) = refused(TargetNotAllowedError, {path: {"choice": [rows[path], address]}}, dataset=dataset)
        assert param == f"/sweep/parameters/{path}/choice/1"
        assert re.search("metadata service|is this machine", message)
    endpoint = {"dataset.endpoint_url": {"choice": [None, "10.0.0.1:9000"]}}
    ((param, _),) = refused(TargetNotAllowedError, endpoint, dataset=dataset)
    assert param == "/sweep/parameters/dataset.endpoint_url"
    for fixed in ("dataset.credentials", "dataset.credentials.secret"):
        ((_, message),) = refused(SpecError, {fixed: {"choice": [{"secret": "a"}, "b"]}}, dataset=dataset)
        assert message == "cannot vary over trials: secrets are named once, for all trials"
    whole = {"dataset": {"choice": [dataset, {**dataset, "path": "s3://other"}]}}
    ((_, message),) = refused(SpecError, whole, dataset=dataset)
    assert "is a group of fields" in message
    assert made({path: {"choice": [rows[path], "s3://bucket/other"]}}, dataset=dataset).spec.sweep is not None


def test_what_is_refused_only_together_is_refused() -> None:
    sweep = made({"hyperparams.lr": {"choice": [0.1, 0.2]}, "hyperparams.epochs": {"choice": [1, 2, 3]}}).spec.sweep

    def outcome(values: dict[str, Any], problems: list[Problem]) -> Any:
        document: dict[str, Any] = {"hyperparams": {p.partition(".")[2]: value for p, value in values.items()}}
        return SimpleNamespace(document=document, problems=problems, provenance={})

    def is_it(values: Any) -> bool:
        return values == {"hyperparams.lr": 0.2, "hyperparams.epochs": 2}

    problem = Problem("/hyperparams/lr", "is too much for so long")
    told = "together, hyperparams.lr=0.2, hyperparams.epochs=2: /hyperparams/lr is too much for so long"
    expected = [Problem("/sweep/parameters", told)]
    found = sweep_problems(sweep, lambda values: (outcome(values, [problem] if is_it(values) else []), []))
    assert found == (expected, [])
    found = sweep_problems(sweep, lambda values: (outcome(values, []), [problem] if is_it(values) else []))
    assert found == ([], expected)
    moved = {"hyperparams.lr": 0.1, "hyperparams.epochs": 2}
    breaches, _ = sweep_problems(sweep, lambda values: (outcome(moved if is_it(values) else values, []), []))
    assert [problem.message.rsplit(": ", 1)[1] for problem in breaches] == ["a policy would make hyperparams.lr 0.1"]


def test_each_name_is_looked_up_once_and_slow_ones_do_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("astraml_ray.access.resolution.resolve_name", lambda host: asked.append(host) or ["8.8.8.8"])
    paths = {"dataset.path": {"choice": [f"https://data.example/{number}" for number in range(9)]}}
    assert made({**paths, "seed": {"choice": [1, 2, 3]}}).spec.sweep is not None
    assert asked == ["data.example"]
    monkeypatch.setattr("astraml_ray.access.targets._ALL_LOOKUPS_S", 0.0)
    message = "is not known to the resolver"
    assert message in refused(TargetNotAllowedError, paths)[0][1]


def test_a_sweep_of_too_many_values_is_refused_before_they_are_checked() -> None:
    lists = {f"hyperparams.{name}": {"choice": [k / 1000 for k in range(1, 200)]} for name in ("lr", "dropout")}
    lists["hyperparams.weight_decay"] = {"choice": [1, 2, 3]}
    document = {"dataset": "d", "model": "m", "sweep": {"parameters": lists, "trials": 2}}
    with pytest.raises(SpecError, match="over 400"):
        parse_spec(document)
