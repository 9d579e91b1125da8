"""From encoded images and classes to pixels of one size, one byte a channel; the worker's device does the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from astraml_ray.data.encoding.pixels import UnreadableImage, decode_image
from astraml_ray.data.encoding.schema import HEAD, IGNORED, RowError, head
from astraml_ray.data.images.mixing import draw_mixtures, mixings_of, weights_of_partners
from astraml_ray.spec.augmentation import Augmentation

__all__ = ["ImageEncoder", "pixels_of"]


@dataclass(frozen=True)
class ImageEncoder:
    """Decodes images; see encoder.Encoder.

    Attributes:
        height: Of what the model takes, in pixels.
        width: Of the same.
        classes: The class names, in the order of their ids.
        mean: Of each channel, from 0 to 1: subtracted on the device.
        std: Of each channel: divided by on the device.
        short_edge: To which the shorter side is brought before the centre is cut out; None stretches.
        resample: Pillow's filter.
        mixes: Rows may be mixed with others.
        on_device: Rows are augmented, and mixed, where they are trained on: they carry what that takes.
    """

    height: int
    width: int
    classes: tuple[str, ...]
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    short_edge: int | None = None
    resample: int = 2
    mixes: bool = False
    on_device: bool = False

    @property
    def schema(self) -> pa.Schema:
        pixels = pa.binary(self.height * self.width * 3)
        fields = [*HEAD, pa.field("image", pixels), pa.field("label", pa.int32())]
        if self.mixes:
            fields += [pa.field("partner_label", pa.int32()), pa.field("partner_weight", pa.float32())]
        if self.on_device:
            fields.append(pa.field("key", pa.uint64()))  # null where nothing is to be augmented
        if self.mixes and self.on_device:
            fields += [pa.field("partner_image", pixels), pa.field("mixture", pa.list_(pa.float32(), 5))]
        return pa.schema(fields)

    @property
    def row_bytes(self) -> int:
        return self.height * self.width * 3 * (2 if self.mixes and self.on_device else 1)

    def encode(
        self,
        rows: pa.Table,
        positions: npt.NDArray[np.int64],
        keys: npt.NDArray[np.uint64],
        augmentations: Sequence[Augmentation] = (),
    ) -> pa.Table:
        images, labels = self.decode(rows["image"]), self._class_ids(rows["label"])
        mixed = np.zeros(len(images), bool)
        partners = partner_labels = None
        if "partner_image" in rows.column_names:
            mixed = rows["partner_image"].is_valid().to_numpy()
            partners = self.decode(rows["partner_image"], partner=True)
            partner_labels = self._class_ids(rows["partner_label"])
        mixtures = draw_mixtures(keys, mixed, mixings_of(augmentations), self.height, self.width)
        if augmentations and not self.on_device:
            from astraml_ray.data.images.augmentation import augment_and_mix  # needs torch

            images = augment_and_mix(images, keys, augmentations, partners, mixtures)
        columns = [*head(positions), _binary(images), pa.array(labels)]
        if self.mixes:
            columns.append(pa.array(labels if partner_labels is None else np.where(mixed, partner_labels, labels)))
            columns.append(pa.array(weights_of_partners(mixtures, self.height, self.width)))
        if self.on_device:
            columns.append(pa.array(keys) if augmentations else pa.nulls(len(images), pa.uint64()))
        if self.mixes and self.on_device:
            columns.append(_binary(np.zeros_like(images) if partners is None else partners))
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(mixtures.ravel()), 5))
        return pa.table(columns, schema=self.schema)

    def decode(self, column: pa.ChunkedArray, *, partner: bool = False) -> npt.NDArray[np.uint8]:
        """The pixels of a column of encoded images, (rows, height, width, 3); of nulls they are zeros.

        Raises:
            RowError: An image cannot be read.
        """
        images = np.zeros((len(column), self.height, self.width, 3), np.uint8)
        for row, data in enumerate(column):
            if not data.is_valid:
                continue
            try:
                images[row] = decode_image(
                    data.as_py(), self.height, self.width, short_edge=self.short_edge, resample=self.resample
                )
            except UnreadableImage as error:
                raise RowError(row, f"the image {error}", partner=partner) from error
        return images

    def _class_ids(self, labels: pa.ChunkedArray) -> npt.NDArray[np.int32]:
        ids: dict[str | None, int] = {name: index for index, name in enumerate(self.classes)}
        return np.array([ids[label] if label is not None else IGNORED for label in labels.to_pylist()], np.int32)


def pixels_of(rows: pa.Table, name: str, height: int, width: int) -> npt.NDArray[np.uint8]:
    """The pixels in an encoded table, (rows, height, width, 3), read-only and not copied where they lie together."""
    column = rows[name].combine_chunks()
    column = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
    if not len(column):
        return np.zeros((0, height, width, 3), np.uint8)
    size = height * width * 3
    values = np.frombuffer(column.buffers()[1], np.uint8, len(column) * size, column.offset * size)
    return values.reshape(len(column), height, width, 3)


def _binary(images: npt.NDArray[np.uint8]) -> pa.Array:
    count, size = len(images), images[0].size if len(images) else images.shape[1] * images.shape[2] * 3
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(size), count, [None, pa.py_buffer(images)])
