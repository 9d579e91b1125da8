"""The same rows written in every format, and read back through the functions that training reads with."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.feather
import pyarrow.parquet as pq
import zstandard

from astraml_ray.data.formats import Fragment, fragments_of, listing_of, read_fragment
from astraml_ray.data.splits import data_objects
from astraml_ray.data.storage.credentials import OWN
from astraml_ray.data.storage.objects import list_objects

Writer = Callable[[pa.Table, Path], None]


def jsonl(table: pa.Table) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist()).encode()


def delimited(table: pa.Table, delimiter: str = ",", end: str = "\n") -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end)
    writer.writerow(table.column_names)
    writer.writerows(tuple(row.values()) for row in table.to_pylist())
    return out.getvalue().encode()


def zstd_frames(data: bytes, frame: int = 1 << 30) -> bytes:
    """Frames of so many bytes each, with checksums in every second one."""
    parts = [data[i : i + frame] for i in range(0, len(data), frame)]
    return b"".join(
        zstandard.ZstdCompressor(write_checksum=bool(i % 2), write_content_size=bool(i % 3)).compress(part)
        for i, part in enumerate(parts)
    )


def write_rows(rows: list[dict[str, Any]], path: Path) -> None:
    """Rows as JSON Lines, CSV or Parquet of many row groups, as the path ends."""
    table = pa.Table.from_pylist(rows)
    match path.suffix:
        case ".jsonl":
            path.write_bytes(jsonl(table))
        case ".csv":
            pa_csv.write_csv(table, path)
        case _:
            pq.write_table(table, path, row_group_size=7)


def gzip_members(data: bytes, member: int = 1 << 30) -> bytes:
    return b"".join(gzip.compress(data[i : i + member]) for i in range(0, len(data), member))


def webdataset(samples: list[tuple[str, dict[str, bytes]]], kind: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as tar:
        for key, files in samples:
            for extension, data in files.items():
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def shard(table: pa.Table) -> bytes:
    rows = table.to_pylist()
    return webdataset(
        [(f"{i:06d}", {"txt": r["text"].encode(), "cls": r["label"].encode()}) for i, r in enumerate(rows)]
    )


def save_to_disk(
    table: pa.Table, folder: Path, *, features: dict[str, object], shards: int = 2, batch: int = 7
) -> None:
    """A folder as `datasets.Dataset.save_to_disk` writes it, with a cache file beside the data."""
    folder.mkdir(parents=True, exist_ok=True)
    schema = table.schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    table = table.cast(schema)
    size = -(-table.num_rows // shards)
    names = [f"data-{i:05d}-of-{shards:05d}.arrow" for i in range(shards)]
    for i, name in enumerate(names):
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            writer.write_table(table.slice(i * size, size), max_chunksize=batch)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "f", "_split": folder.name}
    (folder / "state.json").write_text(json.dumps(state, indent=2))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features, "citation": ""}, indent=2))
    (folder / f"cache-{'0' * 16}.arrow").write_bytes(b"not data")


def saved(table: pa.Table, path: Path) -> None:
    value = {"dtype": "string", "_type": "Value"}
    save_to_disk(table, path.parent / path.stem, features={"text": value, "label": value})


def put(encode: Callable[[pa.Table], bytes]) -> Writer:
    return lambda table, path: path.write_bytes(encode(table)) and None


WRITERS: dict[str, Writer] = {
    "parquet": lambda table, path: pq.write_table(table, path, row_group_size=30),
    "dictionary.parquet": lambda table, path: pq.write_table(
        table.set_column(1, "label", table["label"].dictionary_encode()), path, row_group_size=7
    ),
    "arrow": lambda table, path: pa.feather.write_feather(table, path, chunksize=20),
    "saved": saved,
    "jsonl": put(jsonl),
    "jsonl.gz": put(lambda table: gzip_members(jsonl(table))),
    "members.jsonl.gz": put(lambda table: gzip_members(jsonl(table), 500)),
    "jsonl.zst": put(lambda table: zstd_frames(jsonl(table))),
    "frames.jsonl.zst": put(lambda table: zstd_frames(jsonl(table), 500)),
    "json": put(lambda table: json.dumps(table.to_pylist()).encode()),
    "json.gz": put(lambda table: gzip.compress(json.dumps(table.to_pylist(), indent=1).encode())),
    "csv": put(delimited),
    "crlf.csv": put(lambda table: b"\xef\xbb\xbf" + delimited(table, ";", "\r\n")),
    "tsv": put(lambda table: delimited(table, "\t")),
    "csv.gz": put(lambda table: gzip_members(delimited(table), 700)),
    "tsv.zst": put(lambda table: zstd_frames(delimited(table, "|"), 300)),
    "tar": put(shard),
    "tar.gz": put(lambda table: gzip.compress(shard(table))),
}


def fragments_at(uri: str, wanted: str = "auto", cache: Path | None = None) -> list[tuple[Fragment, str]]:
    listing = listing_of(data_objects(list_objects(uri)), wanted, OWN)
    parts = fragments_of(listing.objects, listing.kinds, range(len(listing.objects)), OWN, cache)
    return [(part, listing.kinds[part.source]) for part in parts]


def rows_at(uri: str, wanted: str = "auto", columns: list[str] | None = None) -> list[dict[str, object]]:
    """All rows under a URI, in order; a fragment that tells its rows has so many."""
    objects = listing_of(data_objects(list_objects(uri)), wanted, OWN).objects
    rows: list[dict[str, object]] = []
    for part, kind in fragments_at(uri, wanted):
        table = read_fragment(objects, part, kind, columns, OWN)
        assert part.rows in (-1, table.num_rows)
        rows += table.to_pylist()
    return rows
