"""Augmentation of images: a pure function of a row and its key, the same in the stream and on a device."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from pydantic import TypeAdapter

from astraml_ray.data.blocks import BlockReader
from astraml_ray.data.encoding.images import ImageEncoder, pixels_of
from astraml_ray.data.images.augmentation import AUGMENTATIONS, augment_images
from astraml_ray.data.images.operations import OPERATIONS, apply_operations
from astraml_ray.data.keyed import row_keys, uniforms, uniforms_of
from astraml_ray.data.microbatches import Position, local_blocks
from astraml_ray.errors import SpecError
from astraml_ray.spec.augmentation import Augmentation, augmentations_of
from astraml_ray.spec.image_augmentation import IMAGE_PRESETS
from astraml_ray.spec.loading import parse_spec
from astraml_ray.training.batching import Cut
from astraml_ray.training.preparation import RunInputs, placed
from astraml_ray.training.tasks import objective_of
from astraml_ray.training.worker import split_reader
from tests.unit.images import SHAPES, drawing, write_images
from tests.unit.test_images import fit, prepared

torch.set_num_threads(1)
RNG = np.random.default_rng(0)
ROWS = 64
DRAWN = np.stack([drawing(SHAPES[i % 3], RNG) for i in range(ROWS)])
NOISE = RNG.integers(0, 256, (ROWS, 40, 24, 3)).astype(np.uint8)  # neither square nor smooth
KEYS = row_keys(1, 2, np.arange(ROWS))


def made(name: str, **fields: Any) -> Any:
    return TypeAdapter(Augmentation).validate_python({"type": name, **fields})


def apply(images: npt.NDArray[np.uint8], name: str, **fields: Any) -> npt.NDArray[np.uint8]:
    return augment_images(images, KEYS[: len(images)], [made(name, **{"probability": 1.0, **fields})])


def test_every_type_of_the_spec_has_a_function() -> None:
    kinds = {kind.model_fields["type"].annotation.__args__[0] for kind in _members()}  # type: ignore[union-attr]
    assert kinds == set(AUGMENTATIONS)


def _members() -> Any:
    from typing import get_args

    from astraml_ray.spec.image_augmentation import ImageAugmentation

    return get_args(ImageAugmentation)


@pytest.mark.parametrize("images", [DRAWN, NOISE], ids=["drawn", "noise"])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_row_depends_on_itself_and_its_key_alone(name: str, images: npt.NDArray[np.uint8]) -> None:
    before = images.copy()
    one = made(name, probability=0.7)
    together = augment_images(images, KEYS, [one])
    assert (together.shape, together.dtype) == (images.shape, np.uint8)
    assert np.array_equal(images, before)
    order = RNG.permutation(ROWS)
    assert np.array_equal(augment_images(images[order], KEYS[order], [one]), together[order])
    for row in range(0, ROWS, 7):
        assert np.array_equal(augment_images(images[[row]], KEYS[[row]], [one])[0], together[row])
    torch.manual_seed(5)
    assert np.array_equal(augment_images(images, KEYS, [one]), together)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_it_does_something_as_often_as_it_should(name: str) -> None:
    changed = (apply(NOISE, name) != NOISE).any((1, 2, 3)).mean()
    assert changed > (0.8 if name in ("trivial_augment", "rand_augment", "random_crop") else 0.95)
    seldom = (apply(NOISE, name, probability=0.25) != NOISE).any((1, 2, 3)).mean()
    assert 0.05 < seldom < 0.5
    other = augment_images(NOISE, row_keys(1, 3, np.arange(ROWS)), [made(name, probability=0.5)])
    assert not np.array_equal(other, apply(NOISE, name, probability=0.5))


def test_crop_and_flip_move_pixels_and_change_none() -> None:
    assert np.array_equal(apply(NOISE, "flip"), NOISE[:, :, ::-1])
    assert np.array_equal(apply(NOISE, "flip", axis="vertical"), NOISE[:, ::-1])
    moved = apply(NOISE, "random_crop", padding=0.125)
    for row in range(8):
        places = [
            (dy, dx)
            for dy in range(-5, 6)
            for dx in range(-3, 4)
            if np.array_equal(moved[row, 5:-5, 3:-3], NOISE[row, 5 + dy : 35 + dy, 3 + dx : 21 + dx])
        ]
        assert len(places) == 1


def test_colours_go_and_levels_and_thresholds_hold() -> None:
    grey = apply(NOISE, "grayscale")
    assert (grey == grey[..., :1]).all()
    assert np.array_equal(apply(NOISE, "posterize", bits=3), NOISE & 0b11100000)
    assert np.array_equal(apply(NOISE, "solarize", threshold=0.5), np.where(NOISE < 128, NOISE, 255 - NOISE))
    erased = apply(DRAWN, "erasing", scale=(0.2, 0.2), ratio=(1.0, 1.0))
    share = ((erased == 128).all(-1) & (DRAWN != 128).any(-1)).mean((1, 2))
    assert share.min() > 0.15
    assert share.max() < 0.25
    assert apply(NOISE, "blur", sigma=(2.0, 2.0)).std() < NOISE.std() / 2


def test_geometry_turns_and_crops_as_far_as_it_should() -> None:
    quarter = np.zeros((ROWS, 33, 33, 3), np.uint8)
    quarter[:, 15:18, 27:30] = 255
    turned = apply(quarter, "rotation", degrees=90)
    angles = [np.degrees(np.arctan2(*(np.argwhere(t[..., 0] > 190).mean(0) - 16))) for t in turned]
    expected = (2 * uniforms_of(KEYS, 2, 1 << 21)[:, 1] - 1) * 90
    assert np.abs(np.array(angles) - expected).max() < 5
    whole = apply(DRAWN, "random_resized_crop", scale=(1.0, 1.0), ratio=(1.0, 1.0))
    assert np.abs(whole.astype(int) - DRAWN).max() <= 1
    ramp = np.broadcast_to(np.linspace(0, 255, 32).astype(np.uint8)[None, None, :, None], (ROWS, 32, 32, 3)).copy()
    half = apply(ramp, "random_resized_crop", scale=(0.25, 0.25), ratio=(1.0, 1.0))
    spans = half[:, 0, -1, 0].astype(int) - half[:, 0, 0, 0]
    assert abs(spans.mean() - 255 * 15.5 / 31) < 8


@pytest.mark.parametrize("place", range(len(OPERATIONS)), ids=OPERATIONS)
def test_the_operations_of_the_policies_at_nothing_change_nothing(place: int) -> None:
    """At the magnitude 0 each operation leaves an image that has all levels as it is."""
    from astraml_ray.data.images.policies import _amounts

    images = torch.from_numpy(NOISE).permute(0, 3, 1, 2).float() / 255
    images[:, :, 0, 0], images[:, :, 0, 1] = 0, 1
    nothing, sign = torch.zeros(ROWS, dtype=torch.float64), torch.ones(ROWS, dtype=torch.float64)
    amounts = _amounts(nothing, sign, shear=0.3, move=0.45, turn=30, enhance=0.9, bits=4)
    done = apply_operations(images, torch.full((ROWS,), place), amounts)
    assert OPERATIONS[place] == "equalize" or torch.allclose(done, images, atol=2e-3)
    full = _amounts(nothing + 0.8, sign, shear=0.3, move=0.45, turn=30, enhance=0.9, bits=4)
    changed = not torch.allclose(apply_operations(images, torch.full((ROWS,), place), full), images, atol=2e-3)
    assert changed == (OPERATIONS[place] not in ("identity", "auto_contrast"))


def test_uniforms_of_many_keys_are_those_of_each() -> None:
    many = uniforms_of(KEYS, 5, 3)
    assert all(np.array_equal(many[i], uniforms(KEYS[i], 5, 3)) for i in range(ROWS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("shapes"))


PIXELS = ["random_crop", "flip", "color_jitter", "rand_augment"]


def tables(reader: BlockReader, **more: Any) -> pa.Table:
    return pa.concat_tables(local_blocks(reader, **more))


@pytest.mark.parametrize("augmentation", ["strong", [{"type": name} for name in PIXELS]], ids=["preset", "list"])
@pytest.mark.parametrize("where", ["stream", "device"])
def test_validation_and_test_rows_are_never_touched(folder: Path, where: str, augmentation: Any) -> None:
    plain = prepared(folder)
    inputs = prepared(folder, augmentation=augmentation, augmentation_on=where)
    objective = objective_for(inputs)
    for split in ("train", "validation", "test"):
        before = seen(plain, objective_for(plain), split)
        after = seen(inputs, objective, split)
        assert (split == "train") == (not np.array_equal(before, after))


def objective_for(inputs: RunInputs) -> Any:
    augmentations = augmentations_of(inputs.spec.augmentation, inputs.spec.task)
    assert isinstance(inputs.encoder, ImageEncoder)
    return objective_of(inputs.spec.task, "abc", images=inputs.encoder, augmentations=augmentations)


def seen(inputs: RunInputs, objective: Any, split: str, *, cut: int = 1000) -> npt.NDArray[np.uint8]:
    """The pixels that a model is shown of a split."""
    batches = objective.collate(tables(split_reader(inputs, split, 1)), Cut(0, cut))
    return np.concatenate([objective._pixels(batch.inputs).numpy() for batch in batches])


@pytest.mark.parametrize("augmentation", ["light", "medium", "strong"])
def test_stream_and_device_show_the_model_the_same_pixels(folder: Path, augmentation: str) -> None:
    stream, device = (
        prepared(folder, augmentation=augmentation, augmentation_on=where) for where in ("stream", "device")
    )
    expected = seen(stream, objective_for(stream), "train")
    assert np.array_equal(seen(device, objective_for(device), "train"), expected)
    assert np.array_equal(seen(device, objective_for(device), "train", cut=7), expected)


def test_a_run_augmented_on_the_device_is_the_run_augmented_in_the_stream(folder: Path) -> None:
    losses = []
    for where in ("stream", "device"):
        hyper = {"epochs": 1, "lr": 1e-3, "label_smoothing": 0.1, "max_steps": 4}
        inputs = prepared(folder, augmentation="strong", augmentation_on=where, hyperparams=hyper)
        _, _, log = fit(inputs, objective=objective_for(inputs))
        losses.append(log.values("train/loss"))
    assert len(losses[0]) == 4
    assert losses[0] == losses[1]


@pytest.mark.parametrize("world_size", [2, 3])
def test_pixels_depend_neither_on_the_workers_nor_on_where_a_run_resumes(folder: Path, world_size: int) -> None:
    inputs = prepared(folder, augmentation="strong", augmentation_on="stream")
    whole = tables(split_reader(inputs, "train", 1), epochs=2)
    ranks = [tables(split_reader(inputs, "train", world_size), epochs=2, world_rank=rank) for rank in range(world_size)]
    epochs = [pa.concat_tables([half(part, epoch) for part in ranks]).sort_by("position") for epoch in range(2)]
    assert pa.concat_tables(epochs).equals(whole)
    resumed = tables(split_reader(inputs, "train", 1), epochs=2, position=Position(1, 48))
    assert resumed.equals(whole.slice(120 + 48))
    assert not np.array_equal(
        pixels_of(whole.slice(0, 120), "image", 32, 32), pixels_of(whole.slice(120), "image", 32, 32)
    )


def half(part: pa.Table, epoch: int) -> pa.Table:
    """A worker's rows of an epoch: positions begin anew with it."""
    begins = int(np.flatnonzero(np.diff(part["position"].to_numpy()) < 0)[0]) + 1
    return part.slice(begins) if epoch else part.slice(0, begins)


def test_auto_is_the_device_where_there_is_a_gpu(folder: Path) -> None:
    inputs = prepared(folder, augmentation="light")
    assert [placed(inputs, gpus=gpus).encoder.on_device for gpus in (True, False)] == [True, False]  # type: ignore[attr-defined]
    told = prepared(folder, augmentation="light", augmentation_on="stream")
    assert placed(told, gpus=True) is told
    plain = prepared(folder)
    assert placed(plain, gpus=True).encoder == plain.encoder


def test_presets_go_by_the_task() -> None:
    for name, listed in IMAGE_PRESETS.items():
        assert augmentations_of(name, "image-classification") == listed  # type: ignore[arg-type]
        assert augmentations_of(name, "text-classification") != listed  # type: ignore[arg-type]
    assert augmentations_of("none", "image-classification") == ()


@pytest.mark.parametrize(
    ("augmentation", "param"),
    [
        ([{"type": "flip"}, {"type": "random_swap"}], "/augmentation/1"),
        ([{"type": "mixup", "probability": 0.7}, {"type": "cutmix", "probability": 0.7}], "/augmentation"),
    ],
)
def test_what_does_not_suit_the_task_is_refused_before_anything_runs(
    folder: Path, augmentation: Any, param: str
) -> None:
    with pytest.raises(SpecError) as caught:
        prepared(folder, augmentation=augmentation)
    assert [problem.param for problem in caught.value.problems] == [param]


def test_a_spec_that_names_its_task_is_refused_when_it_is_read() -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec({"dataset": "d", "model": "m", "task": "text-classification", "augmentation": [{"type": "flip"}]})
    assert caught.value.problems[0].param == "/augmentation/0"


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "flip", "axis": "diagonal"},
        {"type": "posterize", "bits": 0},
        {"type": "random_resized_crop", "scale": [0.9, 0.3]},
        {"type": "rand_augment", "magnitude": 31},
        {"type": "mixup", "alpha": 0},
        {"type": "cutmix", "sides": 3},
        {"type": "twirl"},
    ],
)
def test_wrong_fields_are_refused_with_their_place(wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec({"dataset": "d", "model": "m", "augmentation": [wrong]})
    assert all(problem.param.startswith("/augmentation/0") for problem in caught.value.problems)


def test_an_encoder_of_plain_rows_needs_no_torch() -> None:
    code = "import sys, astraml_ray.data.blocks, astraml_ray.data.images.mixing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert replace(ImageEncoder(2, 2, ("a",)), mixes=True).schema.names[-1] == "partner_weight"
