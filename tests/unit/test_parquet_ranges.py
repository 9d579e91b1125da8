"""A large Parquet row group is read in ranges of rows: the same rows, of every type, from the bytes that hold them."""

from __future__ import annotations

import io
import json
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astraml_ray.data.bad_data.quarantine import quarantined
from astraml_ray.data.formats import Bounds, Fragment, fragment_of, fragments_of, read_fragment
from astraml_ray.data.formats.fragment import PageRange
from astraml_ray.data.formats.parquet_pages import Chunk, pages_of
from astraml_ray.data.formats.parquet_ranges import ranges_of, rows_of_range
from astraml_ray.data.formats.thrift import parsed, written
from astraml_ray.data.manifest import Manifest
from astraml_ray.data.prepare import build_manifest
from astraml_ray.data.rows import read_rows, row_place
from astraml_ray.data.storage.credentials import OWN
from astraml_ray.data.storage.objects import list_objects
from astraml_ray.errors import DamagedError, DataError
from astraml_ray.spec.loading import parse_spec

ROWS = 6000
SMALL_PAGES = {"data_page_size": 4000, "write_batch_size": 64, "dictionary_pagesize_limit": 3000}


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is large, and the ranges, a thousandth."""
    monkeypatch.setattr(Bounds, "fragment", 20 << 10)
    monkeypatch.setattr(Bounds, "whole", 80 << 10)
    monkeypatch.setattr(Bounds, "frame", 160 << 10)


def all_types(rows: int = ROWS) -> pa.Table:
    random = np.random.default_rng(0)
    words = [f"w{i}" for i in range(3000)]

    def some(count: int) -> list[str]:
        return [words[i] for i in random.integers(0, len(words), count)]

    day = datetime(2020, 1, 1)
    table = pa.table(
        {
            "text": [None if i % 97 == 0 else " ".join(some(20)) for i in range(rows)],
            "required": [f"r{i}" for i in range(rows)],
            "label": np.arange(rows) % 7,
            "number": random.random(rows),
            "flag": random.random(rows) > 0.5,
            "tags": [None if i % 11 == 0 else some(i % 9) for i in range(rows)],
            "long": [some(400) if i % 500 == 7 else [] for i in range(rows)],
            "chat": [[{"role": "u", "text": some(2), "n": i} for _ in range(i % 4)] for i in range(rows)],
            "image": [None if i % 13 == 0 else {"bytes": bytes(i % 90), "path": f"p{i}"} for i in range(rows)],
            "exact": pa.array([Decimal(i) for i in range(rows)], pa.decimal128(20, 2)),
            "time": [day + timedelta(seconds=i) for i in range(rows)],
            "kind": pa.array([f"c{i % 5}" for i in range(rows)]).dictionary_encode(),
            "a.b": np.arange(rows),
            "map": pa.array([[(f"k{j}", j) for j in range(i % 3)] for i in range(rows)], pa.map_("string", "int32")),
            "large": pa.array([" ".join(some(2)) for _ in range(rows)], pa.large_string()),
        }
    )
    schema = table.schema
    for name in ("required", "label", "number", "flag", "exact"):
        place = schema.get_field_index(name)
        schema = schema.set(place, schema.field(place).with_nullable(False))
    return table.cast(schema)


TABLE = all_types()


def write(table: pa.Table, path: Path, **options: Any) -> Path:
    pq.write_table(table, path, row_group_size=len(table), **{**SMALL_PAGES, **options})
    return path


def fragments_at(path: Path, cache: Path | None = None) -> list[Fragment]:
    objects = list_objects(str(path))
    return list(fragments_of(objects, ["parquet"] * len(objects), range(len(objects)), OWN, cache))


def read_all(path: Path, columns: list[str] | None) -> pa.Table:
    objects = list_objects(str(path))
    parts = [read_fragment(objects, part, "parquet", columns, OWN) for part in fragments_at(path)]
    return pa.concat_tables(parts)


WRITINGS: list[dict[str, Any]] = [
    {},
    {"data_page_version": "2.0", "compression": "zstd"},
    {"write_page_index": True, "compression": "gzip"},
    {"data_page_version": "2.0", "write_page_index": True, "compression": "lz4", "use_dictionary": False},
    {"compression": "brotli", "dictionary_pagesize_limit": 100_000, "write_page_checksum": True},
    {
        "compression": "none",
        "use_dictionary": False,
        "column_encoding": {"text": "DELTA_BYTE_ARRAY", "label": "DELTA_BINARY_PACKED", "number": "BYTE_STREAM_SPLIT"},
    },
]


@pytest.mark.parametrize("options", WRITINGS)
def test_the_rows_are_those_of_the_row_group(options: dict[str, Any], tmp_path: Path) -> None:
    """However it was written: every column, whatever its pages, and any choice of them."""
    path = write(TABLE, tmp_path / "t.parquet", **options)
    parts = fragments_at(path)
    assert len(parts) >= 3
    assert all(isinstance(part, PageRange) for part in parts)
    assert [part.start for part in parts] == [0, *np.cumsum([part.rows for part in parts])[:-1]]
    assert sum(part.rows for part in parts) == ROWS
    plain = TABLE.set_column(11, TABLE.schema.field(11).with_type(pa.string()), TABLE["kind"].cast(pa.string()))
    plain = plain.set_column(
        8, "image", pa.chunked_array([pa.array([bytes(i % 90) if i % 13 else None for i in range(ROWS)])])
    )
    for columns in (None, ["text"], ["a.b", "text"], ["image", "tags"], ["long", "flag"], ["chat"], ["map", "kind"]):
        wanted = plain.select(columns) if columns else plain
        assert read_all(path, columns).combine_chunks().to_pylist() == wanted.to_pylist()


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.one_of(st.none(), st.integers(0, 5), st.integers(200, 900)), min_size=30, max_size=200),
    version=st.sampled_from(["1.0", "2.0"]),
    index=st.booleans(),
    page=st.sampled_from([64, 700, 5000]),
    batch=st.sampled_from([1, 10, 64]),
)
def test_lists_that_go_on_over_pages(
    lengths: list[int | None], version: str, index: bool, page: int, batch: int
) -> None:
    """A row's list may begin in one page and end pages later, and nothing but its levels tells."""
    texts = [f"{i:0400d}" for i in range(len(lengths))]
    lists = pa.array([None if n is None else list(range(n)) for n in lengths], pa.list_(pa.int64()))
    table = pa.table({"text": texts, "list": lists, "deep": [[row, row] if row else None for row in lists.to_pylist()]})
    sink = io.BytesIO()
    options = {"data_page_version": version, "write_page_index": index}
    pq.write_table(table, sink, data_page_size=page, write_batch_size=batch, use_dictionary=False, **options)
    file = pq.ParquetFile(sink)
    footer = parsed(sink.getvalue()[-8 - file.metadata.serialized_size : -8])[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bounds, "fragment", 2000)
        parts = ranges_of(sink, file.schema, Fragment(0, len(table), file.metadata.row_group(0).total_byte_size))
        got = [rows_of_range(sink, file.schema, part, None) for part in parts if isinstance(part, PageRange)]
    assert len(got) == len(parts) > 1
    assert pa.concat_tables(got).to_pylist() == table.to_pylist()
    for place, column in enumerate(footer[4][1][1][0][1][1][1]):
        chunk = Chunk.of(column, file.schema.column(place).max_repetition_level)
        pages = pages_of(chunk, lambda start, stop: sink.getvalue()[start:stop])
        assert pages[-1].stop == chunk.stop


def test_ordinary_row_groups_are_fragments_as_ever(tmp_path: Path) -> None:
    """Manifests and what is kept by their contents stay valid."""
    table = TABLE.select(["text", "label"])
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=500)
    groups = [pq.ParquetFile(tmp_path / "t.parquet").metadata.row_group(i) for i in range(12)]
    wanted = [Fragment(0, 500, group.total_byte_size, group=i) for i, group in enumerate(groups)]
    assert fragments_at(tmp_path / "t.parquet") == wanted
    assert all(type(part) is Fragment for part in fragments_at(tmp_path / "t.parquet"))


def test_a_row_group_without_an_index_is_cut_when_it_is_larger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pages are found by reading it; an offset index tells them at once."""
    table = TABLE.select(["text", "label"])
    size = pq.ParquetFile(write(table, tmp_path / "plain.parquet")).metadata.row_group(0).total_byte_size
    write(table, tmp_path / "indexed.parquet", write_page_index=True)
    for bound, parts in ((size - 1, (True, True)), (size, (False, True))):
        monkeypatch.setattr(Bounds, "frame", bound)
        found = [fragments_at(tmp_path / f"{name}.parquet") for name in ("plain", "indexed")]
        assert tuple(len(one) > 3 for one in found) == parts


def test_a_footer_is_written_as_it_was(tmp_path: Path) -> None:
    for options in WRITINGS:
        data = write(TABLE, tmp_path / "t.parquet", **options).read_bytes()
        footer = data[-8 - int.from_bytes(data[-8:-4], "little") : -8]
        found, end = parsed(footer)
        assert end == len(footer)
        assert written(found) == footer
        for cut in range(0, len(footer), 97):
            with pytest.raises(ValueError, match=r"cut short|type|bits|deeply"):
                parsed(footer[:cut])


def test_ranges_are_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(TABLE, tmp_path / "t.parquet")
    found = fragments_at(path, tmp_path / "cache")
    monkeypatch.setattr("astraml_ray.data.formats.parquet.ranges_of", lambda *_: pytest.fail("walked again"))
    assert fragments_at(path, tmp_path / "cache") == found
    assert all(
        hash(part) == hash(again) for part, again in zip(found, fragments_at(path, tmp_path / "cache"), strict=True)
    )


def manifest_of(folder: Path, cache: Path, **dataset: Any) -> Manifest:
    spec = parse_spec({"dataset": {"path": str(folder), **dataset}, "model": "m"}).dataset
    return build_manifest(spec, task="text-classification", cache=cache)


def test_a_manifest_keeps_ranges_and_their_rows(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    rows = {"text": [f"{i} {'x' * 90}{i * 7919}" for i in range(ROWS)], "label": ["a", "b", "c"] * (ROWS // 3)}
    write(pa.table(rows), folder / "train.parquet")
    manifest = manifest_of(folder, tmp_path / "c")
    again = Manifest.from_json(manifest.to_json())
    assert again == manifest
    assert again.digest() == manifest.digest()
    assert fragment_of(json.loads(json.dumps({"source": 0, "rows": 1, "size": 2}))) == Fragment(0, 1, 2)
    both = [read_rows(again, split, i)["text"] for split in again.splits.values() for i in range(len(split.fragments))]
    assert sorted(pa.chunked_array([c for part in both for c in part.chunks]).to_pylist()) == sorted(rows["text"])
    split = again.splits["train"]
    place, row = row_place(again, split, 2, 5)
    first = int(place.rpartition("counted from row ")[2])
    assert place.startswith(f"{again.objects[0].uri}, row group 0, ")
    assert read_rows(again, split, 2)["text"][5].as_py() == rows["text"][first + row]


def test_a_bad_row_is_told_by_its_number_in_the_row_group(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    texts: list[str | None] = [f"{i} {'x' * 90}{i * 7919}" for i in range(ROWS)]
    texts[4321] = None
    write(pa.table({"text": texts, "label": ["a", "b", "c"] * (ROWS // 3)}), folder / "train.parquet")
    with pytest.raises(DataError) as caught:
        manifest_of(folder, tmp_path / "c")
    first = int(str(caught.value.param).rpartition("row group 0, counted from row ")[2])
    assert first > 0
    assert f"row {4321 - first} (row 4321 of the file): column 'text' is null" in caught.value.message
    manifest = manifest_of(folder, tmp_path / "c", on_bad_row="quarantine", max_bad_fraction=0.01)
    [record] = map(json.loads, quarantined(manifest).splitlines())
    assert (record["row_group"], record["row"], record["reason"]) == (0, 4321, "null")


def test_damage_is_named_and_costs_its_ranges(tmp_path: Path) -> None:
    path = write(TABLE.select(["text", "label"]), tmp_path / "t.parquet", compression="snappy")
    parts = fragments_at(path)
    objects = list_objects(str(path))
    data = bytearray(path.read_bytes())
    hurt = parts[1]
    assert isinstance(hurt, PageRange)
    _, start, stop, _ = hurt.pages[0]
    data[start + 300 : stop] = b"\xa5" * (stop - start - 300)
    path.write_bytes(data)
    objects = list_objects(str(path))
    with pytest.raises(DamagedError) as caught:
        read_fragment(objects, hurt, "parquet", ["text"], OWN)
    assert caught.value.param == objects[0].uri
    assert (
        read_fragment(objects, parts[-1], "parquet", ["text"], OWN)["text"].to_pylist()
        == TABLE["text"].to_pylist()[parts[-1].start :]
    )
    # Where pages can no longer be told from one another, the row group is one fragment, and reading it says the rest.
    [whole] = fragments_at(path)
    assert type(whole) is Fragment
    with pytest.raises(DamagedError):
        read_fragment(objects, whole, "parquet", ["text"], OWN)


@pytest.mark.parametrize("options", WRITINGS[:3])
def test_whatever_is_damaged_is_called_damaged(options: dict[str, Any], tmp_path: Path) -> None:
    """In pages, their headers, the offset index or the footer; the rest is read."""
    good = write(TABLE.select(["text", "tags", "label"]), tmp_path / "t.parquet", **options).read_bytes()
    random = np.random.default_rng(0)
    told: list[str | None] = []
    for _ in range(30):
        data = bytearray(good)
        for place in random.integers(0, len(data), 3).tolist() + (len(data) - random.integers(1, 3000, 2)).tolist():
            data[place] = int(random.integers(256))
        (tmp_path / "t.parquet").write_bytes(data)
        objects = list_objects(str(tmp_path / "t.parquet"))
        try:
            for part in fragments_of(objects, ["parquet"], range(1), OWN):
                read_fragment(objects, part, "parquet", None, OWN)
        except DamagedError as error:
            told.append(error.param)
    assert len(told) > 10
    assert set(told) == {objects[0].uri}


def test_reads_of_a_range_are_of_its_bytes(tmp_path: Path) -> None:
    """No range reads what the others have: all of them together read little more than the file."""
    path = write(TABLE.select(["text", "label"]), tmp_path / "t.parquet", use_dictionary=False)
    parts = fragments_at(path)
    read = sum(stop - start for part in parts if isinstance(part, PageRange) for _, start, stop, _ in part.pages)
    assert len(parts) > 20
    assert read < 1.3 * path.stat().st_size
