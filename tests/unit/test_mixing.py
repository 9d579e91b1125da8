"""MixUp and CutMix: the partner, the part and the weights follow from a row's key; the loss from both classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn import functional

from astraml_ray.data.encoding.images import ImageEncoder, pixels_of
from astraml_ray.data.images.augmentation import augment_images, mix_pixels
from astraml_ray.data.images.mixing import draw_mixtures, mixings_of, partners_of, weights_of_partners
from astraml_ray.data.keyed import row_keys
from astraml_ray.data.microbatches import local_blocks, micro_batches
from astraml_ray.data.partners import with_partners
from astraml_ray.data.plan import epoch_blocks
from astraml_ray.errors import DataError
from astraml_ray.spec.image_augmentation import CutMix, Flip, MixUp
from astraml_ray.training.batching import Cut
from astraml_ray.training.objectives.images import ImageClassification
from astraml_ray.training.preparation import RunInputs
from astraml_ray.training.worker import split_reader
from tests.unit.images import image_rows, write_images
from tests.unit.test_images import Fixed, prepared

ROWS = 2000
KEYS = row_keys(3, 1, np.arange(ROWS))
MIXUP, CUTMIX = MixUp(type="mixup", alpha=0.4, probability=0.3), CutMix(type="cutmix", probability=0.5)
BOTH = [MIXUP, CUTMIX]
PLACES = np.arange(ROWS)


def test_as_many_rows_are_mixed_as_should_be_and_none_with_itself() -> None:
    partners = partners_of(KEYS, PLACES, ROWS, BOTH)
    assert abs((partners >= 0).mean() - 0.8) < 0.04
    assert (partners != PLACES).all()
    assert partners.max() < ROWS
    assert len(np.unique(partners)) > 0.5 * ROWS
    assert (partners_of(KEYS[:1], PLACES[:1], 1, BOTH) == -1).all()
    assert (partners_of(KEYS, PLACES, ROWS, []) == -1).all()
    two = partners_of(KEYS, PLACES % 2, 2, [CutMix(type="cutmix", probability=1.0)])
    assert np.array_equal(two, 1 - PLACES % 2)
    assert mixings_of([Flip(type="flip"), *BOTH]) == BOTH


def test_a_rows_mixture_does_not_depend_on_its_neighbours() -> None:
    mixed = partners_of(KEYS, PLACES, ROWS, BOTH) >= 0
    whole = draw_mixtures(KEYS, mixed, BOTH, 32, 24)
    some = np.random.default_rng(0).permutation(ROWS)[:50]
    assert np.array_equal(draw_mixtures(KEYS[some], mixed[some], BOTH, 32, 24), whole[some])
    assert np.array_equal(
        partners_of(KEYS[some], PLACES[some], ROWS, BOTH), partners_of(KEYS, PLACES, ROWS, BOTH)[some]
    )


def test_parts_and_weights_are_what_the_papers_say() -> None:
    mixed = partners_of(KEYS, PLACES, ROWS, BOTH) >= 0
    mixtures = draw_mixtures(KEYS, mixed, BOTH, 32, 24)
    weights = weights_of_partners(mixtures, 32, 24)
    assert (weights[~mixed] == 0).all()
    assert ((weights >= 0) & (weights <= 1)).all()
    blended = mixed & (mixtures[:, 4] < 1)
    assert abs(blended.sum() / mixed.sum() - 0.3 / 0.8) < 0.05
    assert weights[blended].max() <= 0.5
    assert abs(weights[blended].mean() - 0.143) < 0.03  # of min(b, 1 - b), b ~ Beta(0.4, 0.4)
    cut = mixed & ~blended
    top, bottom, left, right, _ = mixtures[cut].T
    assert (top >= 0).all()
    assert (bottom <= 32).all()
    assert (left >= 0).all()
    assert (right <= 24).all()
    assert weights[cut] == pytest.approx((bottom - top) * (right - left) / (32 * 24))
    assert 0.3 < weights[cut].mean() < 0.5  # below Beta(1, 1)'s mean, for parts that stand out are cut off


def test_pixels_are_mixed_by_the_same_weights() -> None:
    mixed = np.ones(ROWS, bool)
    chosen = partners_of(KEYS, PLACES, ROWS, BOTH) >= 0
    mixtures = draw_mixtures(KEYS[chosen], mixed[chosen], BOTH, 16, 16)
    black, white = np.zeros((len(mixtures), 16, 16, 3), np.uint8), np.full((len(mixtures), 16, 16, 3), 255, np.uint8)
    done = mix_pixels(*map(torch.from_numpy, (black, white, mixtures))).numpy()
    assert done.mean((1, 2, 3)) / 255 == pytest.approx(weights_of_partners(mixtures, 16, 16), abs=0.003)
    nothing = mix_pixels(*map(torch.from_numpy, (white, black, np.zeros_like(mixtures)))).numpy()
    assert np.array_equal(nothing, white)


def test_partners_columns_are_null_where_there_is_none() -> None:
    rows = pa.table({"image": [b"a", b"b", b"c"], "label": ["x", "y", "z"]})
    partners = pa.table({"image": [b"c", b"a"], "label": ["z", "x"]})
    joined = with_partners(rows, partners, np.array([True, False, True]))
    assert joined["partner_image"].to_pylist() == [b"c", None, b"a"]
    assert joined["partner_label"].to_pylist() == ["z", None, "x"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("shapes"))


def mixed_inputs(folder: Path, where: str = "stream") -> RunInputs:
    listed = [MIXUP.model_dump(), CUTMIX.model_dump()]
    return prepared(folder, augmentation=listed, augmentation_on=where)


@pytest.mark.parametrize("where", ["stream", "device"])
@pytest.mark.parametrize("world_size", [2, 5])
def test_mixtures_do_not_depend_on_the_number_of_workers(folder: Path, where: str, world_size: int) -> None:
    inputs = mixed_inputs(folder, where)
    whole = pa.concat_tables(local_blocks(split_reader(inputs, "train", 1)))
    reader = replace(split_reader(inputs, "train", world_size), batch_size=7)
    split, parts = inputs.manifest.splits["train"], []
    for rank in range(world_size):
        blocks = epoch_blocks(split.rows, split.sizes, seed=0, epoch=0)
        batches = micro_batches(
            (table for block in blocks for table in reader.read(block, world_rank=rank)),
            schema=inputs.encoder.schema,
            rows_per_epoch=120,
            batch_size=7,
            epochs=1,
            world_rank=rank,
            world_size=world_size,
        )
        parts += [batch.table for batch in batches]
    assert pa.concat_tables(parts).sort_by("position").equals(whole)


def test_a_mixed_row_is_made_of_two_rows_of_the_dataset(folder: Path) -> None:
    plain, inputs = prepared(folder), mixed_inputs(folder)
    originals = pa.concat_tables(local_blocks(split_reader(plain, "train", 1)))
    table = pa.concat_tables(local_blocks(split_reader(inputs, "train", 1)))
    images, sources = pixels_of(table, "image", 32, 32), pixels_of(originals, "image", 32, 32)
    assert table["label"].equals(originals["label"])
    keys = row_keys(inputs.spec.seed, 0, np.arange(120))
    partners = partners_of(keys, np.arange(120), 120, BOTH)
    mixtures = draw_mixtures(keys, partners >= 0, BOTH, 32, 32)
    for row, (partner, mixture) in enumerate(zip(partners, mixtures, strict=True)):
        if partner < 0:
            assert np.array_equal(images[row], sources[row])
            continue
        top, bottom, left, right = mixture[:4].astype(int)
        expected = sources[row].astype(np.float32)
        part = expected[top:bottom, left:right]
        part += mixture[4] * (sources[partner][top:bottom, left:right] - part)
        assert np.abs(images[row] - expected.round()).max() <= 1
        assert table["partner_label"][row] == originals["label"][int(partner)]
    assert 60 < (partners >= 0).sum() < 120


def test_validation_rows_have_no_partner(folder: Path) -> None:
    table = pa.concat_tables(local_blocks(split_reader(mixed_inputs(folder), "validation", 1)))
    assert set(table["partner_weight"].to_pylist()) == {0.0}
    assert table["partner_label"].equals(table["label"])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_that_of_soft_targets(smoothing: float) -> None:
    rng = np.random.default_rng(4)
    labels, others = rng.integers(0, 6, (2, 20))
    weights = rng.random(20).astype(np.float32)
    model = Fixed(torch.randn(20, 6, generator=torch.Generator().manual_seed(1)))
    objective = ImageClassification(6, ImageEncoder(2, 2, tuple("abcdef"), mixes=True), smoothing=smoothing)
    columns = {"label": labels.astype(np.int32), "partner_label": others.astype(np.int32), "partner_weight": weights}
    table = pa.table({"image": pa.array([bytes(12)] * 20, pa.binary(12)), **columns})
    (batch,) = objective.collate(table, Cut(0, 20))
    soft = np.zeros((20, 6))
    for row in range(20):  # by hand
        soft[row, labels[row]] += 1 - weights[row]
        soft[row, others[row]] += weights[row]
    soft = (1 - smoothing) * soft + smoothing / 6
    expected = -(soft * model.given.log_softmax(-1).numpy()).sum()
    assert objective.loss_sum(model, batch).item() == pytest.approx(expected, rel=1e-5)
    assert objective.loss_sum(model, batch).item() == pytest.approx(
        functional.cross_entropy(model.given, torch.from_numpy(soft), reduction="sum").item(), rel=1e-5
    )
    assert objective.targets(batch) == 20


def test_a_twin_without_a_target_adds_nothing_to_a_mixed_loss() -> None:
    model = Fixed(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
    objective = ImageClassification(2, ImageEncoder(2, 2, ("a", "b"), mixes=True))
    columns: dict[str, Any] = {"label": [0], "partner_label": [1], "partner_weight": [0.25]}
    table = pa.table({"image": pa.array([bytes(12)], pa.binary(12)), **columns})
    (batch,) = objective.collate(table, Cut(0, 8))
    expected = 0.75 * np.log(1 + np.e) + 0.25 * np.log(1 + 1 / np.e)
    assert objective.loss_sum(model, batch).item() == pytest.approx(expected, rel=1e-6)


def test_a_damaged_partner_is_named_by_its_own_place(tmp_path: Path) -> None:
    rows = image_rows(40, seed=5)
    images = rows["image"].to_pylist()
    images[13] = images[13][: len(images[13]) // 2]  # its header is whole
    pq.write_table(pa.table({"image": images, "label": rows["label"]}), tmp_path / "train.parquet")
    pq.write_table(image_rows(8, seed=6), tmp_path / "validation.parquet")
    inputs = prepared(tmp_path, augmentation=[{"type": "cutmix", "probability": 1.0}])
    reader = split_reader(inputs, "train", 8)
    told = set()
    for rank in range(8):
        try:
            list(local_blocks(reader, world_rank=rank))
        except DataError as error:
            told.add(error.message.split(":")[0])
    assert told == {"row 13"}


def test_who_is_mixed_in_tells_nothing_of_how_rows_are_augmented() -> None:
    """Each draw has numbers of its own: a partner's distance, and whether the first augmentation changes the row."""
    keys, places = row_keys(3, 0, np.arange(2000)), np.arange(2000)
    found = partners_of(keys, places, 2000, [MixUp(type="mixup", probability=1.0)])
    near = (found - places) % 2000 < 1000
    images = np.tile(np.arange(8, dtype=np.uint8)[None, None, :, None], (2000, 8, 1, 3))
    flipped = (augment_images(images, keys, [Flip(type="flip", probability=0.5)]) != images).any((1, 2, 3))
    assert 0.4 < flipped.mean() < 0.6
    assert abs(np.corrcoef(near, flipped)[0, 1]) < 0.1
