"""Texts that are there twice, within a split or across splits, found by 8-byte hashes in a bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["MOST_HASHED", "Overlap", "Repeats", "RowHashes"]

MOST_HASHED = 4_000_000
"""Different rows whose hashes are kept, over all splits: about 120 MB, and three times that while they are sorted."""
_PENDING = 500_000
Hashes = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Repeats:
    """Of one split.

    Attributes:
        hashed: Rows looked at.
        rows: Rows whose text an earlier row has.
        texts: Different texts that more than one row has.
        conflicting: Different texts that rows of different labels have.
    """

    hashed: int
    rows: int
    texts: int
    conflicting: int


@dataclass(frozen=True)
class Overlap:
    """Of the training rows with another split.

    Attributes:
        hashed: Rows of the other split looked at.
        rows: Those of them whose text is a training row's too.
        train_rows: Training rows whose text the other split has.
    """

    hashed: int
    rows: int
    train_rows: int


class RowHashes:
    """The hashes of texts and labels, by split.

    Where there are more different rows than may be kept, texts are left out by a bit of their hash, then by two, and
    so on: what stays is a random sample of the texts, the same in every split, with all their rows.

    Attributes:
        halvings: How often the sample was halved; 0 is all rows.
    """

    def __init__(self, most: int = MOST_HASHED) -> None:
        self.halvings = 0
        self._most = most
        self._splits: dict[str, _Table] = {}

    @property
    def share(self) -> float:
        """Of the texts, how many are looked at."""
        return float(0.5**self.halvings)

    def add(self, split: str, texts: Hashes, labels: Hashes) -> None:
        """Takes a batch: a hash of each row's text, and one of its label."""
        kept = self._sampled(texts)
        self._splits.setdefault(split, _Table()).add(texts[kept], labels[kept])
        # A quarter more, so that a full table is not sorted again for every batch.
        while sum(table.size for table in self._splits.values()) > self._most * 5 // 4:
            tables = list(self._splits.values())
            if sum(len(table.merged()[0]) for table in tables) > self._most:
                self.halvings += 1
                for table in tables:
                    table.keep(self._sampled(table.merged()[0]))

    def repeats(self, split: str) -> Repeats:
        """What is there twice in a split."""
        texts, _, counts = self._table(split)
        starts = _starts(texts)
        rows = np.add.reduceat(counts, starts) if len(starts) else counts
        labels = np.diff(np.append(starts, len(texts)))
        total = int(counts.sum())
        return Repeats(total, total - len(starts), int((rows > 1).sum()), int((labels > 1).sum()))

    def overlap(self, split: str) -> Overlap:
        """What of the training rows is in another split too."""
        train, _, train_counts = self._table("train")
        texts, _, counts = self._table(split)
        rows = int(counts[np.isin(texts, train)].sum())
        return Overlap(int(counts.sum()), rows, int(train_counts[np.isin(train, texts)].sum()))

    def _table(self, split: str) -> tuple[Hashes, Hashes, Counts]:
        return self._splits.get(split, _Table()).merged()

    def _sampled(self, texts: Hashes) -> npt.NDArray[np.bool_]:
        kept: npt.NDArray[np.bool_] = texts & np.uint64((1 << self.halvings) - 1) == 0
        return kept


class _Table:
    """Different pairs of a text's and a label's hash, sorted, with their numbers of rows; and batches to come to it."""

    def __init__(self) -> None:
        self._parts: list[tuple[Hashes, Hashes, Counts]] = [
            (np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64))
        ]

    @property
    def size(self) -> int:
        return sum(len(texts) for texts, _, _ in self._parts)

    def add(self, texts: Hashes, labels: Hashes) -> None:
        self._parts.append((texts, labels, np.ones(len(texts), np.int64)))
        if sum(len(part[0]) for part in self._parts[1:]) > max(_PENDING, len(self._parts[0][0]) // 2):
            self.merged()

    def keep(self, kept: npt.NDArray[np.bool_]) -> None:
        texts, labels, counts = self.merged()
        self._parts = [(texts[kept], labels[kept], counts[kept])]

    def merged(self) -> tuple[Hashes, Hashes, Counts]:
        if len(self._parts) > 1:
            texts = np.concatenate([part[0] for part in self._parts])
            labels = np.concatenate([part[1] for part in self._parts])
            counts = np.concatenate([part[2] for part in self._parts])
            order = np.lexsort((labels, texts))
            texts, labels, counts = texts[order], labels[order], counts[order]
            starts = _starts(texts, labels)
            summed = np.add.reduceat(counts, starts) if len(starts) else counts
            self._parts = [(texts[starts], labels[starts], summed)]
        return self._parts[0]


def _starts(*columns: Hashes) -> npt.NDArray[np.intp]:
    """Where another value begins in sorted columns."""
    first = np.ones(len(columns[0]), bool)
    first[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return np.flatnonzero(first)
