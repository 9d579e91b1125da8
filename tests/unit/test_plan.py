"""Invariants of the plan, over a grid of shapes, seeds and worlds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from astraml_ray.data.plan import Block, block_parts, epoch_blocks, owned_by, permutation, run_blocks
from astraml_ray.training.timetable import Timetable

SHAPES = [[1], [7], [5, 0, 3], [40] * 13, [1, 100, 1, 100], list(range(1, 30))]


def order(blocks: list[Block], rows: list[int], seed: int) -> list[tuple[int, int]]:
    """(fragment, row) of every position of an epoch."""
    out = []
    for block in blocks:
        members = [(f, r) for f in block.fragments for r in range(rows[f])]
        assert block.start == len(out)
        out += [members[i] for i in permutation(block, seed)]
    return out


@pytest.mark.parametrize(
    ("rows", "seed", "epoch", "size"), itertools.product(SHAPES, [0, 9], [0, 1, 5], [1, 300, 10**9])
)
def test_every_row_once_per_epoch(rows: list[int], seed: int, epoch: int, size: int) -> None:
    blocks = epoch_blocks(rows, rows, seed=seed, epoch=epoch, block_bytes=size)
    everything = [(f, r) for f, count in enumerate(rows) for r in range(count)]
    assert sorted(order(blocks, rows, seed)) == everything
    assert epoch_blocks(rows, rows, seed=seed, epoch=epoch, block_bytes=size) == blocks


def test_epochs_and_seeds_differ() -> None:
    rows = [40] * 13
    orders = [
        order(epoch_blocks(rows, rows, seed=seed, epoch=epoch), rows, seed) for seed in (0, 1) for epoch in (0, 1)
    ]
    assert len({str(o) for o in orders}) == 4


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 40])
def test_workers_share_each_batch_without_overlap(world_size: int) -> None:
    positions = np.arange(100)
    owners = np.stack([owned_by(positions, 32, rank, world_size) for rank in range(world_size)])
    assert (owners.sum(0) == 1).all()
    for start in range(0, 96, 32):
        shares = owners[:, start : start + 32].sum(1)
        assert shares.max() - shares.min() <= 1


@pytest.mark.parametrize(("rows", "size", "row_bytes"), [(1, 1, 0), (5000, 40 << 20, 0), (5000, 5000, 30_000)])
@pytest.mark.parametrize("world_size", [1, 3, 100])
@pytest.mark.parametrize("growing", [False, True])
def test_parts_of_a_block_cover_it_in_whole_batches(
    rows: int, size: int, row_bytes: int, world_size: int, growing: bool
) -> None:
    block, batch = Block(0, 1, (1, 2), 700, rows), 32
    for start_row in (0, 700, 703, 700 + rows - 1, 700 + rows):
        parts = list(
            block_parts(
                block,
                [10**12, size // 2, size - size // 2],
                batch_size=batch,
                world_size=world_size,
                row_bytes=row_bytes,
                start_row=start_row,
                growing=growing,
            )
        )
        assert [i for part in parts for i in part.tolist()] == list(range(max(700, start_row), 700 + rows))
        lengths = [len(part) for part in parts]
        assert all(length % batch == 0 for length in lengths[:-1])
        assert max([0, *lengths]) <= max(batch, (32 << 20) // max(size // rows, row_bytes))
        if growing and parts:
            assert lengths[0] <= 2 * batch
            assert all(after <= 2 * before for before, after in itertools.pairwise(lengths))


def test_a_run_from_a_position_has_the_blocks_from_there_on() -> None:
    rows = [40] * 13
    whole = list(run_blocks(rows, rows, seed=3, epochs=3, block_bytes=100))
    for epoch, row in itertools.product(range(3), [0, 1, 159, 160, 300, 519]):
        rest = list(run_blocks(rows, rows, seed=3, epochs=3, start_epoch=epoch, start_row=row, block_bytes=100))
        expected = [b for b in whole if (b.epoch, b.start + b.rows) > (epoch, row) and b.epoch >= epoch]
        assert rest == [b for b in expected if b.epoch > epoch or b.start + b.rows > row]


def test_a_dataset_sorted_by_class_gives_mixed_batches() -> None:
    """64 fragments of one class each, 8 classes, blocks of few fragments: batches must not be of one class."""
    rows, size = [250] * 64, [1000] * 64
    blocks = epoch_blocks(rows, size, seed=0, epoch=0, block_bytes=8000)
    classes = np.array([fragment // 8 for fragment, _ in order(blocks, rows, 0)])
    batches = classes[: len(classes) // 32 * 32].reshape(-1, 32)
    distinct = np.array([len(set(batch)) for batch in batches])
    shuffled = np.random.default_rng(0).permutation(classes).reshape(-1, 32)
    ideal = np.mean([len(set(batch)) for batch in shuffled])
    assert len(blocks) > 4
    assert distinct.mean() > 0.55 * ideal
    assert distinct.min() >= 2


@pytest.mark.parametrize(
    ("rows", "batch", "accumulation", "epochs"), itertools.product([1, 31, 32, 33, 100], [1, 8, 32, 64], [1, 3], [1, 4])
)
def test_timetable_covers_every_row(rows: int, batch: int, accumulation: int, epochs: int) -> None:
    table = Timetable(rows, batch, accumulation, epochs)
    seen = []
    for step in range(table.total_steps):
        position = table.position(step)
        for micro in range(table.window(step)):
            start = position.row + micro * batch
            seen += [(position.epoch, row) for row in range(start, min(start + batch, rows))]
    assert seen == [(epoch, row) for epoch in range(epochs) for row in range(rows)]
