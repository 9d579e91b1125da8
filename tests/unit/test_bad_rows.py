"""Bad rows: found for every reason, left out as if they had never been there, and never more than allowed."""

from __future__ import annotations

import csv
import io
import json
import random
import struct
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from astraml_ray.cli.plan_page import plan_page
from astraml_ray.control.dry_run import dry_run
from astraml_ray.data import formats
from astraml_ray.data.bad_data.quarantine import quarantined
from astraml_ray.data.bad_data.rows import find_bad_rows
from astraml_ray.data.blocks import BlockReader
from astraml_ray.data.encoding.text import SEQUENCES, TextEncoder
from astraml_ray.data.encoding.tokenizers import train_tokenizer
from astraml_ray.data.formats.unify import plain_text
from astraml_ray.data.images.faults import decode_fault, header_fault
from astraml_ray.data.manifest import Manifest
from astraml_ray.data.microbatches import Position, local_blocks, micro_batches
from astraml_ray.data.prepare import build_manifest
from astraml_ray.data.rows import read_rows
from astraml_ray.errors import DataError
from astraml_ray.settings import load_settings
from astraml_ray.spec.loading import parse_spec
from astraml_ray.training.preparation import load_inputs, prepare, store_inputs
from astraml_ray.training.receipt import build_result
from astraml_ray.training.run_folder import RunFolder
from tests.conftest import word_rows

ROWS, GROUP, BATCH = 90, 20, 8
GOOD: list[dict[str, Any]] = word_rows(ROWS, seed=1).to_pylist()
TOKENIZER = train_tokenizer([row["text"] for row in GOOD], kind="wordpiece", vocab_size=200)


def manifest_of(folder: Path, cache: Path, **dataset: Any) -> Manifest:
    task = dataset.pop("task", "auto")
    spec = parse_spec({"dataset": {"path": str(folder), **dataset}, "model": "m"}).dataset
    return build_manifest(spec, task=task, cache=cache)


def error_of(folder: Path, cache: Path, **dataset: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        manifest_of(folder, cache, **dataset)
    return caught.value


def texts_of(manifest: Manifest, split: str = "train") -> list[str]:
    part = manifest.splits[split]
    return [text for i in range(len(part.fragments)) for text in read_rows(manifest, part, i)["text"].to_pylist()]


def batches_of(manifest: Manifest, *, world_size: int = 1, position: Position | None = None) -> list[Any]:
    """The rows of all workers' batches of two epochs, from a position on, in the global order."""
    encoder = TextEncoder(TOKENIZER, "text-classification", 12, manifest.labels, "[MASK]")
    split = manifest.splits["train"]
    reader = BlockReader(manifest, split, encoder, 7, BATCH, world_size)
    rows = []
    for rank in range(world_size):
        parts = micro_batches(
            local_blocks(reader, epochs=2, world_rank=rank, position=position),
            schema=SEQUENCES,
            rows_per_epoch=split.total_rows,
            batch_size=BATCH,
            epochs=2,
            world_rank=rank,
            world_size=world_size,
            position=position,
        )
        rows += [
            (part.epoch, row["position"], tuple(row["input_ids"]), tuple(row["labels"]))
            for part in parts
            for row in part.table.to_pylist()
        ]
    return sorted(rows)


def write_parquet(folder: Path, rows: Sequence[dict[str, Any] | None]) -> None:
    """Row groups of 20 rows of those that count; None is a row whose text is null."""
    folder.mkdir()
    schema = pa.schema([("text", pa.string()), ("label", pa.string())])
    with pq.ParquetWriter(folder / "train.parquet", schema) as writer:
        held: list[dict[str, Any]] = []
        good = 0
        for index, row in enumerate(rows):
            held.append(row or {"text": None, "label": "bird"})
            good += row is not None
            if good == GROUP or index == len(rows) - 1:
                writer.write_table(pa.Table.from_pylist(held, schema))
                held, good = [], 0
    pq.write_table(word_rows(30, seed=2), folder / "validation.parquet")


def write_jsonl(folder: Path, rows: Sequence[dict[str, Any] | None]) -> None:
    folder.mkdir()
    lines = [json.dumps(row) if row else '{"text": "cut sho' for row in rows]
    (folder / "train.jsonl").write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8", newline="")
    pq.write_table(word_rows(30, seed=2), folder / "validation.parquet")


def write_csv(folder: Path, rows: Sequence[dict[str, Any] | None]) -> None:
    folder.mkdir()
    file = io.StringIO()
    writer = csv.writer(file, quoting=csv.QUOTE_ALL)
    writer.writerow(["text", "label"])
    for row in rows:
        writer.writerow([row["text"].replace(" ", "\n", 1), row["label"]] if row else ["one field, in quotes"])
    (folder / "train.csv").write_text(file.getvalue(), newline="")
    pq.write_table(word_rows(30, seed=2), folder / "validation.parquet")


WRITERS = {"parquet": write_parquet, "jsonl": write_jsonl, "csv": write_csv}


@pytest.mark.parametrize("kind", sorted(WRITERS))
@settings(max_examples=6, deadline=None)
@given(places=st.lists(st.integers(0, ROWS), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_a_dataset_with_bad_rows_is_the_dataset_without_them(kind: str, places: list[int], seed: int) -> None:
    dirty: list[dict[str, Any] | None] = list(GOOD)
    for place in places:
        dirty.insert(place, None)
    with tempfile.TemporaryDirectory() as temporary, pytest.MonkeyPatch.context() as patch:
        # Datasets of lines are one fragment here: their bytes, and so where they are cut, are not the same.
        patch.setattr(formats.Bounds, "fragment", 1 << 20)
        folder = Path(temporary)
        WRITERS[kind](folder / "dirty", dirty)
        WRITERS[kind](folder / "clean", GOOD)
        left = manifest_of(folder / "dirty", folder / "c", on_bad_row="skip", max_bad_fraction=0.4)
        clean = manifest_of(folder / "clean", folder / "c")
        assert left.left_out["train"].count == len(places)
        assert left.left_out["train"].rows == ROWS + len(places)
        assert (left.labels, left.splits["train"].total_rows) == (clean.labels, ROWS)
        assert texts_of(left) == texts_of(clean)
        assert Manifest.from_json(left.to_json()) == left
        expected = batches_of(clean)
        assert batches_of(left) == expected
        world_size = random.Random(seed).choice([2, 3])
        assert batches_of(left, world_size=world_size) == expected
        start = random.Random(seed).randrange(0, ROWS, BATCH)
        resumed = batches_of(left, world_size=world_size, position=Position(1, start))
        assert resumed == [row for row in expected if (row[0], row[1]) >= (1, start)]


def test_lines_that_do_not_parse_are_named_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats.Bounds, "fragment", 300)
    lines = [json.dumps(row).encode() for row in GOOD]
    lines[60] = b'{"text": "half'
    lines[61] = b"[1]"
    lines[62] = b'{"text": "\xff\xfe", "label": "bird"}'
    (tmp_path / "train.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    byte = len(b"\n".join(lines[:60])) + 1
    error = error_of(tmp_path, tmp_path / "c")
    assert "train.jsonl, from byte" in str(error.param)
    assert f"at byte {byte}:" in error.message
    assert "(row 60 of the file)" in error.message
    assert "3 of 90 rows cannot be trained on (2 unparsable, 1 not_utf8)" in error.message
    assert "on_bad_row=quarantine" in (error.hint or "")
    manifest = manifest_of(tmp_path, tmp_path / "c", on_bad_row="skip", max_bad_fraction=0.1)
    assert sorted(texts_of(manifest) + texts_of(manifest, "validation")) == sorted(
        row["text"] for index, row in enumerate(GOOD) if index not in (60, 61, 62)
    )


def test_the_limit_is_of_each_split_and_counts_what_is_beyond_it(tmp_path: Path) -> None:
    write_parquet(tmp_path / "d", [*GOOD, None])
    assert manifest_of(tmp_path / "d", tmp_path / "c", on_bad_row="skip", max_bad_fraction=1 / 91).left_out
    error = error_of(tmp_path / "d", tmp_path / "c", on_bad_row="skip", max_bad_fraction=0.01)
    assert error.param == "/dataset/max_bad_fraction"
    assert "1 of 91 rows of train" in error.message
    assert "1.00% may be left out" in error.message
    assert "column 'text' is null" in error.message


def test_an_unknown_class_is_left_out_of_validation(tmp_path: Path) -> None:
    write_parquet(tmp_path / "d", GOOD)
    rows = [{"text": "a", "label": "reptile"}, *word_rows(30, seed=2).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d" / "validation.parquet")
    assert "'reptile'" in error_of(tmp_path / "d", tmp_path / "c").message
    manifest = manifest_of(tmp_path / "d", tmp_path / "c", on_bad_row="skip", max_bad_fraction=0.1)
    assert manifest.left_out["validation"].reasons == {"unknown_class": 1}
    assert texts_of(manifest, "validation") == word_rows(30, seed=2)["text"].to_pylist()


def test_bad_rows_are_sought_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "d", [None, *GOOD])
    error_of(tmp_path / "d", tmp_path / "c")
    first = manifest_of(tmp_path / "d", tmp_path / "c", on_bad_row="skip", max_bad_fraction=0.1)
    monkeypatch.setattr("astraml_ray.data.scan.read_checked", lambda *_: pytest.fail("read again"))
    assert manifest_of(tmp_path / "d", tmp_path / "c", on_bad_row="skip", max_bad_fraction=0.1) == first


def test_a_damaged_row_group_is_left_out_as_a_whole(tmp_path: Path) -> None:
    write_parquet(tmp_path / "d", GOOD)
    file = tmp_path / "d" / "train.parquet"
    column = pq.ParquetFile(file).metadata.row_group(1).column(0)
    data = bytearray(file.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    file.write_bytes(bytes(data))
    error = error_of(tmp_path / "d", tmp_path / "c")
    assert "row group 1" in str(error.param)
    assert "damaged" in error.message or "20 of 90 rows" in error.message
    manifest = manifest_of(tmp_path / "d", tmp_path / "c", on_bad_row="skip", max_bad_fraction=0.3)
    assert manifest.left_out["train"].reasons == {"unreadable": 20}
    assert [fragment.group for fragment in manifest.left_out["train"].unreadable] == [1]
    assert texts_of(manifest) == [row["text"] for index, row in enumerate(GOOD) if not 20 <= index < 40]
    assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize("target", [None, "class"])
def test_blank_texts_are_no_bad_rows(target: str | None, tmp_path: Path) -> None:
    table = pa.table({"text": ["", "  ", "a"] * 10, "label": ["x", "y", "x"] * 10})
    assert find_bad_rows(table, {"text": "text", "label": "label"}, "class") == []


def _of(table: pa.Table, columns: dict[str, str], target: Any, **more: Any) -> list[tuple[int, str]]:
    return [(one.row, one.reason) for one in find_bad_rows(table, columns, target, **more)]


class TestReasons:
    """Each reason, row by row."""

    def test_null_in_any_role(self) -> None:
        table = pa.table({"a": ["x", None, "y"], "b": [1, 2, None]})
        assert _of(table, {"text": "a", "label": "b"}, "class") == [(1, "null"), (2, "null")]
        assert _of(pa.table({"a": pa.nulls(2)}), {"text": "a"}, None) == [(0, "null"), (1, "null")]
        assert _of(pa.table({"a": pa.array(["x", None]).dictionary_encode()}), {"text": "a"}, None) == [(1, "null")]

    def test_broken_utf8(self) -> None:
        letters = pa.array(["ab", "cd"]).buffers()[1]
        text = pa.Array.from_buffers(pa.string(), 2, [None, letters, pa.py_buffer(b"ab\xff\xfe")])
        assert _of(pa.table({"t": text}), {"text": "t"}, None) == [(1, "not_utf8")]
        assert _of(pa.table({"t": [b"ab", b"\xff"]}), {"text": "t"}, None) == [(1, "not_utf8")]

    def test_numbers(self) -> None:
        written = pa.table({"t": ["a"] * 6, "y": ["1.5", "two", "nan", None, " ", "-3"]})
        roles = {"text": "t", "label": "y"}
        assert _of(written, roles, "number") == [
            (1, "not_a_number"),
            (2, "not_finite"),
            (3, "null"),
            (4, "not_a_number"),
        ]
        table = pa.table({"t": ["a"] * 4, "y": [1.0, float("inf"), float("nan"), 2.0]})
        assert _of(table, roles, "number") == [(1, "not_finite"), (2, "not_finite")]
        assert _of(table, roles, "class") == [(1, "not_finite"), (2, "not_finite")]

    def test_words_and_tags(self) -> None:
        words = pa.chunked_array([[["a", "b"], ["c"]], [["d"], None, ["e", None], ["f"]]])
        tags = pa.chunked_array([[["X", "Y"], ["X", "Y"]], [["X"], ["X"], ["X", "X"], ["Z"]]])
        roles = {"tokens": "w", "label": "t"}
        found = _of(pa.table({"w": words, "t": tags}), roles, "tags", classes=("X", "Y"))
        assert found == [(1, "unequal_lengths"), (3, "null"), (4, "null_in_list"), (5, "unknown_class")]

    def test_unknown_classes_are_compared_as_training_writes_them(self) -> None:
        table = pa.table({"t": ["a"] * 3, "y": [1.0, 3.0, 2.0]})
        assert _of(table, {"text": "t", "label": "y"}, "class", classes=("1", "2")) == [(1, "unknown_class")]

    def test_whole_numbers_beyond_int64_are_classes_of_their_own(self) -> None:
        table = pa.table({"t": ["a"] * 4, "y": [1e10, 1e300, 2.5, 2.0**63]})
        classes = ("10000000000", "1e+300", "2.5")
        assert _of(table, {"text": "t", "label": "y"}, "class", classes=classes) == [(3, "unknown_class")]
        assert [plain_text(value) for value in (1e10, 1e300, 2.5)] == list(classes)

    def test_images_by_their_check(self) -> None:
        table = pa.table({"i": [{"bytes": b"good"}, {"bytes": None}, {"bytes": b"bad"}], "y": ["a", "b", "c"]})
        check = lambda data: "is no image" if data == b"bad" else None  # noqa: E731
        found = _of(table, {"image": "i", "label": "y"}, "class", check_image=check)
        assert found == [(1, "null"), (2, "bad_image")]

    def test_lists_among_values_in_json(self, tmp_path: Path) -> None:
        lines = [json.dumps(row) for row in GOOD]
        lines[5] = '{"text": ["a"], "label": "bird"}'
        (tmp_path / "train.jsonl").write_text("\n".join(lines))
        manifest = manifest_of(tmp_path, tmp_path / "c", on_bad_row="skip", max_bad_fraction=0.1)
        assert manifest.left_out["train"].reasons == {"unparsable": 1}
        assert "holds a list" in manifest.left_out["train"].first[0]


@pytest.mark.parametrize("huge", [1e300, 2.0**63])
def test_a_number_is_one_class_whatever_stands_beside_it(huge: float, tmp_path: Path) -> None:
    """In a row group, in small files of other types, and where it is compared with the known classes."""
    for number, labels in enumerate([[1e10, 2.5] * 5, [1e10, huge] * 5, [10**10, 7] * 5]):
        texts = [f"text {number} {row}" for row in range(10)]
        pq.write_table(pa.table({"text": texts, "label": labels}), tmp_path / f"train-{number}.parquet")
    pq.write_table(pa.table({"text": ["a", "b"], "label": [1e10, huge]}), tmp_path / "validation.parquet")
    for policy in ("fail", "skip"):
        manifest = manifest_of(tmp_path, tmp_path / "c", on_bad_row=policy)
        assert set(manifest.labels) == {"7", "2.5", "10000000000", str(pa.scalar(huge).cast(pa.string()))}
        assert not manifest.left_out


def test_a_quote_that_is_not_closed_costs_its_line(tmp_path: Path) -> None:
    rows = [f"{row['text']},{row['label']}" for row in GOOD]
    rows[7] = '"never closed'
    (tmp_path / "train.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    manifest = manifest_of(tmp_path, tmp_path / "c", on_bad_row="skip", max_bad_fraction=0.1)
    assert manifest.left_out["train"].reasons == {"unparsable": 1}
    assert sorted(texts_of(manifest) + texts_of(manifest, "validation")) == sorted(
        row["text"] for index, row in enumerate(GOOD) if index != 7
    )


def test_lines_of_text_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_bytes(b"one\n\ntwo\r\nb\xffd\nfour\n")
    manifest = manifest_of(
        tmp_path, tmp_path / "c", on_bad_row="skip", max_bad_fraction=0.3, task="masked-lm", validation_fraction=0.01
    )
    assert manifest.left_out["train"].reasons == {"not_utf8": 1}
    assert sorted(texts_of(manifest) + texts_of(manifest, "validation")) == ["four", "one", "two"]


def test_what_is_not_a_rows_fault_is_never_left_out(tmp_path: Path) -> None:
    """A file without the column."""
    write_parquet(tmp_path / "d", GOOD)
    (tmp_path / "d" / "train").mkdir()
    (tmp_path / "d" / "train.parquet").rename(tmp_path / "d" / "train" / "a.parquet")
    pq.write_table(pa.table({"body": ["x"], "label": ["bird"]}), tmp_path / "d" / "train" / "b.parquet")
    error = error_of(tmp_path / "d", tmp_path / "c", on_bad_row="skip", max_bad_fraction=0.5)
    assert "has no column 'text'" in error.message


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (40, 30), **more: Any) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(file, kind, **more)
    return file.getvalue()


class TestImages:
    """Only what cannot become pixels is bad; a header tells some of it, decoding all."""

    @pytest.mark.parametrize(
        "data",
        [
            encoded("JPEG"),
            encoded("JPEG", "CMYK"),
            encoded("PNG", "I;16"),
            encoded("PNG", "P"),
            encoded("WEBP"),
            encoded("GIF", save_all=True, append_images=[Image.new("RGB", (40, 30), "red")]),
        ],
        ids=["jpeg", "cmyk", "16-bit", "palette", "webp", "animated"],
    )
    def test_odd_images_are_good(self, data: bytes) -> None:
        assert header_fault(data) is None
        assert decode_fault(data) is None

    @pytest.mark.parametrize(
        ("data", "word"),
        [(b"", "empty"), (b"<html>", "no format"), (encoded("PNG")[:20], "")],
        ids=["0", "html", "cut"],
    )
    def test_what_is_no_image_shows_in_its_header(self, data: bytes, word: str) -> None:
        assert word in (header_fault(data) or pytest.fail("accepted"))

    def test_an_image_cut_short_shows_when_it_is_decoded(self) -> None:
        for data in (encoded("JPEG", size=(400, 300)), encoded("PNG")):
            assert header_fault(data[: len(data) // 2]) is None
            assert "cannot be decoded" in (decode_fault(data[: len(data) // 2]) or "")

    @pytest.mark.parametrize("side", [20_000, 60_000])
    def test_a_bomb_is_refused_by_what_it_claims(self, side: int) -> None:
        """A valid header of 400 or 3,600 million pixels, with nothing behind it."""
        head = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        chunks = struct.pack(">I", 13) + head + struct.pack(">II", zlib.crc32(head), 99) + b"IDAT"
        bomb = b"\x89PNG\r\n\x1a\n" + chunks
        for look in (header_fault, decode_fault):
            assert "64,000,000" in (look(bomb) or "")

    def test_they_are_decoded_only_where_bad_ones_are_left_out(self, tmp_path: Path) -> None:
        images = [encoded("JPEG", size=(100 + i, 100)) for i in range(40)]
        images[3] = images[3][:900]
        table = pa.table({"image": [{"bytes": data, "path": None} for data in images], "label": ["cat", "dog"] * 20})
        pq.write_table(table, tmp_path / "train.parquet")
        assert not manifest_of(tmp_path, tmp_path / "c").left_out
        left = manifest_of(tmp_path, tmp_path / "c", on_bad_row="quarantine", max_bad_fraction=0.1)
        assert left.left_out["train"].reasons == {"bad_image": 1}
        assert "row 3: column 'image': cannot be decoded" in left.left_out["train"].first[0]
        [line] = quarantined(left).splitlines()
        assert json.loads(line)["values"]["image"]["bytes"] == 900


def test_the_quarantine_has_each_bad_row_where_it_is_and_what_it_holds(tmp_path: Path) -> None:
    lines = [json.dumps(row).encode() for row in GOOD]
    lines[3] = b'{"text": "half'
    lines[8] = b'{"text": null, "label": "bird"}'
    lines[9] = b'{"text": "\xff' + b"x" * 10_000 + b'", "label": "bird"}'
    (tmp_path / "train.jsonl").write_bytes(b"\n".join(lines))
    manifest = manifest_of(tmp_path, tmp_path / "c", on_bad_row="quarantine", max_bad_fraction=0.1)
    records = [json.loads(line) for line in quarantined(manifest).splitlines()]
    assert [(one["row"], one["reason"]) for one in records] == [(3, "unparsable"), (8, "null"), (9, "not_utf8")]
    assert {(one["split"], one["object"], one["byte"]) for one in records} == {("train", manifest.objects[0].uri, 0)}
    assert records[0]["line"] == '{"text": "half\n'
    assert records[1]["values"] == {"text": None, "label": "bird"}
    assert records[2]["values"]["text"]["bytes"] == 10_001
    assert len(json.dumps(records[2])) < 4000
    short = quarantined(manifest, most_bytes=600).splitlines()
    assert json.loads(short[-1]) == {"more": 3 - len(short) + 1}


def test_credentials_are_in_no_message(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,x\nb,y\nS3cretS3cret\n")
    spec = parse_spec({"dataset": str(tmp_path), "model": "m"}).dataset
    secret = '{"access_key_id": "AKIAXXXXXXXX", "secret_access_key": "S3cretS3cret"}'
    with pytest.raises(DataError) as caught:
        build_manifest(spec, task="auto", cache=tmp_path / "c", secret=lambda: secret)
    assert "Expected 2 columns, got 1" in caught.value.message
    assert "S3cret" not in str(caught.value)


def test_a_run_tells_what_it_leaves_out(tmp_path: Path) -> None:
    write_parquet(tmp_path / "d", [*GOOD, None])
    dataset = {"path": str(tmp_path / "d"), "on_bad_row": "quarantine", "max_bad_fraction": 0.1}
    document = {"dataset": dataset, "model": "tiny-bert"}
    inputs, warnings = prepare(parse_spec(document), load_settings())
    [warning] = [one for one in warnings if one.param == "/dataset/on_bad_row"]
    assert "1 of 91 rows of train are left out (1 null); the first: file://" in warning.message
    assert inputs.train_rows == ROWS
    folder = RunFolder(str(tmp_path / "run"))
    store_inputs(inputs, folder)
    assert load_inputs(folder).manifest == inputs.manifest
    assert json.loads(folder.read("quarantine.jsonl"))["reason"] == "null"
    outcome = {"reason": "completed", "steps": 1, "best_step": 1, "epochs_completed": 1, "metrics": {}}
    result = build_result(inputs, folder, outcome, attempts=1, divisor=1)
    assert result["rows_left_out"] == {"train": {"null": 1}}
    plan = dry_run(document)
    assert plan["dataset"]["left_out"]["train"]["reasons"] == {"null": 1}
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(plan_page(plan))
    assert "1 of 91 rows of train left out: 1 null" in console.export_text()


def test_a_dataset_without_bad_rows_keeps_the_digest_that_it_had(tmp_path: Path) -> None:
    write_parquet(tmp_path / "d", GOOD)
    manifest = manifest_of(tmp_path / "d", tmp_path / "c")
    assert "left_out" not in manifest.to_json()
    assert manifest.digest() == manifest_of(tmp_path / "d", tmp_path / "c", on_bad_row="skip").digest()
