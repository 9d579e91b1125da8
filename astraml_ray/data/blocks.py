"""Reads a block of the plan: fragments → global order → augmentation → encoded rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from astraml_ray.data.encoding.encoder import Encoder
from astraml_ray.data.encoding.schema import RowError, head
from astraml_ray.data.encoding.text import TextEncoder
from astraml_ray.data.images.mixing import mixings_of, partners_of
from astraml_ray.data.kept_tokens import TokenKeep, classes_of, tokenised, widened
from astraml_ray.data.keyed import row_keys
from astraml_ray.data.manifest import Manifest, Split
from astraml_ray.data.partners import partners, with_partners
from astraml_ray.data.plan import Block, Positions, block_parts, owned_by, permutation
from astraml_ray.data.rows import read_rows, row_place
from astraml_ray.data.sampling import Sampler
from astraml_ray.data.translation.keep import TranslationKeep
from astraml_ray.errors import DataError
from astraml_ray.spec.augmentation import Augmentation
from astraml_ray.spec.text_augmentation import MixTexts

__all__ = ["BlockReader", "row_of", "rows_of_block", "rows_with_partners"]


@dataclass(frozen=True)
class BlockReader:
    """Everything a task needs to turn a block into encoded rows; plain data.

    Attributes:
        manifest: What is read.
        split: Of it, which rows.
        encoder: What the model takes of them.
        seed: Of the run.
        batch_size: Rows of a global batch.
        world_size: Workers that share each batch.
        augmentations: Of training rows.
        shuffle: False for validation and test.
        sampler: Draws the training rows, where their classes are to be balanced or weighted.
        keep: Where tokens are kept, if they are; what is augmented has none.
        translations: Where the texts' translations are, if an augmentation takes them.
    """

    manifest: Manifest
    split: Split
    encoder: Encoder
    seed: int
    batch_size: int
    world_size: int
    augmentations: tuple[Augmentation, ...] = ()
    shuffle: bool = True
    sampler: Sampler | None = None
    keep: TokenKeep | None = None
    translations: TranslationKeep | None = None

    def read(
        self, block: Block, *, world_rank: int | None = None, start_row: int = 0, growing: bool = False, done: int = 0
    ) -> Iterator[pa.Table]:
        """A block's rows, in order, part after part, as tables of the encoder's schema.

        Args:
            block: From the plan.
            world_rank: Only the rows of this worker; None is those of all.
            start_row: Positions of the epoch before it are left out (a resumed run).
            growing: See plan.block_parts.
            done: So many parts are left out: who has them goes on after an error.
        """
        split, size = self.split, self.batch_size
        parts = block_parts(
            block,
            split.sizes,
            batch_size=size,
            world_size=self.world_size,
            row_bytes=self.encoder.row_bytes,
            start_row=start_row,
            growing=growing,
        )
        parts = islice(parts, done, None)
        if world_rank is not None:
            parts = (part[owned_by(part, size, world_rank, self.world_size)] for part in parts)
        everything = start_row <= block.start and not done and (world_rank is None or self.world_size == 1)
        if self.keep is None:
            table, order = self.ordered(block)
            yield from (self.encode(block, table, order, part) for part in parts)
        elif growing and everything and self.sampler is None and not self._is_kept(self.keep, block):
            yield from self._making(self.keep, block, parts)
        else:
            yield from self._kept(self.keep, block, parts)

    def ordered(self, block: Block) -> tuple[pa.Table, npt.NDArray[np.int64]]:
        """The rows of a block's fragments, and which of them stands at each of the block's positions."""
        table, drawn = rows_of_block(self.manifest, self.split, block, self.sampler, self.translations)
        return table, drawn[self.order(block)]

    def order(self, block: Block) -> npt.NDArray[np.int64]:
        """The permutation of a block's rows."""
        return permutation(block, self.seed) if self.shuffle else np.arange(block.rows)

    def encode(
        self, block: Block, table: pa.Table, order: npt.NDArray[np.int64], positions: npt.NDArray[np.int64]
    ) -> pa.Table:
        """Rows of a block as they are trained on.

        Args:
            block: From the plan.
            table: See ordered.
            order: See ordered.
            positions: Of the rows, in the epoch.
        """
        keys = row_keys(self.seed, block.epoch, positions)
        rows, places = rows_with_partners(table, order, positions - block.start, keys, self.augmentations)
        try:
            return self.encoder.encode(rows, positions, keys, self.augmentations)
        except RowError as error:
            index = order[places[error.row] if error.partner else positions[error.row] - block.start]
            raise _unreadable(self.manifest, self.split, block, int(index), error.reason) from error

    def _is_kept(self, keep: TokenKeep, block: Block) -> bool:
        return all(keep.has(self.manifest, self.split, fragment, self.encoder) for fragment in block.fragments)

    def _making(self, keep: TokenKeep, block: Block, parts: Iterable[Positions]) -> Iterator[pa.Table]:
        """The rows of a block whose tokens are not kept yet: they come as they are made, and are kept at the end."""
        with keep.claimed(self.manifest, self.split, block.fragments, self.encoder):
            table, order = self.ordered(block)
            made = []
            for positions in parts:
                rows = table.take(pa.array(order[positions - block.start]))
                made.append(tokenised(self.encoder, rows, positions))
                yield self._masked(made[-1], block, positions)
            del table
            whole = pa.concat_tables(made).take(pa.array(np.argsort(order)))
            start = 0
            for fragment in block.fragments:
                rows = whole.slice(start, self.split.rows[fragment])
                keep.put(self.manifest, self.split, fragment, self.encoder, rows)
                start += self.split.rows[fragment]

    def _kept(self, keep: TokenKeep, block: Block, parts: Iterable[Positions]) -> Iterator[pa.Table]:
        """The same, from tokens that are kept."""
        fragments, schema, order = list(dict.fromkeys(block.fragments)), self.encoder.schema, self.order(block)
        tables = [keep.rows(self.manifest, self.split, fragment, self.encoder) for fragment in fragments]
        if self.sampler is not None:
            order = _drawn(self.sampler, block, fragments, [classes_of(table) for table in tables])[order]
        whole = widened(tables, schema).combine_chunks()
        for positions in parts:
            body = whole.take(pa.array(order[positions - block.start]))
            table = pa.table([*head(positions), *body.columns], schema=schema)
            yield self._masked(table, block, positions)

    def _masked(self, table: pa.Table, block: Block, positions: Positions) -> pa.Table:
        if isinstance(self.encoder, TextEncoder):
            return self.encoder.masked(table, row_keys(self.seed, block.epoch, positions))
        return table


def rows_of_block(
    manifest: Manifest,
    split: Split,
    block: Block,
    sampler: Sampler | None = None,
    translations: TranslationKeep | None = None,
) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """The rows of a block's fragments, not yet augmented, and which of them the block has, before its permutation."""
    fragments = list(dict.fromkeys(block.fragments))
    tables = [read_rows(manifest, split, fragment) for fragment in fragments]
    if translations is not None:
        tables = [
            translations.with_candidates(manifest, split, fragment, rows)
            for fragment, rows in zip(fragments, tables, strict=True)
        ]
    whole = pa.concat_tables(tables).combine_chunks()  # to take rows of chunks would join them each time
    if sampler is None:
        return whole, np.arange(block.rows, dtype=np.int64)
    names = pa.array(manifest.labels, pa.string())
    classes = [pc.index_in(table["label"], names).to_numpy().astype(np.int64) for table in tables]
    return whole, _drawn(sampler, block, fragments, classes)


def _drawn(
    sampler: Sampler, block: Block, fragments: Sequence[int], classes: Sequence[npt.NDArray[np.int64]]
) -> npt.NDArray[np.int64]:
    """Which rows a block has, by their places in its different fragments, one after the other.

    Args:
        sampler: Of the run.
        block: From its plan.
        fragments: The block's, each once.
        classes: Class ids of the rows of each of those.
    """
    starts = dict(zip(fragments, np.cumsum([0, *(len(part) for part in classes)]).tolist(), strict=False))
    by_fragment = dict(zip(fragments, classes, strict=True))
    drawn = [
        starts[fragment] + sampler.drawn(block.epoch, fragment, visit, by_fragment[fragment])
        for fragment, visit in zip(block.fragments, block.visits, strict=True)
    ]
    return np.concatenate(drawn)


def rows_with_partners(
    table: pa.Table,
    order: npt.NDArray[np.int64],
    own: npt.NDArray[np.int64],
    keys: npt.NDArray[np.uint64],
    augmentations: Sequence[Augmentation],
) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """Rows of a block, and beside each the row that it is mixed with, where an augmentation asks for it.

    Args:
        table: Of the block's fragments.
        order: Of the block: which row of the table stands at each place.
        own: Places of the rows in the block.
        keys: Of the rows.
        augmentations: From the spec.

    Returns:
        The rows, and the place in the block of each one's partner where images are mixed, -1 without.
    """
    rows = table.take(pa.array(order[own]))
    # A row may take part of another one of its block, whoever trains on that one.
    places = partners_of(keys, own, len(order), mixings_of(augmentations))
    mixed = places >= 0
    if mixed.any():
        rows = with_partners(rows, table.take(pa.array(order[places[mixed]])), mixed)
    elif (others := _partner_rows(table, order[own], keys, augmentations)) is not None:
        rows = with_partners(rows, others, np.ones(len(own), bool))
    return rows, places


def _partner_rows(
    table: pa.Table,
    own: npt.NDArray[np.int64],
    keys: npt.NDArray[np.uint64],
    augmentations: Sequence[Augmentation],
) -> pa.Table | None:
    """The rows that those of `own` are mixed with, where an augmentation of texts asks for it."""
    if not any(isinstance(rule, MixTexts) for rule in augmentations):
        return None
    codes = table["label"].combine_chunks().dictionary_encode()
    codes = codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes
    classes = codes.indices.to_numpy().astype(np.int64)
    return table.take(pa.array(partners(own, keys, table.num_rows, classes)))


def row_of(split: Split, block: Block, index: int) -> tuple[int, int]:
    """The fragment of a row of rows_of_block's table, and the row in it."""
    for fragment in dict.fromkeys(block.fragments):
        if index < split.rows[fragment]:
            return fragment, index
        index -= split.rows[fragment]
    raise AssertionError("the row is one of the block's")


def _unreadable(manifest: Manifest, split: Split, block: Block, index: int, reason: str) -> DataError:
    """What is told of a row that cannot be encoded."""
    where, row = row_place(manifest, split, *row_of(split, block, index))
    return DataError(f"row {row}: {reason}", param=where, hint="repair or remove such rows before training")
