"""Shared fixtures: a real S3 server, small datasets, one cache folder per session."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from astraml_ray.cli.s3_server import S3Server, serve_s3


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--requests", type=int, default=5_000, help="malformed requests that the API is sent")


_WORDS = {"fruit": "apple pear plum fig melon", "metal": "iron zinc copper tin lead", "bird": "owl crow finch wren jay"}


def word_rows(count: int, *, seed: int = 0) -> pa.Table:
    """Texts of 3 to 14 words that tell their class."""
    rng = random.Random(seed)
    labels = [rng.choice(sorted(_WORDS)) for _ in range(count)]
    texts = [
        " ".join(
            [
                *rng.choices(_WORDS[label].split(), k=rng.randint(1, 4)),
                *rng.choices(["the", "a", "of", "and"], k=rng.randint(2, 10)),
                f"n{i}",
            ]
        )
        for i, label in enumerate(labels)
    ]
    return pa.table({"text": texts, "label": labels})


def write_dataset(folder: Path, *, rows: int = 200, group: int = 40) -> Path:
    """train, validation and test as Parquet."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(word_rows(rows, seed=1), folder / "train.parquet", row_group_size=group)
    pq.write_table(word_rows(60, seed=2), folder / "validation.parquet")
    pq.write_table(word_rows(50, seed=3), folder / "test.parquet")
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "words")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server; the AWS variables lead to it."""
    folder = tmp_path_factory.mktemp("s3")
    (folder / "bucket").mkdir()
    with serve_s3(folder) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="session")
def translators(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of two models that translate some words there and back; see tests/translation.py."""
    from tests.translation import train_translators  # torch takes seconds, and most tests need none

    return train_translators(tmp_path_factory.mktemp("translators"))


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASTRAML_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
