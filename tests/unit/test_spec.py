"""The job spec: the reference request, its defaults, and every way to get it wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from astraml_ray.errors import SpecError
from astraml_ray.settings import configs_folder
from astraml_ray.spec import JobSpec
from astraml_ray.spec.loading import build_spec, dump_spec, parse_document, parse_spec, read_document

REFERENCE = {
    "project_id": "p-demo",
    "dataset": "s3://bucket/dataset",
    "model": "bert-base",
    "hyperparams": {"batch_size": 32, "lr": 3e-5, "epochs": 5, "early_stopping": {"patience": 5}},
    "resources": {"gpus": 1},
}
MINIMAL: dict[str, Any] = {"dataset": "d", "model": "m"}


def problems(document: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        parse_spec(document)
    return {p.param: str(p) for p in caught.value.problems}


def test_reference_request_and_its_defaults() -> None:
    spec = parse_spec(REFERENCE)
    assert spec.dataset.path == "s3://bucket/dataset"
    assert spec.model.name == "bert-base"
    assert spec.resources.gpus == 1
    default = parse_spec(MINIMAL).hyperparams
    assert (default.batch_size, default.lr, default.epochs) == (32, 3e-5, 5)
    assert default.early_stopping is not None
    assert default.early_stopping.patience == 5
    assert (default.lr_scheduler, default.gradient_accumulation_steps) == ("cosine", 1)
    assert default == spec.hyperparams


def test_reference_yaml_with_schedule() -> None:
    text = (
        'dataset: s3://b/d\nmodel: bert-base\nschedule: {cron: "0 * * * *"}\nresources: {gpus: 1}\n'
        "hyperparams: {lr_scheduler: cosine, gradient_accumulation_steps: 1, lr: 3e-5}\n"
    )
    spec = build_spec(parse_document(text, source="t"))
    assert spec.schedule is not None
    assert spec.hyperparams.lr == 3e-5


def test_written_spec_reads_back_the_same() -> None:
    spec = parse_spec({**REFERENCE, "augmentation": [{"type": "random_swap", "rate": 0.2}]})
    assert parse_spec(parse_document(dump_spec(spec), source="t")) == spec
    assert parse_spec(spec.canonical()).digest() == spec.digest()


def test_all_errors_at_once_with_pointers_and_suggestions() -> None:
    found = problems(
        {
            "dataset": {"train": "a", "columns": {"txt": "x"}},
            "lr": 1e-3,
            "hyperparams": {"lr": float("nan"), "batch_size": "32", "early_stopping": {"patiense": 3}},
            "augmentation": [{"type": "random_deletion", "rate": 2}, {"type": "nonsense"}],
        }
    )
    assert "did you mean dataset.columns.text" in found["/dataset/columns/txt"]
    assert "did you mean hyperparams.early_stopping.patience" in found["/hyperparams/early_stopping/patiense"]
    assert "did you mean hyperparams.lr" in found["/lr"]
    assert "finite" in found["/hyperparams/lr"]
    assert "32" in found["/hyperparams/batch_size"]
    assert "is required" in found["/model"]
    assert "/augmentation/0/rate" in found
    assert "nonsense" in found["/augmentation/1"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("hyperparams.batch_size", 0),
        ("hyperparams.batch_size", -1),
        ("hyperparams.batch_size", 10**30),
        ("hyperparams.batch_size", True),
        ("hyperparams.batch_size", 1.5),
        ("hyperparams.lr", 0),
        ("hyperparams.lr", -1e-3),
        ("hyperparams.lr", "high"),
        ("hyperparams.lr", 1e999),
        ("hyperparams.epochs", None),
        ("hyperparams.eval_every", "often"),
        ("hyperparams.eval_every", "0 steps"),
        ("hyperparams.eval_every", "1.5 steps"),
        ("hyperparams.lr_scheduler", "cosinus"),
        ("resources.gpus", -1),
        ("resources.workers", 0),
        ("seed", -1),
        ("schedule", {"cron": "* * *"}),
        ("schedule", {"cron": "61 * * * *"}),
        ("model", ""),
        ("model", {"name": 3}),
        ("dataset", 5),
        ("dataset", {"path": "a", "train": "b"}),
        ("dataset", {}),
        ("project_id", "a b"),
    ],
)
def test_wrong_values_name_their_field(path: str, value: object) -> None:
    document: dict[str, Any] = json.loads(json.dumps(MINIMAL))
    place = document
    for name in path.split(".")[:-1]:
        place = place.setdefault(name, {})
    place[path.split(".")[-1]] = value
    found = problems(document)
    assert all(pointer.startswith("/" + path.split(".")[0]) for pointer in found)


def test_workers_must_match_gpus() -> None:
    assert "worker has one GPU" in problems({**MINIMAL, "resources": {"gpus": 2, "workers": 1}})["/resources"]


def test_flags_over_settings_over_file() -> None:
    document = {"dataset": {"path": "a", "columns": {"text": "t"}}, "model": "m", "hyperparams": {"lr": 1, "epochs": 7}}
    spec = build_spec(
        document,
        settings=["hyperparams.lr=1e-4", "dataset.columns.label=y"],
        flags={"hyperparams.lr": 2e-4, "dataset": "b"},
    )
    assert (spec.hyperparams.lr, spec.hyperparams.epochs) == (2e-4, 7)
    assert (spec.dataset.path, spec.dataset.columns.text, spec.dataset.columns.label) == ("b", "t", "y")


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "a: 1\na: 2"])
def test_documents_that_are_no_specs(text: str) -> None:
    with pytest.raises(SpecError):
        parse_document(text, source="t")


def test_specs_are_frozen() -> None:
    spec = parse_spec(MINIMAL)
    with pytest.raises(ValueError):
        spec.seed = 3  # type: ignore[misc]


def test_every_shipped_job_is_valid_and_the_schema_is_complete() -> None:
    for file in (configs_folder() / "jobs").glob("*.yaml"):
        build_spec(read_document(file))
    schema = JobSpec.model_json_schema()
    assert set(schema["properties"]) == set(JobSpec.model_fields)
    assert {"type": "string"} in schema["properties"]["dataset"]["anyOf"]


@pytest.mark.parametrize("text", ["seed: 089", 'seed: !!int ""', "seed: 0o9", "a: [" * 2000])
def test_values_that_cannot_be_read_are_told(text: str) -> None:
    with pytest.raises(SpecError):
        parse_spec(parse_document(text, source="spec.yaml"))


def test_a_great_many_mistakes_are_told_in_part() -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec({f"field_{i}": i for i in range(5000)})
    assert len(caught.value.problems) == 101
    assert "more" in caught.value.problems[-1].message
