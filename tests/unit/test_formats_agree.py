"""The same rows train the same model whatever format holds them: prepared alike, in one order, encoded alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from astraml_ray.data.formats import Bounds
from astraml_ray.data.microbatches import local_blocks
from astraml_ray.settings import load_settings
from astraml_ray.spec.loading import parse_spec
from astraml_ray.training.preparation import RunInputs, prepare
from astraml_ray.training.worker import split_reader
from tests.conftest import word_rows
from tests.unit.format_files import WRITERS, save_to_disk, webdataset
from tests.unit.images import image_rows

WORDS = word_rows(150)
IMAGES = image_rows(40, seed=3).sort_by("label")
SPLITS = ("train", "validation")


def inputs_of(folder: Path, **fields: Any) -> RunInputs:
    return prepare(parse_spec({"dataset": str(folder), **fields}), load_settings())[0]


def rows_of(inputs: RunInputs) -> list[pa.Table]:
    """Two epochs of training, and the validation set, as the model takes them."""
    return [
        pa.concat_tables(local_blocks(split_reader(inputs, split, 1), epochs=1 + (split == "train")))
        for split in SPLITS
    ]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> RunInputs:
    folder = tmp_path_factory.mktemp("words")
    pq.write_table(WORDS, folder / "train.parquet")
    return inputs_of(folder, model="tiny-bert", augmentation="medium")


@pytest.mark.parametrize("size", [1000, 8 << 20])
@pytest.mark.parametrize("name", WRITERS)
def test_texts_of_every_format_train_alike(
    name: str, size: int, words: RunInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokenizer, validation rows, order, augmentation and tokens, into however many fragments it is cut."""
    monkeypatch.setattr(Bounds, "fragment", size)
    folder = tmp_path / "d"
    folder.mkdir()
    WRITERS[name](WORDS, folder / f"train.{name}")
    inputs = inputs_of(folder, model="tiny-bert", augmentation="medium")
    assert inputs.encoder == words.encoder
    for mine, theirs in zip(rows_of(inputs), rows_of(words), strict=True):
        assert mine.equals(theirs)


def _folder(table: pa.Table, path: Path) -> None:
    for place, row in enumerate(table.to_pylist()):
        file = path / "train" / row["label"] / f"{place:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(row["image"])


def _shards(table: pa.Table, path: Path) -> None:
    rows = table.to_pylist()
    for start in (0, 25):
        part = enumerate(rows[start : start + 25] if not start else rows[25:], start)
        samples = [(f"{place:04d}", {"png": row["image"], "cls": row["label"].encode()}) for place, row in part]
        (path / f"train-{start:05d}.tar").write_bytes(webdataset(samples))


def _embedded(table: pa.Table, path: Path) -> None:
    """As Hugging Face writes images into Parquet: a struct of bytes and path."""
    structs = pa.array([{"bytes": row["image"], "path": None} for row in table.to_pylist()])
    pq.write_table(table.set_column(0, "image", structs), path / "train.parquet", row_group_size=9)


def _saved(table: pa.Table, path: Path) -> None:
    names = sorted(set(table["label"].to_pylist()))
    kinds = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    structs = pa.array([{"bytes": row["image"], "path": None} for row in table.to_pylist()])
    ids = pa.array([names.index(row["label"]) for row in table.to_pylist()], pa.int64())
    save_to_disk(pa.table({"image": structs, "label": ids}), path / "train", features=kinds)


@pytest.mark.parametrize("write", [_folder, _shards, _embedded, _saved])
def test_images_of_every_format_train_alike(write: Any, tmp_path: Path) -> None:
    """An image folder lists its images class by class, so the others hold them in that order."""
    fields = {"model": {"name": "vit-tiny"}, "augmentation": [{"type": "mixup", "alpha": 0.4, "probability": 0.5}]}
    found = []
    for place, writer in enumerate((lambda table, path: pq.write_table(table, path / "train.parquet"), write)):
        folder = tmp_path / str(place)
        folder.mkdir()
        writer(IMAGES, folder)
        spec = parse_spec({**fields, "dataset": {"path": str(folder), "validation_fraction": 0.2}})
        found.append(prepare(spec, load_settings())[0])
    assert found[0].encoder == found[1].encoder
    for mine, theirs in zip(rows_of(found[1]), rows_of(found[0]), strict=True):
        assert mine.equals(theirs)
