"""Which rows an epoch has where classes are sampled by weight. Pure, and part of the plan.

An epoch has as many rows as the dataset, of each class its share. The rows of a class are drawn in cycles: no row
comes a third time before every other has come twice, over the whole run. Within a cycle the draws are spread over the
fragments in proportion, so what an epoch takes of a fragment follows from counts alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from astraml_ray.data.manifest import Manifest
from astraml_ray.data.plan import BLOCK_BYTES, Block, epoch_blocks
from astraml_ray.spec.sampling import Sampling, shares_of

__all__ = ["Sampler", "make_sampler"]

_SPREAD_STREAM, _ROW_STREAM = 3, 4
_MOST_OF_A_VISIT = 2
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sampler:
    """What the drawing follows from: one count for each class and fragment that it occurs in.

    Attributes:
        seed: Of the run.
        quotas: Rows of each class in an epoch.
        places: Of each class, the fragments that have rows of it.
        counts: Of each class, how many each of them has.
        natural: Rows of each fragment.
    """

    seed: int
    quotas: tuple[int, ...]
    places: tuple[Counts, ...]
    counts: tuple[Counts, ...]
    natural: Counts

    def blocks(self, sizes: Sequence[int], *, epoch: int, block_bytes: int = BLOCK_BYTES) -> list[Block]:
        """The blocks of an epoch; see plan.epoch_blocks.

        A fragment of which much is drawn is visited several times: in a visit, at most twice the rows that it has are
        drawn, and one more of each class.
        """
        fragments, parts, passes, rows = self._visits(epoch)
        visited = [sizes[fragment] for fragment in fragments]
        blocks = epoch_blocks(rows, visited, seed=self.seed, epoch=epoch, block_bytes=block_bytes)
        return [
            replace(
                block,
                fragments=tuple(fragments[visit] for visit in block.fragments),
                visits=tuple((parts[visit], passes[visit]) for visit in block.fragments),
            )
            for block in blocks
        ]

    def drawn(self, epoch: int, fragment: int, visit: tuple[int, int], classes: Counts) -> Counts:
        """The rows of a visit, by their places in the fragment.

        Args:
            epoch: From 0.
            fragment: Its index in the split.
            visit: Which one of how many.
            classes: Class ids of the fragment's rows.
        """
        before, after = _drawn_before(self, epoch), _drawn_before(self, epoch + 1)
        found = [np.zeros(0, np.int64)]
        for one in np.unique(classes).tolist():
            place = int(np.searchsorted(self.places[one], fragment))
            start, stop = _part(int(before[one][place]), int(after[one][place]), one, *visit)
            members = np.flatnonzero(classes == one)
            found += [members[rows] for rows in self._cycles(start, stop, len(members), fragment, one)]
        return np.concatenate(found)

    def _cycles(self, start: int, stop: int, members: int, fragment: int, one: int) -> Iterator[Counts]:
        """Draws `start` to `stop` of a class in a fragment: every cycle has each row once, in an order of its own."""
        while start < stop:
            cycle, first = divmod(start, members)
            last = min(members, first + stop - start)
            generator = np.random.default_rng([self.seed, _ROW_STREAM, fragment, one, cycle])
            yield generator.permutation(members)[first:last]
            start += last - first

    def _visits(self, epoch: int) -> tuple[list[int], list[int], list[int], list[int]]:
        """Fragment, number, number of all, and rows of each visit of an epoch."""
        before, after = _drawn_before(self, epoch), _drawn_before(self, epoch + 1)
        taken = [last - first for first, last in zip(before, after, strict=True)]
        drawn = np.zeros(len(self.natural), np.int64)
        for places, count in zip(self.places, taken, strict=True):
            drawn[places] += count
        passes = -(-drawn // np.maximum(1, _MOST_OF_A_VISIT * self.natural))
        first_visit = np.cumsum(passes) - passes
        fragments = np.repeat(np.arange(len(passes)), passes)
        parts = np.arange(len(fragments)) - first_visit[fragments]
        rows = np.zeros(len(fragments), np.int64)
        for one, (places, first, last) in enumerate(zip(self.places, before, after, strict=True)):
            repeats = passes[places]
            index = np.repeat(np.arange(len(places)), repeats)
            part = np.arange(len(index)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
            start, stop = _part(first[index], last[index], one, part, repeats[index])
            rows[first_visit[places][index] + part] += stop - start
        return fragments.tolist(), parts.tolist(), passes[fragments].tolist(), rows.tolist()


def make_sampler(manifest: Manifest, sampling: Sampling, *, seed: int) -> Sampler | None:
    """The sampler of a manifest's training rows; None where each row comes once per epoch.

    Args:
        manifest: With the counts of classes.
        sampling: From the spec.
        seed: Of the run.
    """
    if sampling == "natural":
        return None
    split, shares = manifest.splits["train"], shares_of(sampling, manifest.labels)
    ids = {name: index for index, name in enumerate(manifest.labels)}
    places: list[list[int]] = [[] for _ in ids]
    counts: list[list[int]] = [[] for _ in ids]
    for fragment, found in enumerate(split.classes):
        for name, count in found.items():
            if count:
                places[ids[name]].append(fragment)
                counts[ids[name]].append(count)
    # A class whose rows were all split off for validation has none to draw: the others have its share.
    had = [share if found else 0.0 for share, found in zip(shares, counts, strict=True)]
    return Sampler(
        seed,
        _apportion(split.total_rows, had),
        tuple(np.array(found, np.int64) for found in places),
        tuple(np.array(found, np.int64) for found in counts),
        np.array(split.rows, np.int64),
    )


def _apportion(total: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Whole numbers in proportion to shares, which add up to `total` (largest remainders)."""
    exact = np.array(shares) / sum(shares) * total
    whole = np.floor(exact).astype(np.int64)
    missing = int(total - whole.sum())
    whole[np.argsort(-(exact - whole), kind="stable")[:missing]] += 1
    return tuple(whole.tolist())


@lru_cache(maxsize=4)
def _drawn_before(sampler: Sampler, epoch: int) -> tuple[Counts, ...]:
    """Of each class, how often rows of each of its fragments were drawn before an epoch."""
    found = []
    for one, (quota, counts) in enumerate(zip(sampler.quotas, sampler.counts, strict=True)):
        cycle, rest = divmod(quota * epoch, max(1, int(counts.sum())))
        offsets = np.random.default_rng([sampler.seed, _SPREAD_STREAM, one, cycle]).random(len(counts))
        found.append(cycle * counts + _first(rest, counts, offsets))
    return tuple(found)


def _first(number: int, counts: Counts, offsets: npt.NDArray[np.float64]) -> Counts:
    """How many of the first `number` draws of a cycle fall to each fragment.

    Each fragment's draws are evenly spaced over the cycle, from its own offset on. No number falls when `number` grows.
    """

    def until(time: float) -> Counts:
        return np.minimum(np.floor(time * counts + offsets).astype(np.int64), counts)

    low, high = 0.0, 1.0
    for _ in range(64):
        middle = (low + high) / 2
        total = int(until(middle).sum())
        if total == number:
            return until(middle)
        low, high = (middle, high) if total < number else (low, middle)
    # Several draws at one time: by the order of the fragments.
    found, later = until(low), until(high)
    found += np.bincount(
        np.repeat(np.arange(len(counts)), later - found)[: number - int(found.sum())], minlength=len(counts)
    )
    return found


def _part(first: Any, last: Any, one: int, part: Any, parts: Any) -> Any:
    """The draws of one visit out of those of all; the visits with one more begin elsewhere for each class."""
    turn, taken = (part + one) % parts, last - first
    return first + taken * turn // parts, first + taken * (turn + 1) // parts
