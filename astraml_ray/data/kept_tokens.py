"""Tokens kept on this machine, so that later epochs, evaluations and trials neither read nor tokenise again.

A table per fragment, addressed by all that its tokens follow from: the object's ETag, the rows, the encoder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from astraml_ray.data.encoding.encoder import Encoder
from astraml_ray.data.encoding.schema import HEAD
from astraml_ray.data.encoding.text import TextEncoder
from astraml_ray.data.encoding.words import WordEncoder
from astraml_ray.data.formats import sources_of, unplaced
from astraml_ray.data.keep import MOST_BYTES, Keep
from astraml_ray.data.manifest import Manifest, Split
from astraml_ray.data.rows import read_rows
from astraml_ray.spec.augmentation import Augmentation

__all__ = ["TokenKeep", "classes_of", "token_keep", "tokenised", "widened"]

_TOKENS_PER_BYTE = 0.75  # of the bytes of a text, what its tokens take, at most as a rule
_VERSION = 2


def token_keep(
    encoder: Encoder, split: Split, augmentations: Sequence[Augmentation], folder: Path, *, reads: int
) -> TokenKeep | None:
    """Where tokens are kept, or None where that brings nothing.

    Args:
        encoder: Of the run. What is masked is masked anew at each reading: see TextEncoder.masked.
        split: What is read.
        augmentations: Of its rows; changed rows are tokenised every time.
        folder: For all tokens of this machine.
        reads: How often the split is read.
    """
    fixed = isinstance(encoder, (TextEncoder, WordEncoder))
    fits = sum(split.sizes) * _TOKENS_PER_BYTE <= MOST_BYTES / 2
    return TokenKeep(folder) if fixed and fits and not augmentations and reads > 1 else None


@dataclass(frozen=True)
class TokenKeep:
    """A folder of tokens, a table per fragment.

    Attributes:
        folder: See keep.Keep.
        most_bytes: See keep.Keep.
    """

    folder: Path
    most_bytes: int = MOST_BYTES

    def rows(self, manifest: Manifest, split: Split, index: int, encoder: Encoder) -> pa.Table:
        """The rows of a fragment, in file order, tokenised, without HEAD's columns; whole numbers are narrow.

        Raises:
            DataError: As read_rows.
        """

        def make() -> pa.Table:
            rows = read_rows(manifest, split, index)
            return _narrow(tokenised(encoder, rows, np.arange(rows.num_rows)))

        return self._keep.get_or_make(_address(manifest, split, index, encoder), make)

    def has(self, manifest: Manifest, split: Split, index: int, encoder: Encoder) -> bool:
        """Whether the tokens of a fragment are kept."""
        return self._keep.has(_address(manifest, split, index, encoder))

    def put(self, manifest: Manifest, split: Split, index: int, encoder: Encoder, table: pa.Table) -> None:
        """Keeps a fragment's tokens, which were made elsewhere; the table is as of `tokenised`, in file order."""
        self._keep.put(_address(manifest, split, index, encoder), _narrow(table))

    @contextlib.contextmanager
    def claimed(self, manifest: Manifest, split: Split, fragments: Sequence[int], encoder: Encoder) -> Iterator[None]:
        """Others wait for the tokens of these fragments, unless they are waiting for somebody else's already."""
        with contextlib.ExitStack() as stack:
            for index in fragments:
                stack.enter_context(self._keep.claimed(_address(manifest, split, index, encoder)))
            yield

    @property
    def _keep(self) -> Keep:
        return Keep(self.folder, "tokens", self.most_bytes)


def tokenised(encoder: Encoder, rows: pa.Table, positions: npt.NDArray[np.int64]) -> pa.Table:
    """Rows that are not augmented as an encoder's table, before anything is masked."""
    encode = encoder.tokenised if isinstance(encoder, TextEncoder) else encoder.encode
    return encode(rows, positions, np.zeros(rows.num_rows, np.uint64))


def widened(tables: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    """Tables of kept tokens as one, of the encoder's types."""
    body = pa.schema(list(schema)[len(HEAD) :])
    return pa.concat_tables([table.cast(body) for table in tables])


def classes_of(table: pa.Table) -> npt.NDArray[np.int64]:
    """The class id of each row of kept tokens of text-classification."""
    ids: npt.NDArray[np.int64] = pc.list_flatten(table["labels"]).to_numpy().astype(np.int64)
    return ids


def _address(manifest: Manifest, split: Split, index: int, encoder: Encoder) -> str:
    fragment = split.fragments[index]
    kind = manifest.formats[fragment.source]
    left_out = split.left_out[index] if split.left_out else ()
    key = {
        "version": _VERSION,
        "objects": [asdict(info) for info in sources_of(manifest.objects, fragment, kind)],
        "fragment": asdict(unplaced(fragment, kind)),
        "read_as": [kind, manifest.columns, manifest.target],
        "rows": [split.side, manifest.threshold if split.side != "all" else 0, split.rows[index], list(left_out)],
        "encoder": _digest_of(encoder),
    }
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def _digest_of(encoder: Encoder) -> str:
    """Of what tokens follow from. Nothing is augmented, so lexicons are no part of it."""
    values = vars(encoder)
    return _digest(type(encoder).__name__, tuple((name, values[name]) for name in sorted(values) if name != "lexicons"))


@lru_cache(maxsize=8)
def _digest(kind: str, values: Hashable) -> str:
    """An encoder may hold megabytes of a tokenizer."""
    return hashlib.sha256(json.dumps([kind, values]).encode()).hexdigest()


def _narrow(table: pa.Table) -> pa.Table:
    """Without HEAD's columns, and lists of whole numbers in the fewest bytes that hold them."""
    body = table.drop_columns([field.name for field in HEAD])
    return pa.table({name: _narrow_column(body[name]) for name in body.column_names})


def _narrow_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if not pa.types.is_list(kind) or not pa.types.is_integer(kind.value_type):
        return column
    bounds = pc.min_max(pc.list_flatten(column)).as_py()
    least, most = bounds["min"] or 0, bounds["max"] or 0
    if least < 0:
        return column
    return column.cast(pa.list_(pa.uint16() if most < 1 << 16 else pa.uint32()))
