"""Rows of the stream: once, in order, the same for any number of workers and from any position."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from astraml_ray.data import stream
from astraml_ray.data.blocks import BlockReader
from astraml_ray.data.encoding.text import SEQUENCES, TextEncoder
from astraml_ray.data.encoding.tokenizers import train_tokenizer
from astraml_ray.data.microbatches import MicroBatch, Position, local_blocks, micro_batches
from astraml_ray.data.parcels import pack, pack_error, unpacked
from astraml_ray.data.plan import owned_by, run_blocks
from astraml_ray.data.prepare import build_manifest
from astraml_ray.errors import DataError, InfrastructureError
from astraml_ray.spec.loading import parse_spec
from astraml_ray.spec.text_augmentation import CaseNoise, RandomDeletion, RandomMask, RandomSwap
from tests.conftest import word_rows, write_dataset

ROWS, BATCH, EPOCHS = 101, 8, 2
AUGMENTATIONS = (
    RandomDeletion(type="random_deletion", rate=0.3),
    RandomSwap(type="random_swap", probability=0.5),
    RandomMask(type="random_mask"),
    CaseNoise(type="case_noise"),
)
Row = tuple[int, int, tuple[int, ...], tuple[int, ...]]


@pytest.fixture(scope="module")
def make_reader(tmp_path_factory: pytest.TempPathFactory) -> object:
    folder = write_dataset(tmp_path_factory.mktemp("stream"), rows=ROWS, group=13)
    manifest = build_manifest(
        parse_spec({"dataset": str(folder), "model": "m"}).dataset, task="text-classification", cache=folder / "c"
    )
    tokenizer = train_tokenizer(word_rows(300)["text"].to_pylist(), kind="wordpiece", vocab_size=300)

    def make(world_size: int, task: str = "text-classification", *, augmented: bool = True) -> BlockReader:
        encoder = TextEncoder(tokenizer, task, 6, manifest.labels, "[MASK]")  # type: ignore[arg-type]
        return BlockReader(
            manifest, manifest.splits["train"], encoder, 7, BATCH, world_size, AUGMENTATIONS if augmented else ()
        )

    return make


def batches(reader: BlockReader, rank: int, position: Position | None = None) -> list[MicroBatch]:
    tables = local_blocks(reader, epochs=EPOCHS, world_rank=rank, position=position)
    return list(
        micro_batches(
            tables,
            schema=SEQUENCES,
            rows_per_epoch=ROWS,
            batch_size=BATCH,
            epochs=EPOCHS,
            world_rank=rank,
            world_size=reader.world_size,
            position=position,
        )
    )


def rows(parts: list[MicroBatch]) -> list[Row]:
    return [
        (b.epoch, row["position"], tuple(row["input_ids"]), tuple(row["labels"]))
        for b in parts
        for row in b.table.to_pylist()
    ]


@pytest.mark.parametrize("task", ["text-classification", "causal-lm", "masked-lm"])
@pytest.mark.parametrize("world_size", [2, 3, 5, 11])
def test_order_and_content_do_not_depend_on_the_number_of_workers(make_reader, task: str, world_size: int) -> None:  # type: ignore[no-untyped-def]
    alone = rows(batches(make_reader(1, task), 0))
    assert [row[:2] for row in alone] == [(epoch, i) for epoch in range(EPOCHS) for i in range(ROWS)]
    together = [row for rank in range(world_size) for row in rows(batches(make_reader(world_size, task), rank))]
    assert sorted(together) == alone


def test_batches_of_all_workers_have_the_same_bounds(make_reader) -> None:  # type: ignore[no-untyped-def]
    bounds = [[(b.epoch, b.start, b.rows) for b in batches(make_reader(11), rank)] for rank in range(11)]
    assert all(b == bounds[0] for b in bounds)
    assert bounds[0][12] == (0, 96, 5)
    assert any(b.table.num_rows == 0 for b in batches(make_reader(11), 10))


def test_resuming_at_every_batch_gives_the_rest(make_reader) -> None:  # type: ignore[no-untyped-def]
    for world_size, rank in ((1, 0), (2, 1)):
        reader = make_reader(world_size)
        whole = batches(reader, rank)
        for index, batch in enumerate(whole):
            rest = batches(reader, rank, Position(batch.epoch, batch.start))
            assert rows(rest) == rows(whole[index:])


@pytest.mark.parametrize("start_row", [0, 3, 40, 100])
@pytest.mark.parametrize("growing", [False, True])
def test_parts_of_a_block_are_its_rows(make_reader, start_row: int, growing: bool) -> None:  # type: ignore[no-untyped-def]
    reader = make_reader(3)
    for block in run_blocks(reader.split.rows, reader.split.sizes, seed=7, epochs=2, start_row=start_row):
        parts = list(reader.read(block, start_row=start_row, growing=growing))
        assert parts[0].num_rows == min(ROWS - start_row, 2 * BATCH if growing else ROWS)
        whole = pa.concat_tables(parts)
        assert whole["position"].to_pylist() == list(range(start_row, ROWS))
        for rank in range(3):
            own = pa.concat_tables(reader.read(block, world_rank=rank, start_row=start_row, growing=growing))
            assert own.equals(whole.filter(owned_by(whole["position"].to_numpy(), BATCH, rank, 3)))


def test_augmentation_changes_rows_differently_each_epoch_and_keeps_labels(make_reader) -> None:  # type: ignore[no-untyped-def]
    plain, changed = rows(batches(make_reader(1, augmented=False), 0)), rows(batches(make_reader(1), 0))
    assert [(r[0], r[1], r[3]) for r in plain] == [(r[0], r[1], r[3]) for r in changed]
    assert sum(a[2] != b[2] for a, b in zip(plain, changed, strict=True)) > ROWS


def test_a_lost_or_misplaced_row_is_noticed(make_reader) -> None:  # type: ignore[no-untyped-def]
    reader = make_reader(1)
    tables = list(local_blocks(reader, epochs=1))
    for broken in (tables[:-1], [tables[0].slice(1), *tables[1:]], [tables[0], *tables]):
        if broken == tables:
            continue
        with pytest.raises(RuntimeError):
            list(
                micro_batches(
                    [*broken, tables[0]], schema=SEQUENCES, rows_per_epoch=ROWS + 50, batch_size=BATCH, epochs=1
                )
            )


def test_a_parcel_is_one_row_and_has_the_table(make_reader) -> None:  # type: ignore[no-untyped-def]
    tables = [batch.table for batch in batches(make_reader(11), 10)]
    assert any(not table.num_rows for table in tables)
    parcels = [pack(table) for table in tables]
    assert {parcel.num_rows for parcel in parcels} == {1}
    for together in (parcels, [pa.concat_tables(parcels)]):
        for table, other in zip(unpacked(together), tables, strict=True):
            assert table.equals(other)
            assert table.schema == other.schema


def test_an_error_in_a_task_arrives_whole(make_reader) -> None:  # type: ignore[no-untyped-def]
    table = batches(make_reader(1), 0)[0].table
    found = unpacked([pack(table), pack_error(DataError("is damaged", param="s3://b/k", hint="write it again"))])
    assert next(found).equals(table)
    with pytest.raises(DataError, match="is damaged") as caught:
        next(found)
    assert (caught.value.param, caught.value.hint) == ("s3://b/k", "write it again")


def test_what_may_pass_is_tried_again_from_where_it_failed(  # type: ignore[no-untyped-def]
    make_reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parcels are the same, one for one: Ray may make them a second time, without the error."""
    reader = make_reader(3)
    block = next(run_blocks(reader.split.rows, reader.split.sizes, seed=7, epochs=1))
    whole = list(stream._parcels(reader, block, 3, growing=True))
    assert len(whole) > 2 * 3
    outcomes, encode = iter([True, False, True, True]), BlockReader.encode

    def shaky(self: BlockReader, *given: Any) -> pa.Table:
        if not next(outcomes, True):
            raise InfrastructureError("passes")
        return encode(self, *given)

    monkeypatch.setattr(BlockReader, "encode", shaky)
    monkeypatch.setattr(stream, "_PAUSES", (0.0,))
    assert list(stream._parcels(reader, block, 3, growing=True)) == whole
    outcomes = iter([True, False, False])
    *before, first, second, third = stream._parcels(reader, block, 3, growing=True)
    assert before == whole[:3]
    for parcel in (first, second, third):
        with pytest.raises(InfrastructureError, match="passes"):
            next(unpacked([parcel]))


def test_a_long_row_is_cut_in_classification_and_split_in_language_models(make_reader) -> None:  # type: ignore[no-untyped-def]
    cut = [b.table for b in batches(make_reader(1, augmented=False), 0)]
    assert all(len(lengths) == 1 and lengths[0] <= 6 for t in cut for lengths in t["lengths"].to_pylist())
    split = [b.table for b in batches(make_reader(1, "causal-lm", augmented=False), 0)]
    lengths = [row for t in split for row in t["lengths"].to_pylist()]
    assert any(len(row) > 1 for row in lengths)
    assert all(part <= 6 for row in lengths for part in row)


def test_masks_are_fixed_by_the_row_and_hit_about_their_share(make_reader) -> None:  # type: ignore[no-untyped-def]
    parts = rows(batches(make_reader(1, "masked-lm", augmented=False), 0))
    assert parts == rows(batches(make_reader(1, "masked-lm", augmented=False), 0))
    labels = [label for row in parts for label in row[3]]
    share = sum(label != -100 for label in labels) / len(labels)
    assert 0.08 < share < 0.3


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_a_trained_tokenizer_is_the_same_every_time_and_knows_its_texts(kind: str) -> None:
    from tokenizers import Tokenizer

    texts = [*word_rows(300)["text"].to_pylist(), "Ünïcode, 中文 and “quotes”."]
    first, second = (train_tokenizer(texts, kind=kind, vocab_size=400) for _ in range(2))  # type: ignore[arg-type]
    assert first == second
    tokenizer = Tokenizer.from_str(first)
    assert "apple" in tokenizer.encode("apple zinc").tokens
    unknown = tokenizer.token_to_id("[UNK]")
    assert not any(unknown in tokenizer.encode(text).ids for text in texts if unknown is not None)
    assert tokenizer.decode(tokenizer.encode("zinc apple").ids).split() == ["zinc", "apple"]
