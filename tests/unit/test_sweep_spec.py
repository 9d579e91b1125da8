"""A sweep block: what it may vary, and every value checked before anything runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from astraml_ray.errors import SpecError
from astraml_ray.spec.loading import dump_spec, parse_document, parse_spec
from astraml_ray.spec.sweep import Distribution, Sweep

MINIMAL: dict[str, Any] = {"dataset": "d", "model": "m"}
LR = {"hyperparams.lr": {"log_uniform": [1e-5, 1e-3]}}


def sweep_of(**fields: Any) -> Sweep:
    found = parse_spec({**MINIMAL, "sweep": {"parameters": LR, "trials": 8, **fields}}).sweep
    assert found is not None
    return found


def problems(sweep: dict[str, Any], **document: Any) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        parse_spec({**MINIMAL, **document, "sweep": sweep})
    return {p.param: str(p) for p in caught.value.problems}


def test_any_field_by_its_path_and_the_defaults() -> None:
    text = """
dataset: d
model: m
sweep:
  parameters:
    hyperparams.lr: {log_uniform: [1e-5, 1e-3]}
    hyperparams.batch_size: {choice: [16, 32, 64]}
    hyperparams.early_stopping.patience: {int_uniform: [2, 8, 2]}
    augmentation: {choice: [[], [{type: random_swap}]]}
    dataset.validation_fraction: {uniform: [0.1, 0.2]}
    model.name: {choice: [a, b]}
  trials: 20
"""
    spec = parse_spec(parse_document(text, source="t"))
    assert spec.sweep is not None
    assert (spec.sweep.kind, spec.sweep.scheduler, spec.sweep.count) == ("random", "asha", 20)
    assert parse_spec(parse_document(dump_spec(spec), source="t")) == spec
    assert parse_spec(MINIMAL).sweep is None


def test_every_value_is_tried_in_the_document_and_all_problems_come_at_once() -> None:
    found = problems(
        {
            "parameters": {
                "hyperparams.lr": {"log_uniform": [1e-5, 1000]},
                "hyperparams.batch_size": {"choice": [16, 0, "many"]},
                "hyperparams.epochs": {"uniform": [1, 3]},
                "hyperparams.lr_scheduler": {"choice": ["cosine", "cosin"]},
                "hyperparam.lr": {"choice": [1]},
                "lr": {"choice": [1]},
                "project_id": {"choice": ["a"]},
                "resources.gpus": {"choice": [1, 2]},
                "dataset.credentials.secret": {"choice": ["s"]},
                "sweep.trials": {"choice": [1]},
                "hyperparams.early_stopping.monitor": {"choice": ["validation/loss"]},
            },
            "trials": 4,
        }
    )
    at = "/sweep/parameters/"
    assert "less than or equal to 100" in found[f"{at}hyperparams.lr"]
    assert "valid integer" in found[f"{at}hyperparams.epochs"]
    assert "cosin" in found[f"{at}hyperparams.lr_scheduler"]
    assert "did you mean hyperparams.lr?" in found[f"{at}hyperparam.lr"]
    assert "did you mean hyperparams.lr?" in found[f"{at}lr"]
    for path, why in {
        "project_id": "one project",
        "resources.gpus": "all trials have the same",
        "dataset.credentials.secret": "secrets",
        "sweep.trials": "no sweep inside",
        "hyperparams.early_stopping.monitor": "set sweep.metric",
    }.items():
        assert f"{at}{path}: cannot vary over trials: " in found[f"{at}{path}"]
        assert why in found[f"{at}{path}"]
    assert found[f"{at}hyperparams.batch_size"].startswith(f"{at}hyperparams.batch_size: ")


@pytest.mark.parametrize("path", ["dataset", "dataset.columns", "model", "hyperparams", "hyperparams.early_stopping"])
def test_a_group_of_fields_is_varied_field_by_field(path: str) -> None:
    found = problems({"parameters": {path: {"choice": [None, {}]}}, "trials": 2})
    assert "is a group of fields: vary the fields in it" in found[f"/sweep/parameters/{path}"]


def test_values_that_are_wrong_only_together() -> None:
    parameters = {"dataset.path": {"choice": ["a", None]}, "dataset.train": {"choice": [None, "b"]}}
    found = problems({"parameters": parameters, "trials": 4})
    assert any("sweep/parameters" in param for param in found)


@pytest.mark.parametrize(
    ("sweep", "param", "words"),
    [
        ({"parameters": LR}, "/sweep", "`trials` is required"),
        ({"parameters": LR, "algorithm": "grid"}, "/sweep", "a grid needs lists"),
        ({"parameters": {}, "trials": 1}, "/sweep/parameters", "at least 1"),
        ({"parameters": LR, "trials": 0}, "/sweep/trials", "greater than or equal to 1"),
        ({"parameters": LR, "trials": 3, "metric": "loss"}, "/sweep/metric", "pattern"),
        ({"parameters": LR, "trials": 3, "budget": {"cost": 3}}, "/sweep/budget", "price_per_gpu_hour"),
        ({"parameters": LR, "trials": 3, "budget": {}}, "/sweep/budget", "leave the budget out"),
        ({"parameters": LR, "trials": 3, "budget": {"time": "2 weeks"}}, "/sweep/budget/time", "2h"),
        (
            {"parameters": {"hyperparams.batch_size": {"choice": [8]}}, "trials": 2, "scheduler": "pbt"},
            "/sweep/parameters/hyperparams.batch_size",
            "in the middle of a run",
        ),
        (
            {"parameters": {"hyperparams": {"choice": [{}]}, **LR}, "trials": 2},
            "/sweep/parameters",
            "is a part of hyperparams",
        ),
        (
            {"parameters": {"seed": {"int_uniform": [0, 5000]}}, "algorithm": "grid"},
            "/sweep",
            "a grid needs lists",
        ),
    ],
)
def test_what_is_no_sweep(sweep: dict[str, Any], param: str, words: str) -> None:
    assert words in problems(sweep)[param]


@pytest.mark.parametrize(
    ("distribution", "words"),
    [
        ({}, "exactly one"),
        ({"choice": [1], "uniform": [0, 1]}, "exactly one"),
        ({"uniform": [1, 1]}, "low must be below high"),
        ({"log_uniform": [0, 1]}, "above zero"),
        ({"choice": [1, 1]}, "twice"),
        ({"int_uniform": [1, 9, 0]}, "step"),
        ({"int_uniform": [0, 10**30]}, "within 2**53"),
    ],
)
def test_what_is_no_distribution(distribution: dict[str, Any], words: str) -> None:
    found = problems({"parameters": {"seed": distribution}, "trials": 1})
    assert any(words in text for text in found.values())


def test_a_trials_parameters_follow_from_its_number_alone() -> None:
    one, other = sweep_of(), sweep_of(trials=50)
    assert [one.point(number) for number in range(8)] == [other.point(number) for number in (0, 1, 2, 3, 4, 5, 6, 7)]
    assert one.point(5) != one.point(6)
    assert sweep_of(seed=1).point(0) != one.point(0)
    drawn = [sweep_of(trials=400).point(number)["hyperparams.lr"] for number in range(400)]
    assert all(1e-5 <= value <= 1e-3 for value in drawn)
    assert 150 < sum(value < 1e-4 for value in drawn) < 250


def test_a_grid_has_every_point_once() -> None:
    parameters = {"hyperparams.batch_size": {"choice": [8, 16]}, "seed": {"int_uniform": [1, 7, 3]}}
    found = sweep_of(parameters=parameters, trials=None)
    assert (found.kind, found.count) == ("grid", 6)
    everything = [(b, s) for b in (8, 16) for s in (1, 4, 7)]
    mixed = [tuple(found.point(number).values()) for number in range(6)]
    assert (sorted(mixed), mixed != everything) == (everything, True)
    plain = sweep_of(parameters=parameters, trials=None, scheduler="none")
    assert [tuple(plain.point(number).values()) for number in range(6)] == everything
    assert sweep_of(parameters=parameters, trials=4, algorithm="grid").count == 4


def test_a_grid_may_be_larger_than_anybody_could_walk_through() -> None:
    values = {"choice": [k / 100 for k in range(1, 11)]}
    fields = ("lr", "weight_decay", "dropout", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "seed")
    paths = ["seed" if name == "seed" else f"hyperparams.{name}" for name in fields]
    parameters = dict.fromkeys(paths[:-1], values) | {"seed": {"int_uniform": [0, 1999]}}
    parameters |= {f"hyperparams.{name}": {"int_uniform": [1, 2000]} for name in ("batch_size", "max_steps")}
    found = sweep_of(parameters=parameters, trials=5, algorithm="grid")
    assert found.grid_size == 10**7 * 2000**3
    drawn = [found.point(number) for number in range(5)]
    assert len({json.dumps(point) for point in drawn}) == 5
    assert all(list(point) == list(parameters) for point in drawn)
    plain = sweep_of(parameters=parameters, trials=5, algorithm="grid", scheduler="none")
    assert [plain.point(number)["hyperparams.max_steps"] for number in range(5)] == [1, 2, 3, 4, 5]
    larger = {**parameters, "hyperparams.epochs": {"int_uniform": [1, 2000]}}
    assert "over 2**62 points" in problems({"parameters": larger, "trials": 5, "algorithm": "grid"})["/sweep"]


def test_shares_of_a_distribution() -> None:
    almost = 1 - 2**-53
    whole = Distribution(int_uniform=[2, 9, 3])
    assert {whole.at(share / 100) for share in range(100)} == {2, 5, 8}
    assert (whole.at(0.0), whole.at(almost)) == (2, 8)
    wide = Distribution(int_uniform=[0, 2**53])
    assert (wide.at(almost), wide.values(), wide.probes()) == (2**53 - 1, None, [0, 2**53])
    assert Distribution(int_uniform=[3, 4, 5]).probes() == [3]
    assert Distribution(log_uniform=[1e-5, 1e-3]).at(0.5) == pytest.approx(1e-4)
    assert Distribution(uniform=[1.0, 2.0]).at(almost) <= 2.0


def test_a_budget_is_used_up_by_any_of_its_parts() -> None:
    budget = sweep_of(budget={"gpu_hours": 2, "time": "1h", "cost": 3, "price_per_gpu_hour": 2}).budget
    assert budget is not None
    assert not budget.used_up(gpu_hours=1.4, seconds=3599)
    assert budget.used_up(gpu_hours=1.5, seconds=0)
    assert budget.used_up(gpu_hours=0, seconds=3600)
