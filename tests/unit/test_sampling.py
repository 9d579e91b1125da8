"""Invariants of class sampling: shares, equal use of rows, determinism, workers, resuming, bounds."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from astraml_ray.data.blocks import BlockReader
from astraml_ray.data.encoding.text import SEQUENCES, TextEncoder
from astraml_ray.data.encoding.tokenizers import train_tokenizer
from astraml_ray.data.formats import Fragment
from astraml_ray.data.manifest import Manifest, Split
from astraml_ray.data.microbatches import Position, local_blocks, micro_batches
from astraml_ray.data.plan import run_blocks
from astraml_ray.data.prepare import build_manifest
from astraml_ray.data.sampling import Sampler, make_sampler
from astraml_ray.spec.loading import parse_spec
from astraml_ray.spec.sampling import ClassWeights, Sampling

SHAPES = {
    "one fragment": [{"a": 5, "b": 95}],
    "many": [{"a": 3, "b": 10 + i, "c": 1} for i in range(30)],
    "sorted by class": [*[{"a": 40}] * 9, {"b": 40}, {"c": 7}],
    "a class of one row": [{"a": 50}, {"a": 49, "b": 1}, {"a": 3}],
    "an empty fragment": [{"a": 2}, {}, {"b": 9}],
}
WEIGHTS = ClassWeights(weights={"a": 3.0, "b": 0.5})


def manifest_of(shape: list[dict[str, int]]) -> Manifest:
    rows = tuple(sum(found.values()) for found in shape)
    fragments = tuple(Fragment(0, count, 100, index) for index, count in enumerate(rows))
    labels = tuple(sorted({name for found in shape for name in found}))
    return Manifest((), (), {}, "class", labels, {"train": Split(fragments, rows, "all", tuple(shape))})


def sampler_of(shape: list[dict[str, int]], sampling: Sampling, seed: int = 0) -> Sampler:
    made = make_sampler(manifest_of(shape), sampling, seed=seed)
    assert made is not None
    return made


def draws(sampler: Sampler, shape: list[dict[str, int]], epoch: int, size: int) -> list[tuple[int, str, int]]:
    """(fragment, class, row) of an epoch, in the order of the blocks."""
    found = []
    labels = sorted({name for one in shape for name in one})
    for block in sampler.blocks([100] * len(shape), epoch=epoch, block_bytes=size):
        before = len(found)
        for fragment, visit in zip(block.fragments, block.visits, strict=True):
            names = [name for name, count in shape[fragment].items() for _ in range(count)]
            classes = np.array([labels.index(name) for name in names])
            found += [(fragment, names[row], row) for row in sampler.drawn(epoch, fragment, visit, classes).tolist()]
        assert (block.start, block.rows) == (before, len(found) - before)
    return found


@pytest.mark.parametrize(
    ("name", "sampling", "size"), itertools.product(SHAPES, ["balanced", WEIGHTS], [1, 250, 10**9])
)
def test_shares_and_equal_use_of_the_rows(name: str, sampling: Sampling, size: int) -> None:
    shape = SHAPES[name]
    sampler, total = sampler_of(shape, sampling), sum(sum(found.values()) for found in shape)
    used: Counter[tuple[int, str, int]] = Counter(
        (fragment, one, row)
        for fragment, found in enumerate(shape)
        for row, one in enumerate(name for name, count in found.items() for _ in range(count))
    )
    used.subtract(dict.fromkeys(used, 1))
    names = sorted({one for found in shape for one in found})
    given = sampling.weights if isinstance(sampling, ClassWeights) else {}
    weights = {one: given.get(one, 1.0) for one in names}
    for epoch in range(7):
        found = draws(sampler, shape, epoch, size)
        assert len(found) == total
        by_class = Counter(one for _, one, _ in found)
        for one in names:
            assert abs(by_class[one] - total * weights[one] / sum(weights.values())) < 1
        used.update(found)
        for one in names:
            times = [count for key, count in used.items() if key[1] == one]
            assert max(times) - min(times) <= 1  # over all epochs so far


def test_an_epoch_takes_of_each_fragment_in_proportion() -> None:
    """Of a class that is drawn seldom, no fragment is left out for long: its rows come from all over."""
    shape = [{"a": 1000, "b": 10} for _ in range(8)]
    sampler = sampler_of(shape, "balanced")
    for epoch in range(3):
        taken = Counter(fragment for fragment, one, _ in draws(sampler, shape, epoch, 10**9) if one == "a")
        assert max(taken.values()) - min(taken.values()) <= 2


def test_a_rare_class_in_one_fragment_is_spread_over_the_epoch_and_no_block_grows() -> None:
    shape = [*[{"a": 100}] * 40, {"b": 20, "a": 80}]
    sampler, natural = sampler_of(shape, "balanced"), 100
    blocks = sampler.blocks([100] * len(shape), epoch=0, block_bytes=400)
    for block in blocks:
        assert block.rows <= len(block.fragments) * (2 * natural + 2)
    found = draws(sampler, shape, 0, 400)
    quarters = [Counter(one for _, one, _ in found[i : i + len(found) // 4])["b"] for i in range(0, 4097, 1025)][:4]
    assert min(quarters) > 0.1 * len(found) / 4
    assert sum(one == "b" for _, one, _ in found) == 2050


def test_the_drawing_follows_from_the_seed_alone() -> None:
    shape = SHAPES["many"]
    alike = [draws(sampler_of(shape, "balanced", seed), shape, 3, 10**9) for seed in (1, 1, 2)]
    assert alike[0] == alike[1] != alike[2]


def test_a_run_from_a_position_has_the_blocks_from_there_on() -> None:
    shape = SHAPES["many"]
    rows, sizes = [sum(found.values()) for found in shape], [100] * len(shape)
    whole = list(run_blocks(rows, sizes, seed=0, epochs=3, block_bytes=500, sampler=sampler_of(shape, "balanced")))
    for epoch, row in itertools.product(range(3), [0, 1, 100, sum(rows) - 1]):
        rest = run_blocks(
            rows,
            sizes,
            seed=0,
            epochs=3,
            start_epoch=epoch,
            start_row=row,
            block_bytes=500,
            sampler=sampler_of(shape, "balanced"),
        )
        assert list(rest) == [b for b in whole if b.epoch > epoch or (b.epoch == epoch and b.start + b.rows > row)]


@pytest.fixture(scope="module", params=[True, False], ids=["validation given", "validation split off"])
def readers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, BlockReader]:
    folder = tmp_path_factory.mktemp("sampled")
    names = ["rare" if i % 20 == 3 else "common" for i in range(203)]
    table = pa.table({"text": [f"text {i}" for i in range(203)], "label": names})
    pq.write_table(table, folder / "train.parquet", row_group_size=17)
    if request.param:
        pq.write_table(table.slice(0, 40), folder / "validation.parquet")
    manifest = build_manifest(
        parse_spec({"dataset": str(folder), "model": "m"}).dataset, task="auto", cache=folder / "c", count_classes=True
    )
    assert Manifest.from_json(manifest.to_json()) == manifest
    tokenizer = train_tokenizer(table["text"].to_pylist(), kind="wordpiece", vocab_size=300)
    encoder = TextEncoder(tokenizer, "text-classification", 12, manifest.labels, "[MASK]")
    sampler = make_sampler(manifest, "balanced", seed=5)
    return {
        name: BlockReader(manifest, split, encoder, 5, 8, 1, (), name == "train", sampler if name == "train" else None)
        for name, split in manifest.splits.items()
    }


def stream(reader: BlockReader, rank: int, size: int, position: Position | None = None) -> list[tuple[int, ...]]:
    reader = replace(reader, world_size=size)
    tables = local_blocks(reader, epochs=2, world_rank=rank, position=position)
    batches = micro_batches(
        tables,
        schema=SEQUENCES,
        rows_per_epoch=reader.split.total_rows,
        batch_size=8,
        epochs=2,
        world_rank=rank,
        world_size=size,
        position=position,
    )
    return [
        (b.epoch, row["position"], *row["labels"], *row["input_ids"]) for b in batches for row in b.table.to_pylist()
    ]


def test_the_stream_is_balanced_for_any_number_of_workers_and_from_any_batch(readers: dict[str, BlockReader]) -> None:
    reader = readers["train"]
    alone = stream(reader, 0, 1)
    total = reader.split.total_rows
    assert [row[:2] for row in alone] == [(epoch, i) for epoch in range(2) for i in range(total)]
    by_class = Counter(row[2] for row in alone[:total])
    assert abs(by_class[0] - by_class[1]) <= 1
    assert sorted(row for rank in range(3) for row in stream(reader, rank, 3)) == alone
    for start in (0, 64, 160):
        assert stream(reader, 0, 1, Position(1, start)) == alone[total + start :]


def test_validation_rows_stay_as_they_are(readers: dict[str, BlockReader]) -> None:
    reader = readers["validation"]
    table = pa.concat_tables(local_blocks(reader))
    assert table.num_rows == reader.split.total_rows
    assert len({tuple(row) for row in table["input_ids"].to_pylist()}) == table.num_rows  # each once
    trained = {row[3:] for row in stream(readers["train"], 0, 1)}
    if reader.split.side == "low":
        assert not trained & {tuple(row) for row in table["input_ids"].to_pylist()}
