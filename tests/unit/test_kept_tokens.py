"""Kept tokens: the same batches, nothing read twice, damage noticed, a bound on what is kept."""

from __future__ import annotations

from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from astraml_ray.data import blocks, keep, kept_tokens
from astraml_ray.data.blocks import BlockReader
from astraml_ray.data.encoding.text import TextEncoder
from astraml_ray.data.encoding.tokenizers import train_tokenizer
from astraml_ray.data.kept_tokens import TokenKeep, token_keep
from astraml_ray.data.plan import run_blocks
from astraml_ray.data.prepare import build_manifest
from astraml_ray.spec.loading import parse_spec
from astraml_ray.spec.text_augmentation import RandomDeletion
from tests.conftest import word_rows, write_dataset

TOKENIZER = train_tokenizer(word_rows(300)["text"].to_pylist(), kind="wordpiece", vocab_size=300)


@pytest.fixture
def reader(tmp_path: Path) -> BlockReader:
    folder = write_dataset(tmp_path / "d", rows=101, group=13)
    manifest = build_manifest(parse_spec({"dataset": str(folder), "model": "m"}).dataset, task="auto", cache=tmp_path)
    encoder = TextEncoder(TOKENIZER, "text-classification", 6, manifest.labels)
    return BlockReader(manifest, manifest.splits["train"], encoder, 7, 8, 1, keep=TokenKeep(tmp_path / "tokens"))


def read(reader: BlockReader, *, epochs: int = 2, start_row: int = 0, growing: bool = False) -> list[pa.Table]:
    split = reader.split
    planned = run_blocks(split.rows, split.sizes, seed=reader.seed, epochs=epochs, block_bytes=1)
    ranks = range(reader.world_size)
    return [
        pa.concat_tables(reader.read(block, world_rank=rank, start_row=start_row, growing=growing))
        for block in planned
        for rank in ranks
        if start_row < block.start + block.rows
    ]


@pytest.mark.parametrize("task", ["text-classification", "causal-lm", "masked-lm"])
@pytest.mark.parametrize("world_size", [1, 3])
def test_batches_are_those_of_tokenising_each_time(reader: BlockReader, task: str, world_size: int) -> None:
    encoder = replace(reader.encoder, task=task, mask_token="[MASK]")  # type: ignore[type-var]
    reader = replace(reader, encoder=encoder, world_size=world_size)
    for start_row in (0, 40):
        expected = read(replace(reader, keep=None), start_row=start_row)
        for _ in ("made", "kept"):
            for table, other in zip(read(reader, start_row=start_row), expected, strict=True):
                assert table.equals(other)
                assert table.schema == other.schema


def test_rows_come_while_their_tokens_are_made(reader: BlockReader, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rows as ever; what they were made of is kept, and not made again."""
    expected = read(replace(reader, keep=None))
    assert reader.keep is not None
    whole = run_blocks(reader.split.rows, reader.split.sizes, seed=reader.seed, epochs=1)
    first = reader.read(next(whole), growing=True)
    assert next(first).num_rows == 2 * reader.batch_size
    assert not list(reader.keep.folder.glob("*.tokens"))
    for table, other in zip(read(reader, growing=True), expected, strict=True):
        assert table.equals(other)
    monkeypatch.setattr(blocks, "read_rows", lambda *_: pytest.fail("read again"))
    monkeypatch.setattr(kept_tokens, "read_rows", lambda *_: pytest.fail("read again"))
    for table, other in zip(read(reader, growing=True), expected, strict=True):
        assert table.equals(other)


def test_others_wait_for_tokens_that_are_being_made(reader: BlockReader, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = run_blocks(reader.split.rows, reader.split.sizes, seed=reader.seed, epochs=1)
    expected = pa.concat_tables(replace(reader, keep=None).read(block))
    making = reader.read(block, growing=True)
    parts = [next(making)]
    monkeypatch.setattr(kept_tokens, "read_rows", lambda *_: pytest.fail("made twice"))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: pa.concat_tables(reader.read(block)))
        with pytest.raises(futures.TimeoutError):
            waiting.result(timeout=0.3)
        parts += making
        assert waiting.result(timeout=60).equals(expected)
    assert pa.concat_tables(parts).equals(expected)
    assert reader.keep is not None
    assert not list(reader.keep.folder.glob(".*.lock"))


def test_who_makes_tokens_and_gives_up_lets_others_make_them(reader: BlockReader) -> None:
    (block,) = run_blocks(reader.split.rows, reader.split.sizes, seed=reader.seed, epochs=1)
    making = reader.read(block, growing=True)
    next(making)
    making.close()
    assert pa.concat_tables(reader.read(block)).equals(pa.concat_tables(replace(reader, keep=None).read(block)))


def test_later_epochs_read_nothing_and_another_encoder_shares_nothing(
    reader: BlockReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(reader, epochs=1)
    assert reader.keep is not None
    files = sorted(reader.keep.folder.glob("*.tokens"))
    assert len(files) == len(reader.split.fragments)
    assert {file.stat().st_mode & 0o77 for file in files} == {0}
    monkeypatch.setattr(kept_tokens, "read_rows", lambda *_: pytest.fail("read again"))
    read(replace(reader, seed=8), epochs=3)
    with pytest.raises(pytest.fail.Exception):
        read(replace(reader, encoder=replace(reader.encoder, max_length=5)), epochs=1)  # type: ignore[type-var]


def test_small_vocabularies_take_two_bytes_a_token(reader: BlockReader) -> None:
    assert reader.keep is not None
    kept = reader.keep.rows(reader.manifest, reader.split, 0, reader.encoder)
    assert kept["input_ids"].type == pa.list_(pa.uint16())
    assert kept_tokens._narrow_column(pa.chunked_array([[[70_000]]])).type == pa.list_(pa.uint32())
    assert kept_tokens._narrow_column(pa.chunked_array([pa.array([[-100]], pa.list_(pa.int32()))])).type == pa.list_(
        pa.int32()
    )


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "tail"])
def test_a_damaged_file_is_made_anew(reader: BlockReader, damage: str) -> None:
    expected = read(reader)
    assert reader.keep is not None
    for file in reader.keep.folder.glob("*.tokens"):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= damage == "flipped"
        data[-3] ^= damage == "tail"
        file.unlink()  # the old one is mapped
        file.write_bytes(bytes(data[: {"cut": -40, "empty": 0}.get(damage, len(data))]))
    assert all(table.equals(other) for table, other in zip(read(reader), expected, strict=True))
    assert all(keep._read(file) is not None for file in reader.keep.folder.glob("*.tokens"))


def test_what_was_not_used_for_longest_goes(reader: BlockReader) -> None:
    assert reader.keep is not None
    read(reader)
    files = list(reader.keep.folder.glob("*.tokens"))
    size = max(file.stat().st_size for file in files)
    small = replace(
        reader, keep=TokenKeep(reader.keep.folder, most_bytes=3 * size), encoder=replace(reader.encoder, max_length=4)
    )  # type: ignore[type-var]
    expected = read(replace(small, keep=None))
    assert all(table.equals(other) for table, other in zip(read(small), expected, strict=True))
    assert sum(file.stat().st_size for file in reader.keep.folder.glob("*.tokens")) <= 3 * size


def test_a_folder_that_cannot_be_written_costs_only_time(reader: BlockReader, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    blocked = replace(reader, keep=TokenKeep(tmp_path / "file" / "tokens"))
    expected = read(replace(reader, keep=None))
    assert all(table.equals(other) for table, other in zip(read(blocked), expected, strict=True))


def test_a_file_that_cannot_be_touched_is_read(reader: BlockReader, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read(reader)

    def refuse(path: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(keep.os, "utime", refuse)
    monkeypatch.setattr(kept_tokens, "read_rows", lambda *_: pytest.fail("read again"))
    assert all(table.equals(other) for table, other in zip(read(reader), expected, strict=True))


def test_readers_at_once_make_each_fragment_once(reader: BlockReader, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    real = kept_tokens.read_rows
    monkeypatch.setattr(kept_tokens, "read_rows", lambda *given: (made.append(given[2]), real(*given))[1])
    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(lambda _: read(reader, epochs=1), range(4)))
    assert sorted(made) == list(range(len(reader.split.fragments)))
    assert all(one.equals(other) for part in tables for one, other in zip(part, tables[0], strict=True))


def test_only_what_is_read_again_and_not_augmented_is_kept(reader: BlockReader, tmp_path: Path) -> None:
    encoder, split = reader.encoder, reader.split
    assert isinstance(encoder, TextEncoder)
    assert token_keep(encoder, split, (), tmp_path, reads=2)
    assert token_keep(encoder, split, (), tmp_path, reads=1) is None
    assert token_keep(replace(encoder, task="masked-lm"), split, (), tmp_path, reads=2)
    deletion = RandomDeletion(type="random_deletion", rate=0.3)
    assert token_keep(encoder, split, (deletion,), tmp_path, reads=2) is None
    huge = replace(split, fragments=tuple(replace(f, size=10**10) for f in split.fragments))
    assert token_keep(encoder, huge, (), tmp_path, reads=2) is None
