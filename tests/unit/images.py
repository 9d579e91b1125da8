"""Small generated images whose shape tells their class, as Parquet."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SHAPES = ("bars", "columns", "disc")


def drawing(shape: str, rng: np.random.Generator, side: int = 32) -> npt.NDArray[np.uint8]:
    """A shape in any colour on any ground, (side, side, 3)."""
    y, x = np.mgrid[:side, :side]
    phase = int(rng.integers(8))
    centre = rng.integers(side // 3, 2 * side // 3, 2)
    mask = {
        "bars": (y + phase) % 8 < 4,
        "columns": (x + phase) % 8 < 4,
        "disc": (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < (side // 4) ** 2,
    }[shape]
    front, ground = rng.integers(0, 256, (2, 3))
    front = np.where(np.abs(front - ground).max() < 96, (ground + 128) % 256, front)
    return np.where(mask[..., None], front, ground).astype(np.uint8)


def encoded(pixels: npt.NDArray[np.uint8], kind: str = "PNG") -> bytes:
    """The bytes of a file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def image_rows(count: int, *, seed: int) -> pa.Table:
    """Rows of an image and its shape's name."""
    rng = np.random.default_rng(seed)
    labels = [SHAPES[i] for i in rng.integers(0, len(SHAPES), count)]
    return pa.table({"image": [encoded(drawing(label, rng)) for label in labels], "label": labels})


def write_images(folder: Path, *, rows: int = 120, group: int = 30) -> Path:
    """train, validation and test."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(image_rows(rows, seed=1), folder / "train.parquet", row_group_size=group)
    pq.write_table(image_rows(48, seed=2), folder / "validation.parquet")
    pq.write_table(image_rows(40, seed=3), folder / "test.parquet")
    return folder
