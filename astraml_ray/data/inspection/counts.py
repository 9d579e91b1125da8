"""Counts of a split's rows: texts, their lengths, and labels."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from astraml_ray.data.encoding.pixels import header_of
from astraml_ray.data.inspection.lengths import LengthTally
from astraml_ray.data.prepare import numeric_first
from astraml_ray.data.scan import MAX_CLASSES

__all__ = ["SplitTally"]

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
Counts = npt.NDArray[np.int64]


class SplitTally:
    """Counts the rows of one split, batch by batch."""

    def __init__(self) -> None:
        self.rows = self.null_texts = self.blank_texts = self.null_labels = self.blank_labels = 0
        self.characters, self.words = LengthTally(), LengthTally()
        self.classes: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.more_classes = False
        self.refused: dict[str, str] = {}
        self.unreadable = 0
        self.formats: Counter[str] = Counter()
        self.widths, self.heights, self.sizes = LengthTally(), LengthTally(), LengthTally()

    def add(
        self, texts: pa.ChunkedArray, words: Counts, labels: pa.ChunkedArray | None, kind: pa.DataType | None
    ) -> None:
        """Counts a batch.

        Args:
            texts: Strings; may have nulls.
            words: Of each text; 0 for a null.
            labels: Strings; may have nulls.
            kind: The labels' type before they became strings.
        """
        self.rows += len(texts)
        self.null_texts += texts.null_count
        self.blank_texts += int((words == 0).sum()) - texts.null_count
        self.words.add(words[np.asarray(texts.is_valid())])
        self.characters.add(np.asarray(pc.utf8_length(texts.drop_null()), np.int64))
        if labels is not None:
            self._count_labels(labels, kind)

    def add_images(self, images: pa.ChunkedArray, labels: pa.ChunkedArray | None, kind: pa.DataType | None) -> None:
        """Counts a batch of encoded images; of each only what its header claims is read."""
        self.rows += len(images)
        self.null_texts += images.null_count
        found = [header_of(image.as_buffer()) for image in images if image.is_valid]
        good = [header for header in found if header is not None]
        self.unreadable += len(found) - len(good)
        self.formats.update(header.format for header in good)
        self.widths.add(np.array([header.width for header in good], np.int64))
        self.heights.add(np.array([header.height for header in good], np.int64))
        self.sizes.add(np.asarray(pc.binary_length(images.drop_null()), np.int64))
        if labels is not None:
            self._count_labels(labels, kind)

    def _count_labels(self, labels: pa.ChunkedArray, kind: pa.DataType) -> None:
        self.null_labels += labels.null_count
        for found in pc.value_counts(labels.drop_null()).to_pylist():
            label, count = found["values"], found["counts"]
            self.kinds[_kind_of(label, kind)] += count
            self.blank_labels += count if not label.strip() else 0
            if label in self.classes or len(self.classes) < MAX_CLASSES:
                self.classes[label] += count
            else:
                self.more_classes = True

    def text_facts(self) -> dict[str, Any]:
        """`null`, `blank`, and the lengths of the others."""
        lengths = {"characters": self.characters.as_dict(), "words": self.words.as_dict()}
        return {"null": self.null_texts, "blank": self.blank_texts, **lengths}

    def image_facts(self) -> dict[str, Any]:
        """`unreadable`, `formats`, `width`, `height` and `bytes`."""
        lengths = {"width": self.widths, "height": self.heights, "bytes": self.sizes}
        return {
            "unreadable": self.unreadable,
            "formats": dict(self.formats.most_common()),
            **{name: tally.as_dict() for name, tally in lengths.items()},
        }

    def label_facts(self, everywhere: set[str], trained: set[str]) -> dict[str, Any]:
        """`null`, `blank`, `types`, `classes`, `largest`, and which classes are missing or in no training row.

        Args:
            everywhere: The classes of all splits.
            trained: Those of the training rows.
        """
        counts = {name: self.classes[name] for name in sorted(self.classes, key=numeric_first)}
        largest = max(counts, key=lambda name: counts[name], default=None)
        total = sum(counts.values())
        return {
            "null": self.null_labels,
            "blank": self.blank_labels,
            "types": dict(self.kinds.most_common()),
            "classes": counts,
            "more_classes": self.more_classes,
            "largest": None if largest is None else {"class": largest, "share": counts[largest] / total},
            "missing": sorted(everywhere - set(counts), key=numeric_first),
            "untrained": sorted(set(counts) - trained, key=numeric_first),
        }


def _kind_of(label: str, kind: pa.DataType) -> str:
    """What a label is, as training sees it: a number as text and one as such make the same class."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or _NUMBER.fullmatch(label.strip()):
        return "number"
    return "text" if pa.types.is_string(kind) or pa.types.is_large_string(kind) else "other"
