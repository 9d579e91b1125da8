"""A sweep's values are held to what a job is held to: policies, addresses, files."""

from __future__ import annotations

from typing import Any

import pytest

from astraml_ray.access.denials import PolicyViolationError, TargetNotAllowedError
from astraml_ray.access.permissions import Role
from astraml_ray.access.resolution import resolve_document
from astraml_ray.access.targets import AllowedTargets
from astraml_ray.errors import SpecError
from astraml_ray.spec.loading import parse_spec
from astraml_ray.store.policies import PolicyRecord
from tests.access.conftest import ROOT, principal

SUBMITTER = principal(Role.SUBMITTER)


def made(parameters: dict[str, Any], rules: dict[str, Any] | None = None, by: Any = SUBMITTER) -> Any:
    record = None if rules is None else PolicyRecord("p1", 3, {"rules": rules}, None, None, 0.0, "ana")
    document = {
        "project_id": "p1",
        "dataset": "s3://bucket/data",
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


def test_a_sweep_of_too_many_values_is_refused_before_they_are_checked() -> None:
    lists = {f"hyperparams.{name}": {"choice": [k / 1000 for k in range(1, 200)]} for name in ("lr", "dropout")}
    lists["hyperparams.weight_decay"] = {"choice": [1, 2, 3]}
    document = {"dataset": "d", "model": "m", "sweep": {"parameters": lists, "trials": 2}}
    with pytest.raises(SpecError, match="over 400"):
        parse_spec(document)
