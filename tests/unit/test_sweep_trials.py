"""What a trial is given: prepared anew wherever its values could show, with the rows and secrets of a job's own run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from astraml_ray.data.encoding.images import ImageEncoder
from astraml_ray.settings import load_settings
from astraml_ray.spec.documents import changed
from astraml_ray.spec.loading import parse_spec
from astraml_ray.training.preparation import RunInputs, prepare, store_inputs
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.tuning.sweep import prepare_sweep
from astraml_ray.tuning.trials import _UNREAD, Course, course_of, goal_of, seated, trial_inputs, watching
from tests.conftest import write_dataset
from tests.unit.images import write_images

MIXUP = [{"type": "mixup", "alpha": 0.4, "probability": 0.5}]
OTHERS: dict[str, Any] = {
    "hyperparams.lr": 1e-2,
    "hyperparams.lr_scheduler": "linear",
    "hyperparams.warmup_steps": 3,
    "hyperparams.weight_decay": 0.5,
    "hyperparams.adam_beta1": 0.5,
    "hyperparams.adam_beta2": 0.5,
    "hyperparams.adam_epsilon": 1e-4,
    "hyperparams.batch_size": 7,
    "hyperparams.gradient_accumulation_steps": 3,
    "hyperparams.epochs": 2,
    "hyperparams.max_steps": 5,
    "hyperparams.max_grad_norm": None,
    "hyperparams.precision": "fp32",
    "hyperparams.eval_every": "3 steps",
    "hyperparams.early_stopping.patience": 2,
    "hyperparams.early_stopping.min_delta": 0.1,
    "hyperparams.early_stopping.restore_best": False,
    "checkpoint.every": "2 steps",
    "checkpoint.keep": 5,
}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    data = write_dataset(tmp_path_factory.mktemp("trials") / "d", rows=200, group=40)
    hyper = {"batch_size": 16, "epochs": 1, "eval_every": "4 steps", "max_length": 32}
    return {"dataset": {"train": str(data / "train.parquet")}, "model": "tiny-bert", "hyperparams": hyper}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = write_images(tmp_path_factory.mktemp("shapes"))
    return {"dataset": str(folder), "model": "vit-tiny", "hyperparams": {"batch_size": 16}}


def swept(document: dict[str, Any], path: str, *values: Any) -> tuple[RunInputs, dict[str, Any]]:
    whole = {**document, "sweep": {"parameters": {path: {"choice": list(values)}}}}
    return prepare_sweep(parse_spec(whole), load_settings())[0], whole


def trial(inputs: RunInputs, document: dict[str, Any], values: dict[str, Any]) -> RunInputs:
    return trial_inputs(inputs, document, values, goal_of(parse_spec(document)), load_settings())


def told(inputs: RunInputs) -> tuple[Any, ...]:
    """All that a preparation makes, besides the spec."""
    vocabulary = None if inputs.tokenizer is None else inputs.tokenizer.get_vocab()
    return inputs.encoder, inputs.manifest, inputs.blueprint, inputs.config.to_dict(), vocabulary


def test_what_no_preparation_reads_makes_none_different(words: dict[str, Any]) -> None:
    assert set(OTHERS) == _UNREAD
    base = prepare(parse_spec(words), load_settings())[0]
    together = prepare(parse_spec(changed(words, OTHERS)), load_settings())[0]
    assert told(together) == told(base)
    assert together.spec != base.spec


@pytest.mark.parametrize(
    "values",
    [
        {"augmentation": [{"type": "random_swap"}]},
        {"sampling": "balanced"},
        {"seed": 9},
        {"hyperparams.dropout": 0.5},
        {"hyperparams.label_smoothing": 0.1},
        {"hyperparams.max_length": 16},
        {"dataset.validation_fraction": 0.4},
        {"task": "masked-lm"},
    ],
)
def test_a_trial_is_what_a_run_of_its_values_would_be(words: dict[str, Any], values: dict[str, Any]) -> None:
    inputs, document = swept(words, "hyperparams.lr", 1e-3, 1e-4)
    found, alone = trial(inputs, document, values), prepare(parse_spec(changed(words, values)), load_settings())[0]
    assert told(found) == told(alone)
    assert found.spec == watching(alone.spec, goal_of(parse_spec(document)))


def test_images_of_a_trial_are_mixed_sized_and_sampled_as_it_says(images: dict[str, Any]) -> None:
    inputs, document = swept(images, "augmentation", "none", MIXUP)
    mixed = trial(inputs, document, {"augmentation": MIXUP, "augmentation_on": "device"})
    assert isinstance(mixed.encoder, ImageEncoder)
    assert (mixed.encoder.mixes, mixed.encoder.on_device, inputs.encoder.mixes) == (True, True, False)
    small = trial(inputs, document, {"hyperparams.image_size": 16})
    assert (small.encoder.height, small.config.image_size) == (16, 16)
    assert small.encoder.height != inputs.encoder.height
    balanced = trial(inputs, document, {"sampling": "balanced"})
    assert balanced.manifest.splits["train"].classes
    assert not inputs.manifest.splits["train"].classes


def test_images_are_augmented_on_the_gpu_that_a_trial_has(images: dict[str, Any]) -> None:
    inputs, document = swept(images, "augmentation", "none", "light")
    found = trial(inputs, document, {"augmentation": "light"})
    for gpus, device in ((1, torch.device("cuda", 0)), (0, torch.device("cpu"))):
        resources = found.spec.resources.model_copy(update={"gpus": gpus})
        placed, where = seated(replace(found, spec=found.spec.model_copy(update={"resources": resources})))
        assert (placed.encoder.on_device, where) == (bool(gpus), device)


def test_who_reads_a_trials_rows_is_given_nothing_but_what_reading_takes(words: dict[str, Any]) -> None:
    inputs, document = swept(words, "hyperparams.lr", 1e-3, 1e-4)

    def everything(name: str) -> str:
        return f"all-{name}"

    def rows() -> str:
        return "rows"

    inputs = replace(inputs, secrets=everything, manifest=replace(inputs.manifest, secret=rows))
    for values in ({"hyperparams.max_length": 16}, {"dataset.validation_fraction": 0.4}, {"hyperparams.lr": 1e-4}):
        found = trial(inputs, document, values)
        assert found.manifest.secret is rows
        assert found.secrets is everything


def test_secrets_are_this_jobs_whatever_an_earlier_one_named(words: dict[str, Any]) -> None:
    inputs, document = swept(words, "hyperparams.max_length", 16, 32)
    earlier = {**document, "env": {"TOKEN": {"secret": "gone"}}}
    assert trial(inputs, earlier, {"hyperparams.max_length": 16}).spec.env == {}


def test_a_trial_that_has_begun_keeps_its_rows(words: dict[str, Any], tmp_path: Path) -> None:
    part = tmp_path / "rows" / "part-0.parquet"
    part.parent.mkdir()
    shutil.copy(words["dataset"]["train"], part)
    inputs, document = swept({**words, "dataset": {"train": str(part.parent)}}, "dataset.validation_fraction", 0.1, 0.6)
    values, folder = {"dataset.validation_fraction": 0.6}, RunFolder(str(tmp_path / "trial"))
    begun = trial(inputs, document, values)
    store_inputs(begun, folder)
    shutil.copy(part, part.with_name("part-1.parquet"))
    goal = goal_of(parse_spec(document))
    again = trial_inputs(inputs, document, values, goal, load_settings(), folder=folder)
    assert told(again) == told(begun)
    new = trial_inputs(inputs, document, values, goal, load_settings(), folder=RunFolder(str(tmp_path / "new")))
    assert new.train_rows == 2 * begun.train_rows


def test_the_course_of_a_trial_follows_from_its_own_rows(words: dict[str, Any]) -> None:
    inputs, document = swept(words, "dataset.validation_fraction", 0.1, 0.6)
    few, many = (trial(inputs, document, {"dataset.validation_fraction": share}) for share in (0.6, 0.1))
    assert few.train_rows < inputs.train_rows
    steps = -(-few.train_rows // 16)
    assert course_of(few) == Course(-(-steps // 4), 4)
    assert course_of(many).evaluations > course_of(few).evaluations
    assert [course_of(few).evaluation_at(step) for step in (4, 8, steps)] == [1, 2, course_of(few).evaluations]
