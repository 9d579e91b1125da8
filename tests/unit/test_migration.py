"""From v1.x to v2.1: the same job under other names, reported field by field."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astraml_ray.errors import SpecError
from astraml_ray.spec.loading import build_spec, parse_document, parse_spec
from astraml_ray.spec.migration import Move, migrate
from astraml_ray.spec.v1_fields import PER_DEVICE, RULES, WARMUP_EPOCHS, plain_name

V1 = {
    "project": "p-demo",
    "dataset_path": "s3://bucket/dataset",
    "model_name": "bert-base",
    "scheduler": "cosine",
    "patience": 5,
    "batch_size": 32,
    "learning_rate": 3e-5,
    "epochs": 5,
    "gpus": 1,
    "accumulate_grad_batches": 1,
    "warmup": 100,
}
V2 = {
    "project_id": "p-demo",
    "dataset": "s3://bucket/dataset",
    "model": "bert-base",
    "hyperparams": {
        "batch_size": 32,
        "lr": 3e-5,
        "epochs": 5,
        "early_stopping": {"patience": 5},
        "lr_scheduler": "cosine",
        "gradient_accumulation_steps": 1,
        "warmup_steps": 100,
    },
    "resources": {"gpus": 1},
}
MINIMAL: dict[str, Any] = {"data": "d", "model": "m"}


def problems(document: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        migrate(document)
    return {problem.param: str(problem) for problem in caught.value.problems}


def moves(document: dict[str, Any]) -> dict[str | None, Move]:
    """By where they went."""
    return {move.to_path: move for move in migrate(document).report}


def digest(document: dict[str, Any]) -> str:
    return parse_spec(migrate(document).document).digest()


def hyperparams(document: dict[str, Any]) -> Any:
    return parse_spec(migrate({**MINIMAL, **document}).document).hyperparams


@pytest.mark.parametrize(
    "v1",
    [
        V1,
        {**V1, "api_version": "v1"},
        {**V1, "api_version": "v1.4"},
        {**V1, "api_version": "1.0"},
        {**V1, "api_version": 1},
        {**V1, "api_version": 1.2},
        {"hyperparams": V1},
        {"hyperparameters": V1},
        {"project_id": "p-demo", "data": {"path": "s3://bucket/dataset"}, "model": {"name": "bert-base"}}
        | {"training": {k: v for k, v in V1.items() if k not in ("project", "dataset_path", "model_name")}},
        {name.replace("_", "-"): value for name, value in V1.items()},
        {
            "project-name": "p-demo",
            "dataUri": "s3://bucket/dataset",
            "baseModel": "bert-base",
            "lrSchedulerType": "cosine_with_warmup",
            "earlyStoppingPatience": "5",
            "globalBatchSize": "32",
            "learningRate": "3e-5",
            "numTrainEpochs": 5.0,
            "numGpus": 1,
            "gradAccum": "1",
            "numWarmupSteps": 100,
        },
    ],
)
def test_a_v1_request_and_its_twin_are_the_same_job(v1: dict[str, Any]) -> None:
    assert digest(v1) == parse_spec(V2).digest()


def test_scheduler_patience_and_batch_size_are_always_written_out() -> None:
    document = migrate(MINIMAL).document
    assert document == {
        "api_version": "v2.1",
        "dataset": {"path": "d"},
        "model": {"name": "m"},
        "hyperparams": {"batch_size": 32, "early_stopping": {"patience": 5}, "lr_scheduler": "cosine"},
    }
    for path in ("hyperparams.batch_size", "hyperparams.early_stopping.patience", "hyperparams.lr_scheduler"):
        assert moves(MINIMAL)[path].kind == "default"
    assert parse_spec(document).digest() == parse_spec({"dataset": "d", "model": "m"}).digest()


def test_the_report_is_field_by_field() -> None:
    found = moves({**V1, "gpus": 4, "num_workers": 8})
    kinds = {move.from_path: (path, move.kind) for path, move in found.items()}
    assert kinds == {
        "project": ("project_id", "moved"),
        "dataset_path": ("dataset.path", "moved"),
        "model_name": ("model.name", "moved"),
        "scheduler": ("hyperparams.lr_scheduler", "moved"),
        "patience": ("hyperparams.early_stopping.patience", "verify"),
        "batch_size": ("hyperparams.batch_size", "verify"),
        "learning_rate": ("hyperparams.lr", "moved"),
        "epochs": ("hyperparams.epochs", "moved"),
        "gpus": ("resources.gpus", "moved"),
        "accumulate_grad_batches": ("hyperparams.gradient_accumulation_steps", "moved"),
        "warmup": ("hyperparams.warmup_steps", "moved"),
        "num_workers": (None, "dropped"),
    }
    assert "all 4 workers" in str(found["hyperparams.batch_size"].note)
    assert "evaluations" in str(found["hyperparams.early_stopping.patience"].note)
    assert str(found["hyperparams.lr"]) == "moved   learning_rate → hyperparams.lr = 3e-05"
    assert found["hyperparams.lr"].as_dict() == {
        "from_path": "learning_rate",
        "to_path": "hyperparams.lr",
        "value": 3e-5,
        "kind": "moved",
        "note": None,
    }


def test_what_needs_no_look_is_not_marked() -> None:
    assert moves(V1)["hyperparams.batch_size"].kind == "moved"  # one GPU: global or not is the same
    assert moves({**V1, "eval_every": "1 epochs"})["hyperparams.early_stopping.patience"].kind == "moved"


def test_a_v2_spec_stays_as_it_is() -> None:
    document = {"api_version": "v2.1", **V2}
    migration = migrate(document)
    assert migration.document == document
    assert migration.report == ()
    # It says what version it is, so old names are no longer known.
    assert "/batch_size" in problems({**document, "batch_size": 64})


@pytest.mark.parametrize("version", ["v2", "v2.0", "v2.2", "v3", "", "1.x.y", "v10", "v1.0.0", True, [], {"a": 1}, 2.1])
def test_an_unknown_version_lists_the_known_ones(version: Any) -> None:
    found = problems({"api_version": version, **MINIMAL})
    assert set(found) == {"/api_version"}
    assert "v1.x" in found["/api_version"]
    assert "v2.1" in found["/api_version"]


def test_unknown_fields_are_errors_with_suggestions_all_at_once() -> None:
    found = problems(
        {
            **MINIMAL,
            "batchsize": 1,
            "hyperparams": {"learning_rte": 1, "early_stopping": {"patiense": 1}},
            "resources": {"gpuss": 1},
            "zzzzzz": 1,
            "dataset": {"columns": {"txt": "x"}},
            "model": {"nme": "x"},
        }
    )
    assert "did you mean batch_size" in found["/batchsize"]
    assert "did you mean learning_rate" in found["/hyperparams/learning_rte"]
    assert "did you mean patience" in found["/hyperparams/early_stopping/patiense"]
    assert "did you mean gpus" in found["/resources/gpuss"]
    assert "did you mean text" in found["/dataset/columns/txt"]
    assert "did you mean name" in found["/model/nme"]
    assert "unknown field" in found["/zzzzzz"]


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ({"batch_size": 32, "hyperparams": {"batch_size": 64}}, "/hyperparams/batch_size"),
        ({"learning_rate": 1e-3, "lr": 1e-4}, "/lr"),
        ({"batchSize": 1, "batch_size": 2}, "/batch_size"),
        ({"patience": 3, "early_stopping": False}, "/early_stopping"),
        ({"early_stopping": None, "patience": 3}, "/patience"),
        ({"early_stopping": True, "early_stop": False}, "/early_stopping"),
        ({"early_stopping": {"enabled": False}, "patience": 3}, "/patience"),
        (
            {"early_stopping": 3, "hyperparams": {"early_stopping": {"patience": 4}}},
            "/hyperparams/early_stopping/patience",
        ),
        ({"per_device_batch_size": 8, "gpus": 4, "batch_size": 8}, "/per_device_batch_size"),
        ({"warmup_epochs": 1, "epochs": 5, "warmup_ratio": 0.5}, "/warmup_epochs"),
        ({"fp16": True, "bf16": True}, "/bf16"),
        ({"dataset_path": "other"}, "/dataset_path"),
        ({"epochs": 3, "num_epochs": True}, "/num_epochs"),
        ({"epochs": 1, "num_epochs": True}, "/num_epochs"),
    ],
)
def test_two_fields_that_say_different_things_are_an_error(document: dict[str, Any], pointer: str) -> None:
    found = problems({**MINIMAL, **document})
    assert set(found) == {pointer}
    assert "conflicts with" in found[pointer]


@pytest.mark.parametrize(
    "document",
    [
        {"batch_size": 64, "hyperparams": {"batch_size": 64.0}},
        {"learning_rate": "1e-3", "lr": 0.001},
        {"early_stopping": True, "patience": 3},
        {"patience": 3, "early_stopping": {"enabled": True}},
        {"per_device_batch_size": 8, "gpus": 4, "batch_size": 32},
        {"early_stopping": {"patience": 3}, "early_stopping_patience": 3},
    ],
)
def test_two_fields_that_say_the_same_are_none(document: dict[str, Any]) -> None:
    parse_spec(migrate({**MINIMAL, **document}).document)


@pytest.mark.parametrize(
    ("document", "value"),
    [
        ({"early_stopping": False}, None),
        ({"early_stopping": None}, None),
        ({"patience": None}, None),
        ({"early_stopping": {"enabled": False, "patience": 3}}, None),
        ({"early_stopping": True}, 5),
        ({"early_stopping": {}}, 5),
        ({"early_stopping": 7}, 7),
        ({"early_stopping": {"enabled": True, "patience": 3}}, 3),
        ({"early_stopping_patience": "4"}, 4),
    ],
)
def test_early_stopping(document: dict[str, Any], value: int | None) -> None:
    for written in (document, {"hyperparams": document}):
        stopping = hyperparams(written).early_stopping
        assert (stopping.patience if stopping else None) == value


@pytest.mark.parametrize(
    ("document", "name", "value"),
    [
        ({"scheduler": "linear_with_warmup"}, "lr_scheduler", "linear"),
        ({"scheduler": None}, "lr_scheduler", "constant"),
        ({"scheduler": "none"}, "lr_scheduler", "constant"),
        ({"scheduler": "CosineAnnealingLR"}, "lr_scheduler", "cosine"),
        ({"scheduler": {"name": "linear", "warmup_steps": 10}}, "warmup_steps", 10),
        ({"lr_scheduler": {"type": "linear"}}, "lr_scheduler", "linear"),
        ({"optimizer": {"name": "adamw", "lr": 1e-3}}, "lr", 1e-3),
        ({"optimizer": {"type": "AdamW", "weight_decay": 0.1}}, "weight_decay", 0.1),
        ({"per_device_train_batch_size": 8, "gpus": 4}, "batch_size", 32),
        ({"per_gpu_batch_size": 8, "resources": {"workers": 3}}, "batch_size", 24),
        ({"per_device_batch_size": 8}, "batch_size", 8),
        ({"warmup_ratio": 0.1}, "warmup_steps", 0.1),
        ({"warmup_epochs": 1, "epochs": 4}, "warmup_steps", 0.25),
        ({"warmup_epochs": 0}, "warmup_steps", 0),
        ({"gradient_clip_val": 0}, "max_grad_norm", None),
        ({"grad_clip": "0.5"}, "max_grad_norm", 0.5),
        ({"max_steps": -1}, "max_steps", None),
        ({"precision": 16}, "precision", "fp16"),
        ({"precision": "bf16-mixed"}, "precision", "bf16"),
        ({"fp16": False}, "precision", "fp32"),
        ({"eval_steps": 50}, "eval_every", "50 steps"),
        ({"val_check_interval": 0.25}, "eval_every", "0.25 epochs"),
        ({"val_check_interval": 1.0}, "eval_every", "1 epochs"),
        ({"eval_every": "epoch"}, "eval_every", "1 epochs"),
        ({"max_seq_length": 128}, "max_length", 128),
        ({"mlm_probability": 0.2}, "mask_probability", 0.2),
        ({"beta1": 0.8, "eps": "1e-6"}, "adam_epsilon", 1e-6),
    ],
)
def test_hyperparameters(document: dict[str, Any], name: str, value: Any) -> None:
    assert getattr(hyperparams(document), name) == value


def test_other_fields() -> None:
    spec = parse_spec(
        migrate(
            {
                "train_path": "s3://b/t",
                "val_data": "s3://b/v",
                "test_file": "s3://b/e",
                "text_column": "t",
                "data": {"label_column": "l", "format": "csv"},
                "s3_endpoint": "http://minio:9000",
                "base_model": "m",
                "revision": "abc",
                "pretrained": False,
                "task_type": "clm",
                "random_seed": 7,
                "run_name": "night",
                "tags": ["a", "b"],
                "cron": "0 * * * *",
                "tz": "Europe/Paris",
                "retries": 2,
                "timeout": 3600,
                "save_steps": 100,
                "save_total_limit": 3,
                "monitor": "val_acc",
                "restore_best_weights": False,
                "priority": 5,
                "augmentations": [{"type": "random_swap"}],
            }
        ).document
    )
    assert (spec.dataset.train, spec.dataset.validation, spec.dataset.test) == ("s3://b/t", "s3://b/v", "s3://b/e")
    assert (spec.dataset.columns.text, spec.dataset.columns.label, spec.dataset.format) == ("t", "l", "csv")
    assert spec.dataset.endpoint_url == "http://minio:9000"
    assert (spec.model.name, spec.model.revision, spec.model.init) == ("m", "abc", "scratch")
    assert (spec.task, spec.seed, spec.name, spec.priority) == ("causal-lm", 7, "night", 5)
    assert spec.labels == {"a": "", "b": ""}
    assert spec.schedule is not None
    assert (spec.schedule.cron, spec.schedule.timezone) == ("0 * * * *", "Europe/Paris")
    assert (spec.limits.max_retries, spec.limits.max_duration) == (2, "3600s")
    assert (spec.checkpoint.every, spec.checkpoint.keep) == ("100 steps", 3)
    assert spec.hyperparams.early_stopping is not None
    assert spec.hyperparams.early_stopping.monitor == "validation/accuracy"
    assert spec.hyperparams.early_stopping.restore_best is False
    assert len(spec.augmentation) == 1


@pytest.mark.parametrize(
    ("document", "word"),
    [
        ({"scheduler": "plateau"}, "it has cosine, linear, constant"),
        ({"optimizer": "sgd"}, "AdamW alone"),
        ({"optimizer": {"name": "sgd", "lr": 1}}, "AdamW alone"),
        ({"shuffle": False}, "always shuffles"),
        ({"precision": "int8"}, "precision"),
        ({"fp16": "yes"}, "true or false"),
        ({"warmup_ratio": 2}, "share"),
        ({"warmup_epochs": 9, "epochs": 5}, "below those of the run"),
        ({"warmup_epochs": "x"}, "below those of the run"),
        ({"monitor": 5}, "metric"),
        ({"task": "segmentation"}, "task"),
        ({"hyperparams": 5}, "mapping of fields"),
        ({"hyperparams": {"hyperparams": {"lr": 1}}}, "mapping of fields"),
        ({"gpus": -1}, "as resources.gpus of v2.1: must be from 0 to 4096"),
        ({"learning_rate": "high"}, "as hyperparams.lr of v2.1"),
        ({"epochs": 2.5}, "epochs"),
        ({"batch_size": None}, "batch_size"),
        ({"model": {"name": 5}}, "string"),
        ({"data": {"path": "x", "train": "y"}}, "either"),
    ],
)
def test_what_has_no_equal_is_an_error_where_it_was_written(document: dict[str, Any], word: str) -> None:
    found = problems({**MINIMAL, **document})
    (pointer,) = found
    assert pointer.split("/")[1] in {*document, "dataset"}
    assert word in found[pointer]


def test_errors_are_under_the_pointer_that_was_written() -> None:
    found = problems({**MINIMAL, "hyperparams": {"learning_rate": -1, "patience": 0}, "timeout": "soon"})
    assert set(found) == {"/hyperparams/learning_rate", "/hyperparams/patience", "/timeout"}
    assert set(problems({})) == {"/dataset", "/model"}


def test_yaml_of_v1_reads_as_it_did() -> None:
    text = "data: s3://b/d\nmodel: bert-base\nlr: 3e-5\nearly_stopping: off\nbatch_size: 16\n"
    with pytest.raises(SpecError, match="early_stopping"):
        migrate(parse_document(text, source="t"))  # "off" is text in YAML 1.2
    spec = build_spec(migrate(parse_document(text.replace("off", "false"), source="t")).document)
    assert spec.hyperparams.early_stopping is None


def test_documents_made_to_be_slow_or_deep() -> None:
    deep: Any = {}
    for _ in range(5_000):
        deep = {"scheduler": deep}
    assert "nested too deeply" in next(iter(problems({**MINIMAL, "hyperparams": deep}).values()))
    assert len(problems({**MINIMAL, **{f"field{number}": 1 for number in range(20_000)}})) == 200


def test_every_old_name_leads_to_a_field_that_there_is() -> None:
    from astraml_ray.spec.loading import field_paths

    known = {".".join(path) for path in field_paths()}
    for name, rule in RULES.items():
        assert plain_name(name) == name
        assert rule.target is None or rule.target in known | {PER_DEVICE, WARMUP_EPOCHS}, name


_VALUES: dict[str, Any] = {
    "batch_size": st.integers(1, 512),
    "learning_rate": st.sampled_from([1e-5, "3e-5", 1]),
    "epochs": st.sampled_from([1, 3.0, "7"]),
    "patience": st.sampled_from([None, 1, 9]),
    "scheduler": st.sampled_from(["cosine", "linear", None, {"name": "constant"}]),
    "grad_accum": st.integers(1, 8),
    "warmup": st.sampled_from([0, 0.1, 100]),
    "gpus": st.sampled_from([0, 1, 4, "auto"]),
    "max_seq_length": st.sampled_from([None, 128]),
    "early_stopping_min_delta": st.sampled_from([0, 0.1]),
    "eval_steps": st.sampled_from([10, "0.5 epochs"]),
    "tags": st.sampled_from([{"a": "b"}, ["c"]]),
    "timeout": st.sampled_from([60, "2h"]),
    "num_workers": st.just(4),
}


@settings(deadline=None)
@given(st.fixed_dictionaries({}, optional=_VALUES), st.sets(st.sampled_from(sorted(_VALUES))))
def test_migrating_twice_changes_nothing_and_where_a_field_stands_changes_nothing(
    fields: dict[str, Any], below: set[str]
) -> None:
    if fields.get("patience", 0) is None:
        fields.pop("early_stopping_min_delta", None)
    flat = migrate({**MINIMAL, **fields})
    again = migrate(flat.document)
    assert again.document == flat.document
    assert again.report == ()
    nested = {name: value for name, value in fields.items() if name in below}
    rest = {name: value for name, value in fields.items() if name not in below}
    assert migrate({**MINIMAL, **rest, "hyperparams": nested}).document == flat.document
    assert flat.document["hyperparams"].keys() >= {"batch_size", "lr_scheduler", "early_stopping"}
    for move in flat.report:
        assert move.kind == "dropped" or move.to_path


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*sorted(RULES), "hyperparams", "dataset", "columns"]), inner, max_size=5)
        ),
        max_leaves=12,
    )
)
def test_any_document_is_migrated_or_a_spec_error(document: Any) -> None:
    try:
        migration = migrate(document if isinstance(document, dict) else {"hyperparams": document})
    except SpecError:
        return
    parse_spec(migration.document)
