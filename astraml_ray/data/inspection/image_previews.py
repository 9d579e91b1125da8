"""Training images before and after augmentation, as files: the same rows as a run with that seed trains on them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from astraml_ray.data.blocks import BlockReader, row_of
from astraml_ray.data.encoding.images import ImageEncoder, pixels_of
from astraml_ray.data.plan import Block, run_blocks

__all__ = ["Picture", "RowPreview", "preview_images"]

_LOSSLESS_SIDE = 64
_QUALITY = 90
Pixels = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Picture:
    """What a row is in an epoch.

    Attributes:
        epoch: From 0.
        position: In the epoch's global order.
        pixels: (height, width, 3).
        partner_label: The class of the image that is mixed in, if one is.
        partner_weight: Its share of the target.
    """

    epoch: int
    position: int
    pixels: Pixels = field(repr=False)
    partner_label: str | None = None
    partner_weight: float = 0.0

    def file(self) -> tuple[str, bytes]:
        """Its media type and bytes: PNG where it is small, else JPEG."""
        kind = "PNG" if max(self.pixels.shape[:2]) <= _LOSSLESS_SIDE else "JPEG"
        written = io.BytesIO()
        Image.fromarray(self.pixels).save(written, kind, quality=_QUALITY)
        return f"image/{kind.lower()}", written.getvalue()


@dataclass(frozen=True)
class RowPreview:
    """A row before and after.

    Attributes:
        label: Its class.
        before: Only brought to the size that is trained on.
        after: In each epoch that has it.
    """

    label: str
    before: Picture
    after: tuple[Picture, ...]


def preview_images(
    reader: BlockReader, *, rows: int, draws: int = 1, progress: Callable[[int], None] | None = None
) -> list[RowPreview]:
    """The first rows of epoch 0, and what is made of each of them in epoch after epoch.

    Args:
        reader: Of the training rows; its encoder is one of images, whose rows are augmented in data tasks.
        rows: How many.
        draws: Epochs, from 0 on. Later ones read every block that has one of the rows.
        progress: Told each epoch before it is read.

    Raises:
        DataError: An image cannot be read.
    """
    found: list[tuple[str, Picture, list[Picture]]] = []
    plain = _plain(reader)
    wanted: dict[tuple[int, int], list[int]] = {}
    loaded = _Loaded(reader)
    for epoch in range(draws):
        if progress is not None:
            progress(epoch)
        for block in _blocks(reader, epoch):
            if not epoch:
                places = np.arange(min(block.rows, rows - len(found)), dtype=np.int64)
                table, order = loaded.of(block)
                labels = table["label"].take(pa.array(order[places])).to_pylist()
                before = _pictures(plain, block, table, order, places)
                after = _pictures(reader, block, table, order, places)
                for place, label, *both in zip(places.tolist(), labels, before, after, strict=True):
                    row = row_of(reader.split, block, int(order[place]))
                    wanted.setdefault(row, []).append(len(found))
                    found.append((label, both[0], [both[1]]))
                if len(found) >= rows:
                    break
                continue
            if not {fragment for fragment, _ in wanted} & set(block.fragments):
                continue
            table, order = loaded.of(block)
            index = {_index(reader, block, row): row for row in wanted if row[0] in block.fragments}
            places = np.flatnonzero(np.isin(order, list(index)))
            for place, picture in zip(places.tolist(), _pictures(reader, block, table, order, places), strict=True):
                for number in wanted[index[int(order[place])]]:
                    if found[number][2][-1].epoch < epoch:  # a sampler may draw a row twice
                        found[number][2].append(picture)
    return [RowPreview(label, before, tuple(after)) for label, before, after in found]


class _Loaded:
    """The last block read: a dataset of one block is read once, whatever the epochs."""

    def __init__(self, reader: BlockReader) -> None:
        self._reader = reader
        self._fragments: tuple[int, ...] = ()
        self._table: pa.Table | None = None

    def of(self, block: Block) -> tuple[pa.Table, Places]:
        if self._reader.sampler is None and self._table is not None and self._fragments == block.fragments:
            return self._table, self._reader.order(block)
        self._table, order = self._reader.ordered(block)
        self._fragments = block.fragments
        return self._table, order


def _plain(reader: BlockReader) -> BlockReader:
    encoder = reader.encoder
    assert isinstance(encoder, ImageEncoder)
    assert not encoder.on_device
    return replace(reader, augmentations=(), encoder=replace(encoder, mixes=False))


def _blocks(reader: BlockReader, epoch: int) -> Iterator[Block]:
    split = reader.split
    return run_blocks(
        split.rows, split.sizes, seed=reader.seed, epochs=epoch + 1, start_epoch=epoch, sampler=reader.sampler
    )


def _pictures(reader: BlockReader, block: Block, table: pa.Table, order: Places, places: Places) -> list[Picture]:
    encoder: Any = reader.encoder
    encoded = reader.encode(block, table, order, places + block.start)
    pixels = pixels_of(encoded, "image", encoder.height, encoder.width)
    names: list[str | None] = [None] * len(places)
    weights = [0.0] * len(places)
    if encoder.mixes:
        weights = encoded["partner_weight"].to_pylist()
        labels = encoded["partner_label"].to_pylist()
        names = [encoder.classes[label] if weight else None for label, weight in zip(labels, weights, strict=True)]
    positions = (places + block.start).tolist()
    made = zip(positions, pixels, names, weights, strict=True)
    return [Picture(block.epoch, position, image, name, weight) for position, image, name, weight in made]


def _index(reader: BlockReader, block: Block, row: tuple[int, int]) -> int:
    """The reverse of row_of."""
    fragments = list(dict.fromkeys(block.fragments))
    return sum(reader.split.rows[one] for one in fragments[: fragments.index(row[0])]) + row[1]
