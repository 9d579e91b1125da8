"""Bad rows in every format: compressed, in small files read as one, in shards and in folders of images."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from astraml_ray.data import formats
from astraml_ray.data.bad_data.quarantine import quarantined
from astraml_ray.data.blocks import BlockReader
from astraml_ray.data.encoding.text import TextEncoder
from astraml_ray.data.encoding.tokenizers import train_tokenizer
from astraml_ray.data.encoding.words import WordEncoder
from astraml_ray.data.kept_tokens import TokenKeep
from astraml_ray.data.manifest import Manifest
from astraml_ray.data.microbatches import local_blocks
from astraml_ray.data.prepare import build_manifest
from astraml_ray.data.rows import row_place
from astraml_ray.data.sampling import make_sampler
from astraml_ray.spec.loading import parse_spec
from tests.conftest import word_rows
from tests.unit.format_files import save_to_disk
from tests.unit.images import image_rows
from tests.unit.test_bad_rows import error_of, manifest_of, texts_of

GOOD: list[dict[str, Any]] = word_rows(60, seed=1).to_pylist()
TEXTS = [row["text"] for row in GOOD]
HALF = '{"text": "half'


def json_lines(rows: Sequence[Any]) -> bytes:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()


def json_array(rows: Sequence[Any]) -> bytes:
    return b"[" + b",\n".join(b"17" if isinstance(row, str) else json.dumps(row).encode() for row in rows) + b"]"


def csv_lines(rows: Sequence[Any]) -> bytes:
    lines = ["one field" if isinstance(row, str) else f'"{row["text"]}",{row["label"]}' for row in rows]
    return "\n".join(["text,label", *lines, ""]).encode()


WRITERS: dict[str, Callable[[Sequence[Any]], bytes]] = {"jsonl": json_lines, "json": json_array, "csv": csv_lines}
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize("kind", WRITERS)
def test_a_record_that_does_not_parse_is_left_out(kind: str, packed: str, tmp_path: Path) -> None:
    rows: list[Any] = [*GOOD[:9], HALF, *GOOD[9:40], HALF, *GOOD[40:]]
    (tmp_path / f"train.{kind}{packed}").write_bytes(PACKERS[packed](WRITERS[kind](rows)))
    pq.write_table(word_rows(30, seed=2), tmp_path / "validation.parquet")
    error = error_of(tmp_path, tmp_path / "c")
    assert str(error.param).endswith(f"train.{kind}{packed}")
    assert error.message.startswith("row 9: ")
    assert "2 of 62 rows" in error.message
    manifest = manifest_of(tmp_path, tmp_path / "c", on_bad_row="skip", max_bad_fraction=0.1)
    assert manifest.splits["train"].left_out == ((9, 41),)
    assert texts_of(manifest) == TEXTS


@pytest.mark.parametrize("packed", [".gz", ".zst"])
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_parts_of_a_compressed_file(kind: str, packed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats.Bounds, "fragment", 700)
    rows: list[Any] = list(GOOD)
    rows.insert(50, HALF)
    parts = [WRITERS[kind](rows[:30]), WRITERS[kind](rows[30:])[len("text,label\n") if kind == "csv" else 0 :]]
    (tmp_path / f"train.{kind}{packed}").write_bytes(b"".join(PACKERS[packed](part) for part in parts))
    pq.write_table(word_rows(30, seed=2), tmp_path / "validation.parquet")
    assert "(row 50 of the file)" in error_of(tmp_path, tmp_path / "c").message
    manifest = manifest_of(tmp_path, tmp_path / "c", on_bad_row="skip", max_bad_fraction=0.1)
    assert len(manifest.splits["train"].fragments) > 3
    assert texts_of(manifest) == TEXTS


def write_small(folder: Path) -> None:
    """Four files that are one fragment; a line of the second does not parse, a text of the third is null."""
    train = folder / "train"
    train.mkdir(parents=True)
    parts: list[list[Any]] = [
        GOOD[:20],
        [*GOOD[20:23], HALF, *GOOD[23:40]],
        [{"text": None, "label": "cat"}],
        GOOD[40:],
    ]
    for name, part in zip("abcd", parts, strict=True):
        (train / f"{name}.jsonl").write_bytes(json_lines(part))
    pq.write_table(word_rows(30, seed=2), folder / "validation.parquet")


def test_rows_of_small_files_are_named_by_their_file(tmp_path: Path) -> None:
    write_small(tmp_path)
    error = error_of(tmp_path, tmp_path / "c")
    assert str(error.param).endswith("b.jsonl")
    assert error.message.startswith("row 3: at byte ")
    assert "c.jsonl: row 0: column 'text' is null" in error.message
    manifest = manifest_of(tmp_path, tmp_path / "c", on_bad_row="quarantine", max_bad_fraction=0.1)
    (fragment,) = manifest.splits["train"].fragments
    assert (fragment.count, fragment.rows) == (4, 62)
    assert texts_of(manifest) == TEXTS
    records = [json.loads(line) for line in quarantined(manifest).splitlines()]
    assert [(one["object"][-7:], one["row"], one["reason"]) for one in records] == [
        ("b.jsonl", 3, "unparsable"),
        ("c.jsonl", 0, "null"),
    ]
    assert records[0]["line"] == HALF + "\n"


@pytest.mark.parametrize("kind", ["jsonl.gz", "json"])
def test_a_small_file_that_is_damaged_costs_its_rows(kind: str, tmp_path: Path) -> None:
    train = tmp_path / "train"
    train.mkdir()
    for name, part in zip("abc", (GOOD[:30], GOOD[30:35], GOOD[35:]), strict=True):
        data = gzip.compress(json_lines(part)) if kind == "jsonl.gz" else json_array(part)
        (train / f"{name}.{kind}").write_bytes(data[:-9] if name == "b" else data)
    pq.write_table(word_rows(30, seed=2), tmp_path / "validation.parquet")
    error = error_of(tmp_path, tmp_path / "c")
    assert str(error.param).endswith(f"b.{kind}")
    assert "is damaged" in error.message
    manifest = manifest_of(tmp_path, tmp_path / "c", on_bad_row="quarantine", max_bad_fraction=0.2)
    (reason,) = manifest.left_out["train"].reasons.items()
    assert reason[0] == "damaged_file"
    assert 4 <= reason[1] <= 5
    assert texts_of(manifest) == [*TEXTS[:30], *TEXTS[35:]]
    assert len(quarantined(manifest).splitlines()) == reason[1]


def not_utf8(rows: Sequence[dict[str, Any]], place: int) -> pa.Table:
    texts = [row["text"].encode() for row in rows]
    texts[place] = b"b\xffd"
    column = pa.array(texts, pa.binary()).view(pa.string())
    return pa.table({"text": column, "label": [row["label"] for row in rows]})


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_text_that_is_no_utf8_costs_its_row(kind: str, tmp_path: Path) -> None:
    table, file = not_utf8(GOOD, 7), tmp_path / f"train.{kind}"
    if kind == "parquet":
        pq.write_table(table, file)
    else:
        with pa.ipc.new_stream(str(file), table.schema) as writer:
            writer.write_table(table)
    pq.write_table(word_rows(30, seed=2), tmp_path / "validation.parquet")
    assert "row 7: column 'text' is not UTF-8" in error_of(tmp_path, tmp_path / "c").message
    manifest = manifest_of(tmp_path, tmp_path / "c", on_bad_row="skip", max_bad_fraction=0.1)
    assert manifest.left_out["train"].reasons == {"not_utf8": 1}
    assert texts_of(manifest) == [*TEXTS[:7], *TEXTS[8:]]


@pytest.mark.parametrize("name", ["train.tar", "train.tar.gz"])
def test_a_sample_of_a_shard_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / name, "w:gz" if name.endswith("gz") else "w") as tar:
        for number, row in enumerate(GOOD):
            text = b"b\xffd" if number == 11 else row["text"].encode()
            for extension, data in {"txt": text, "cls": row["label"].encode()}.items():
                member = tarfile.TarInfo(f"{number:03}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    pq.write_table(word_rows(30, seed=2), tmp_path / "validation.parquet")
    assert "row 11: sample '011' is damaged" in error_of(tmp_path, tmp_path / "c").message
    manifest = manifest_of(tmp_path, tmp_path / "c", on_bad_row="skip", max_bad_fraction=0.1)
    assert texts_of(manifest) == [*TEXTS[:11], *TEXTS[12:]]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_an_image_that_is_only_named_costs_its_row(kind: str, tmp_path: Path) -> None:
    [image, other] = image_rows(2, seed=1)["image"].to_pylist()
    images = [{"bytes": None if n == 7 else (image, other)[n % 2], "path": f"{n}.png"} for n in range(300)]
    table = pa.table({"image": images, "label": ["cat", "dog", "cat"] * 100})
    (tmp_path / "d").mkdir()
    if kind == "parquet":
        pq.write_table(table, tmp_path / "d" / "train.parquet", row_group_size=100)
    else:
        save_to_disk(table, tmp_path / "d" / "train", features={}, shards=1, batch=100)
    pq.write_table(table[100:], tmp_path / "d" / "validation.parquet")
    assert "row 7: column 'image' is null" in error_of(tmp_path / "d", tmp_path / "c").message
    manifest = manifest_of(tmp_path / "d", tmp_path / "c", on_bad_row="skip", max_bad_fraction=0.01)
    assert manifest.left_out["train"].reasons == {"null": 1}
    assert "row 7: column 'image' is null" in manifest.left_out["train"].first[0]
    assert manifest.splits["train"].total_rows == 299


def test_a_row_group_of_images_that_are_only_named_is_left_out(tmp_path: Path) -> None:
    [image, other] = image_rows(2, seed=1)["image"].to_pylist()
    images = [{"bytes": None if n == 8 else (image, other)[n % 2], "path": f"{n}.png"} for n in range(9)]
    table = pa.table({"image": images, "label": ["cat", "dog", "cat"] * 3})
    pq.write_table(table, tmp_path / "train.parquet", row_group_size=4)
    pq.write_table(table[:8], tmp_path / "validation.parquet")
    assert "not in the dataset" in error_of(tmp_path, tmp_path / "c").message
    manifest = manifest_of(tmp_path, tmp_path / "c", on_bad_row="skip", max_bad_fraction=0.2)
    assert manifest.left_out["train"].reasons == {"unreadable": 1}
    assert manifest.splits["train"].total_rows == 8


def test_images_of_folders_are_decoded_where_bad_ones_are_left_out(tmp_path: Path) -> None:
    rows = image_rows(20, seed=1).to_pylist()
    for split in ("train", "validation"):
        for number, row in enumerate(rows):
            folder = tmp_path / "d" / split / str(row["label"])
            folder.mkdir(parents=True, exist_ok=True)
            data = row["image"]
            (folder / f"{number:02}.png").write_bytes(
                data[: len(data) // 2] if (split, number) == ("train", 4) else data
            )
    assert manifest_of(tmp_path / "d", tmp_path / "c").splits["train"].total_rows == 20
    manifest = manifest_of(tmp_path / "d", tmp_path / "c", on_bad_row="skip", max_bad_fraction=0.1)
    assert manifest.splits["train"].total_rows == 19
    assert manifest.left_out["train"].reasons == {"bad_image": 1}
    assert "04.png: row 0: column 'image': cannot be decoded" in manifest.left_out["train"].first[0]


@pytest.mark.parametrize("given", [True, False], ids=["validation given", "validation split off"])
def test_a_row_is_found_again_among_bad_ones(given: bool, tmp_path: Path) -> None:
    rows: list[Any] = [{"text": None, "label": "cat"}, *GOOD[:25], {"text": None, "label": "cat"}, *GOOD[25:]]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet", row_group_size=20)
    if given:
        pq.write_table(word_rows(30, seed=2), tmp_path / "validation.parquet")
    manifest = manifest_of(tmp_path, tmp_path / "c", on_bad_row="skip", max_bad_fraction=0.1, validation_fraction=0.3)
    for name in ("train",) if given else ("train", "validation"):
        split, texts, place = manifest.splits[name], texts_of(manifest, name), 0
        for index, fragment in enumerate(split.fragments):
            for row in range(split.rows[index]):
                where, number = row_place(manifest, split, index, row)
                assert where.endswith(f"row group {fragment.group}")
                assert rows[20 * fragment.group + number]["text"] == texts[place]
                place += 1


def sampled(folder: Path, cache: Path, **dataset: Any) -> Manifest:
    spec = parse_spec({"dataset": {"path": str(folder), **dataset}, "model": "m"}).dataset
    return build_manifest(spec, task="auto", cache=cache, count_classes=True)


@pytest.mark.parametrize("given", [True, False], ids=["validation given", "validation split off"])
def test_sampling_counts_good_rows_and_kept_tokens_are_drawn_alike(given: bool, tmp_path: Path) -> None:
    rows: list[Any] = [*GOOD, *({**GOOD[0], "text": f"rare {i}", "label": "rare"} for i in range(6))]
    bad = {"text": None, "label": "rare"}
    for name, found in (("clean", rows), ("dirty", [bad, *rows[:62], bad, *rows[62:]])):
        (tmp_path / name).mkdir()
        pq.write_table(pa.Table.from_pylist(found), tmp_path / name / "train.parquet")
        if given:
            pq.write_table(word_rows(30, seed=2), tmp_path / name / "validation.parquet")
    clean = sampled(tmp_path / "clean", tmp_path / "c")
    dirty = sampled(tmp_path / "dirty", tmp_path / "c", on_bad_row="skip", max_bad_fraction=0.1)
    assert dirty.splits["train"].classes == clean.splits["train"].classes
    assert Manifest.from_json(dirty.to_json()) == dirty
    encoder = TextEncoder(
        train_tokenizer(TEXTS, kind="wordpiece", vocab_size=200), "text-classification", 12, clean.labels
    )
    tables = []
    for manifest, keep in (
        (clean, None),
        (dirty, None),
        (dirty, TokenKeep(tmp_path / "t")),
        (dirty, TokenKeep(tmp_path / "t")),
    ):
        sampler = make_sampler(manifest, "balanced", seed=5)
        reader = BlockReader(manifest, manifest.splits["train"], encoder, 5, 8, 1, sampler=sampler, keep=keep)
        tables.append(pa.concat_tables(local_blocks(reader, epochs=3)))
    assert list((tmp_path / "t").glob("*.tokens"))
    assert all(table.equals(tables[0]) for table in tables)


def test_tokens_of_words_are_kept(tmp_path: Path) -> None:
    words = [row["text"].split() for row in GOOD]
    table = pa.table({"tokens": words, "ner_tags": [["O" if len(word) < 4 else "B" for word in row] for row in words]})
    pq.write_table(table, tmp_path / "train.parquet", row_group_size=13)
    manifest = manifest_of(tmp_path, tmp_path / "c", task="token-classification")
    encoder = WordEncoder(train_tokenizer(TEXTS, kind="wordpiece", vocab_size=200), 12, manifest.labels)
    kept = BlockReader(manifest, manifest.splits["train"], encoder, 5, 8, 1, keep=TokenKeep(tmp_path / "t"))
    expected = pa.concat_tables(local_blocks(replace(kept, keep=None), epochs=2))
    for _ in ("made", "kept"):
        assert pa.concat_tables(local_blocks(kept, epochs=2)).equals(expected)
