"""The fields of a spec by path."""

from __future__ import annotations

from typing import Any

import pytest

from astraml_ray.access.fields import assign, field_of, flatten, known_paths, lookup, normalised, value_problem
from astraml_ray.spec.loading import parse_spec


def test_every_field_of_a_canonical_spec_has_a_path() -> None:
    spec = parse_spec({"dataset": "d", "model": "m", "schedule": {"cron": "0 * * * *"}, "labels": {"a.b": "c"}})
    for parts in flatten(spec.canonical()):
        assert field_of(".".join(parts)).parts == parts
    for path in known_paths():
        assert field_of(path).path == path


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("hyperparams.lr", "number"),
        ("resources.gpus", "number"),
        ("limits.max_duration", "duration"),
        ("limits.queue_timeout", "duration"),
        ("hyperparams.early_stopping", "object"),
        ("schedule", "object"),
        ("augmentation", "list"),
        ("labels", "mapping"),
        ("labels.a.b/c", "scalar"),
        ("hyperparams.restore", None),
        ("model.name", "scalar"),
        ("hyperparams.early_stopping.restore_best", "scalar"),
    ],
)
def test_kinds(path: str, kind: str | None) -> None:
    if kind is None:
        with pytest.raises(ValueError):
            field_of(path)
    else:
        assert field_of(path).kind == kind


@pytest.mark.parametrize(
    ("path", "suggestion"),
    [
        ("resources.gpu", "resources.gpus"),
        ("lr", "hyperparams.lr"),
        ("hyperparam.lr", "hyperparams.lr"),
        ("early_stopping.patience", "hyperparams.early_stopping.patience"),
    ],
)
def test_an_unknown_path_names_the_nearest(path: str, suggestion: str) -> None:
    with pytest.raises(ValueError, match=suggestion):
        field_of(path)


@pytest.mark.parametrize("path", ["", ".", "hyperparams.", "augmentation.0.rate", "model.name.x", "hyperparams.lr.x"])
def test_paths_that_lead_nowhere(path: str) -> None:
    with pytest.raises(ValueError):
        field_of(path)


@pytest.mark.parametrize(
    ("path", "good", "bad"),
    [
        ("hyperparams.batch_size", 64, 0),
        ("hyperparams.batch_size", 64, "64"),
        ("hyperparams.lr", 1, float("nan")),
        ("resources.gpus", "auto", -1),
        ("limits.max_duration", "12h", "12"),
        ("limits.max_duration", None, 12),
        ("hyperparams.lr_scheduler", "linear", "cosinus"),
        ("hyperparams.early_stopping", None, {"patience": 0}),
        ("dataset", "s3://b/d", {"path": 3}),
        ("schedule", {"cron": "0 * * * *"}, {"cron": "x"}),
        ("schedule.cron", "0 * * * *", "x"),
        ("labels.team", "vision", 3),
        ("labels.te am", "x" * 200, "x"),
        ("model.name", "m", ""),
        ("augmentation", [{"type": "random_swap"}], [{"type": "nonsense"}]),
    ],
)
def test_values_are_checked_as_the_spec_does(path: str, good: Any, bad: Any) -> None:
    field = field_of(path)
    if path != "labels.te am":
        assert value_problem(field, good) is None
    assert value_problem(field, bad) is not None


def test_reading_and_writing() -> None:
    document: dict[str, Any] = {"a": None}
    assert assign(document, ("a", "b"), 1)
    assert document == {"a": {"b": 1}}
    assert lookup(document, ("a", "b")) == (True, 1)
    assert lookup(document, ("a", "c")) == (False, None)
    assert lookup({"a": {"b": None}}, ("a", "b")) == (True, None)
    assert not assign({"a": 5}, ("a", "b"), 1)
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1], "e": {}}) == {
        ("a", "b"): 1,
        ("a", "c"): {},
        ("d",): [1],
        ("e",): {},
    }


def test_short_forms_become_objects_and_the_original_stays() -> None:
    request = {"dataset": "d", "model": "m", "labels": {"a": "b"}}
    copy = normalised(request)
    copy["labels"]["a"] = "c"
    assert copy["dataset"] == {"path": "d"}
    assert copy["model"] == {"name": "m"}
    assert request == {"dataset": "d", "model": "m", "labels": {"a": "b"}}


def test_deep_documents_are_refused() -> None:
    deep: Any = {}
    for _ in range(100_000):
        deep = {"a": deep}
    with pytest.raises(ValueError, match="levels"):
        normalised(deep)
