"""Policies as they are written: they fit the fields of a job, and do not contradict themselves."""

from __future__ import annotations

from typing import Any

import pytest

from astraml_ray.access.denials import PolicyInvalidError
from astraml_ray.access.policies import diff, is_allowed, is_denied, parse_policy


def problems(**rules: Any) -> dict[str, str]:
    with pytest.raises(PolicyInvalidError) as caught:
        parse_policy({"rules": {path.replace("__", "."): rule for path, rule in rules.items()}})
    return {p.param: p.message for p in caught.value.problems}


def test_what_was_given_comes_back_and_no_more() -> None:
    document = {
        "rules": {
            "resources.gpus": {"default": 1, "max": 4, "on_violation": "clamp"},
            "hyperparams.early_stopping": {"force": None},
            "limits.max_duration": {"max": "12h", "reason": "nights are short"},
            "model.name": {"allow": ["bert-base", "our-org/*"], "deny": ["our-org/secret"]},
            "labels.team": {"require": True},
            "labels.app.io/tier": {"default": "low"},
            "dataset": {"default": "s3://bucket/dataset"},
            "augmentation": {"default": []},
        }
    }
    assert parse_policy(document).document() == document
    assert parse_policy({}).document() == {}


@pytest.mark.parametrize(
    ("path", "rule", "word"),
    [
        ("resources.gpu", {"max": 1}, "did you mean 'resources.gpus'"),
        ("resources.gpus", {"max": -1}, "from 0 to 4096"),
        ("resources.gpus", {"max": "4"}, "no value"),
        ("resources.gpus", {"max": "auto"}, "must be a number"),
        ("resources.gpus", {"min": 4, "max": 2}, "above `max`"),
        ("resources.gpus", {"default": 8, "max": 4}, "refused by the rule itself"),
        ("resources.gpus", {"force": 1, "deny": [1]}, "refused by the rule itself"),
        ("resources.gpus", {"force": 1, "allow": [2]}, "refused by the rule itself"),
        ("resources.gpus", {"default": 1, "force": 2}, "nothing beside"),
        ("resources.gpus", {"on_violation": "clamp", "allow": [1]}, "neither"),
        ("resources.gpus", {}, "says nothing"),
        ("resources.gpus", {"reason": "because"}, "says nothing"),
        ("resources.gpus", {"allow": [1, "many"]}, "no value"),
        ("hyperparams.lr_scheduler", {"max": "cosine"}, "no number"),
        ("hyperparams.lr_scheduler", {"force": "cosinus"}, "no value"),
        ("hyperparams.eval_every", {"min": "1 epochs"}, "no number and no duration"),
        ("hyperparams.batch_size", {"max": 10.5}, "no value"),
        ("limits.max_duration", {"max": 12}, "no value"),
        ("limits.max_duration", {"max": "12 hours"}, "no value"),
        ("hyperparams.early_stopping", {"allow": [None]}, "no single value"),
        ("augmentation", {"deny": ["random_swap"]}, "no single value"),
        ("labels", {"allow": ["x"]}, "no single value"),
        ("project_id", {"force": "other"}, "cannot speak of"),
        ("api_version", {"allow": ["v2.1"]}, "cannot speak of"),
    ],
)
def test_a_rule_that_cannot_be(path: str, rule: dict[str, Any], word: str) -> None:
    found = problems(**{path: rule})
    assert all(pointer.startswith("/rules/") for pointer in found)
    assert any(word in message for message in found.values())


@pytest.mark.parametrize(
    "document",
    [
        {"rules": {"resources.gpus": {"maximum": 4}}},
        {"rules": {"resources.gpus": 4}},
        {"rules": []},
        {"rule": {}},
        {"rules": {"resources.gpus": {"max": 1, "on_violation": "ignore"}}},
        {"rules": {"resources.gpus": {"max": float("nan")}}},
        {"rules": {"model.name": {"allow": []}}},
        {"rules": {"model.name": {"require": "yes"}}},
        {"rules": {f"labels.k{i}": {"require": True} for i in range(501)}},
    ],
)
def test_documents_that_are_no_policies(document: dict[str, Any]) -> None:
    with pytest.raises(PolicyInvalidError):
        parse_policy(document)


def test_all_problems_at_once() -> None:
    found = problems(resources__gpu={"max": 1}, hyperparams__lr={"max": -1}, seed={"max": 5})
    assert set(found) == {"/rules/resources.gpu", "/rules/hyperparams.lr/max"}


def test_choices() -> None:
    rule = parse_policy({"rules": {"model.name": {"allow": ["a", "b/*"], "deny": ["b/x*"]}}}).rules["model.name"]
    assert [is_allowed(rule, name) for name in ("a", "b/c", "c", "B/c", None)] == [True, True, False, False, False]
    assert [is_denied(rule, name) for name in ("b/x", "b/xy", "b/y")] == [True, True, False]
    numbers = parse_policy({"rules": {"resources.gpus": {"allow": [0, 1, "auto"]}}}).rules["resources.gpus"]
    assert [is_allowed(numbers, gpus) for gpus in (0, 1, 2, "auto", False, True)] == [
        True,
        True,
        False,
        True,
        False,
        False,
    ]


def test_diff_tells_null_from_nothing() -> None:
    one = parse_policy({"rules": {"resources.gpus": {"max": 4}, "hyperparams.early_stopping": {"force": None}}})
    two = parse_policy({"rules": {"resources.gpus": {"max": 8, "on_violation": "clamp"}, "seed": {"default": 0}}})
    assert [str(change) for change in diff(one, two)] == [
        "hyperparams.early_stopping: force null taken away",
        "resources.gpus: max 4 → 8",
        'resources.gpus: on_violation "clamp" added',
        "seed: default 0 added",
    ]
    assert diff(one, one) == []
    assert len(diff(None, two)) == len(diff(two, None)) == 3
