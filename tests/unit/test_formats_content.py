"""A format is recognised by what a file holds, and by its name where that leaves it open."""

from __future__ import annotations

import gzip
import io
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from PIL import Image

from astraml_ray.data.formats import format_of
from astraml_ray.data.formats.recognise import HEAD_BYTES, content_of, name_of
from astraml_ray.data.splits import data_objects, split_of
from astraml_ray.data.storage.credentials import OWN
from astraml_ray.data.storage.objects import describe
from astraml_ray.errors import DataError
from tests.conftest import word_rows
from tests.unit.format_files import delimited, jsonl, rows_at, shard

ROWS = word_rows(30)


def parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(ROWS, out)
    return out.getvalue()


def arrow(*, file: bool) -> bytes:
    out = io.BytesIO()
    with (pa.ipc.new_file if file else pa.ipc.new_stream)(out, ROWS.schema) as writer:
        writer.write_table(ROWS)
    return out.getvalue()


CONTENTS = {
    "parquet": parquet(),
    "arrow": arrow(file=True),
    "jsonl": jsonl(ROWS),
    "csv": delimited(ROWS),
    "webdataset": shard(ROWS),
    "jsonl.gz": gzip.compress(jsonl(ROWS)),
    "csv.zst": zstandard.compress(delimited(ROWS, ";")),
}


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize(
    "name", ["rows", "rows.parquet", "rows.csv", "rows.jsonl", "rows.bin", "rows.arrow", "rows.tar"]
)
def test_a_wrong_name_is_corrected_by_the_content(name: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(CONTENTS[kind])
    assert format_of(describe(str(tmp_path / name)), "auto", OWN) == kind
    assert [row["label"] for row in rows_at(str(tmp_path))] == ROWS["label"].to_pylist()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_images_without_a_suffix(form: str, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (5, 4)).save(tmp_path / "cat" / "1", format=form)
    (row,) = rows_at(str(tmp_path))
    assert row["label"] == "cat"
    assert Image.open(io.BytesIO(row["image"])).size == (5, 4)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b'{"text": "a"}\n', "jsonl"),
        (b'\xef\xbb\xbf\r\n {"text": "a"}\r\n{"te', "jsonl"),
        (b'{"text": "a very long line that is cut', "jsonl"),
        (b"{not json}\nat all", None),
        (b' [\n {"text": 1}', "json"),
        (b"[1, 2]\n", None),
        (b"a,b\n1,2\n3,", "csv"),
        (b'a,b\n"x, y",2\n3,4\n', "csv"),
        (b"a\tb\n1\t2\n", "csv"),
        (b'text;label\nhello world;a\n"x\ny, z";b\n"cut', "csv"),
        (b"Well, this is prose.\nIt has lines.\nSome, with commas.\n", None),
        (b"\xff\xfea\0", "utf-16"),
        (arrow(file=False), "arrow"),
        (b"\0\1\2", "binary"),
        (b"", None),
    ],
)
def test_first_bytes(head: bytes, kind: str | None) -> None:
    assert content_of(head) == kind


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("s3://b/a.JSONL.GZ", ("jsonl", "gz")),
        ("/x/a.b.csv.zst", ("csv", "zst")),
        ("/x/a.tar.gz", ("webdataset", "gz")),
        ("/x.csv/data", (None, "")),
        ("/x/data.gz", (None, "gz")),
        ("/x/1.jpeg", ("image-folder", "")),
    ],
)
def test_names(uri: str, told: tuple[str | None, str]) -> None:
    assert name_of(uri) == told


def test_prose_stays_prose(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one, two\nthree, four\nfive, six\n")
    assert [row["text"] for row in rows_at(str(tmp_path))] == ["one, two", "three, four", "five, six"]


@pytest.mark.parametrize("wanted", ["parquet", "jsonl", "csv", "text", "arrow", "image-folder", "webdataset"])
def test_the_spec_and_the_content_disagree(wanted: str, tmp_path: Path) -> None:
    for kind, data in CONTENTS.items():
        (tmp_path / "rows").write_bytes(data)
        content = kind.split(".")[0]
        lines = ("jsonl", "csv", "text")
        if wanted == content or (wanted in lines and content in lines):
            assert format_of(describe(str(tmp_path / "rows")), wanted, OWN) == kind.replace(content, wanted)
            continue
        with pytest.raises(DataError, match=f"dataset.format says {wanted}") as caught:
            format_of(describe(str(tmp_path / "rows")), wanted, OWN)
        assert caught.value.param == f"file://{tmp_path}/rows"
        assert content in caught.value.message


def test_a_first_block_that_is_longer_than_the_first_look_is_read_whole(tmp_path: Path) -> None:
    """Of zstd nothing can be unpacked before; the name does not help."""
    draw = random.Random(3)
    rows = [{"text": draw.randbytes(40).hex(), "label": "a"} for _ in range(900)]
    path = tmp_path / "part-0.zst"
    path.write_bytes(zstandard.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    assert path.stat().st_size > 2 * HEAD_BYTES
    assert format_of(describe(str(path)), "auto", OWN) == "jsonl.zst"


@pytest.mark.parametrize(
    ("name", "data", "hint"),
    [
        ("a.csv", "text,label\nä,b\n".encode("utf-16"), "UTF-8"),
        ("a.zip", b"PK\x03\x04....", "unpack it"),
        ("a.jsonl.bz2", b"BZh9....", "gzip or zstd"),
        ("a.jsonl.gz", gzip.compress(gzip.compress(b'{"text": "a"}\n', mtime=0), mtime=0), "once"),
        ("a.jsonl.gz", b"\x1f\x8b\x08\x00 broken", "again"),
        ("a.parquet.gz", gzip.compress(parquet()), "decompress it"),
        ("a.bin", b"\0\1\2\3", "dataset.format"),
        ("a", b"prose\nwithout a name\n", "dataset.format"),
    ],
)
def test_what_is_not_read_says_what_to_do(name: str, data: bytes, hint: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        rows_at(str(tmp_path))
    assert str(caught.value.param).endswith(f"/{name}")
    assert hint in str(caught.value.hint)


def test_what_lies_beside_the_data(tmp_path: Path) -> None:
    names = [
        "README.md",
        "LICENSE",
        "dataset_infos.json",
        "x/state.json",
        "x/cache-1.arrow",
        "x/a.arrow",
        "y/state.json",
    ]
    for name in [*names, "a.jsonl"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    kept = data_objects([describe(str(tmp_path / name)) for name in [*names, "a.jsonl"]])
    assert [info.uri.rsplit("/", 2)[-1] for info in kept] == ["a.arrow", "a.jsonl"]
    alone = [describe(str(tmp_path / "dataset_infos.json"))]
    assert data_objects(alone) == alone
    assert split_of("/x/state.json") is None
