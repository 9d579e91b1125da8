"""Every format gives the same rows in the same order, however it is cut."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astraml_ray.cli.s3_server import S3Server
from astraml_ray.data.formats import Bounds
from astraml_ray.data.inspection.inspect import inspect_dataset
from astraml_ray.data.manifest import Manifest
from astraml_ray.data.prepare import build_manifest
from astraml_ray.data.rows import read_rows
from astraml_ray.errors import DamagedError, DataError
from astraml_ray.spec.dataset import DatasetSpec
from astraml_ray.spec.loading import parse_spec
from tests.conftest import word_rows
from tests.unit.format_files import (
    WRITERS,
    delimited,
    fragments_at,
    gzip_members,
    jsonl,
    rows_at,
    save_to_disk,
    webdataset,
    zstd_frames,
)

ROWS = pa.concat_tables(
    [
        word_rows(100),
        pa.table({"text": ['"quotes", and\na line end', "ünï; | x", "2020-01-01", "7"], "label": ["bird"] * 4}),
    ]
)


def manifest_of(path: object, cache: Path) -> Manifest:
    return build_manifest(parse_spec({"dataset": path, "model": "m"}).dataset, task="auto", cache=cache)


def read_all(manifest: Manifest, split: str = "train") -> list[dict[str, str]]:
    part = manifest.splits[split]
    return [row for i in range(len(part.fragments)) for row in read_rows(manifest, part, i).to_pylist()]


@pytest.mark.parametrize("size", [1000, 8 << 20])
@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_rows(
    name: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bounds, "fragment", size)
    folder = tmp_path / "d"
    folder.mkdir()
    WRITERS[name](ROWS, folder / f"train.{name}")
    WRITERS[name](ROWS.slice(0, 20), folder / f"dev.{name}")
    manifest = manifest_of(str(folder), tmp_path / "c")
    assert read_all(manifest) == ROWS.to_pylist()
    assert read_all(manifest, "validation") == ROWS.slice(0, 20).to_pylist()
    assert manifest.labels == ("bird", "fruit", "metal")
    assert Manifest.from_json(manifest.to_json()) == manifest
    whole = name in ("json", "json.gz", "tar.gz")
    assert (len(manifest.splits["train"].fragments) > 2) == ((size == 1000 and not whole) or "parquet" in name)


def test_every_format_in_a_bucket(s3: S3Server, tmp_path: Path) -> None:
    """All of them in one dataset, even."""
    folder = s3.folder / "bucket" / "formats" / "train"
    folder.mkdir(parents=True)
    for name, write in WRITERS.items():
        write(ROWS, folder / f"{name}.{name}")
    manifest = manifest_of({"path": "s3://bucket/formats", "validation_fraction": 1e-9}, tmp_path)
    rows = read_all(manifest) + read_all(manifest, "validation")
    assert len(rows) == len(WRITERS) * ROWS.num_rows
    assert all(rows.count(row) == len(WRITERS) for row in ROWS.slice(97).to_pylist())
    assert set(manifest.formats) > {"parquet", "arrow", "webdataset", "jsonl.gz", "csv.zst", "json"}


def test_what_is_found_by_reading_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bounds, "fragment", 1000)
    (tmp_path / "d").mkdir()
    for name in ("csv", "jsonl", "jsonl.gz", "tar", "saved"):
        WRITERS[name](ROWS, tmp_path / "d" / f"train.{name}")
    first = fragments_at(str(tmp_path / "d"), cache=tmp_path / "c")
    # What reads the objects to cut them would fail now; their names and sizes are as they were.
    monkeypatch.setattr("astraml_ray.data.formats.lines.open_object", lambda *_: pytest.fail("read again"))
    monkeypatch.setattr("astraml_ray.data.formats.lines.read_range", lambda *_: pytest.fail("read again"))
    monkeypatch.setattr("astraml_ray.data.formats.compressed.open_object", lambda *_: pytest.fail("read again"))
    monkeypatch.setattr("astraml_ray.data.formats.arrow.read_range", lambda *_: pytest.fail("read again"))
    monkeypatch.setattr("astraml_ray.data.formats.tar_walk.read_range", lambda *_: pytest.fail("read again"))
    assert fragments_at(str(tmp_path / "d"), cache=tmp_path / "c") == first
    assert len({part.source for part, _ in first}) == 6


def test_thousands_of_small_files_make_few_fragments(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    folder.mkdir()
    for i in range(3000):
        label = i % 3 if i % 2 else f"{i % 3}"
        (folder / f"{i:05d}.jsonl").write_text(json.dumps({"text": f"text {i}", "label": label}) + "\n")
    (tmp_path / "dev.csv").write_text("text,label\na,0\n")
    manifest = manifest_of(str(tmp_path), tmp_path / "c")
    assert [part.count for part in manifest.splits["train"].fragments] == [1000, 1000, 1000]
    assert read_all(manifest) == [{"text": f"text {i}", "label": str(i % 3)} for i in range(3000)]
    assert manifest.labels == ("0", "1", "2")


def test_small_files_of_several_formats_and_column_orders(tmp_path: Path) -> None:
    for i, (name, row) in enumerate(
        [
            ("jsonl", '{"text": "a", "label": 1}\n'),
            ("jsonl", '\ufeff{"label": "x", "more": [1], "text": "b"}\r\n\r\n'),
            ("jsonl", '{"text": "c", "label": 2.0}'),
            ("csv", "label,text\ny,d\n"),
            ("csv", "text;label\ne;z\n"),
            ("txt", "f\n\n \ng"),
        ]
    ):
        (tmp_path / f"{i}.{name}").write_text(row)
    assert [(part.source, part.count) for part, _ in fragments_at(str(tmp_path))] == [(0, 3), (3, 2), (5, 1)]
    texts = [row["text"] for row in rows_at(str(tmp_path))]
    assert texts == ["a", "b", "c", "d", "e", "f", "g"]
    labels = [row.get("label") for row in rows_at(str(tmp_path))]
    assert labels == ["1", "x", "2", "y", "z", None, None]


def test_small_parquet_files_of_different_types(tmp_path: Path) -> None:
    for i, label in enumerate(([1, 2], ["x", "1"], [1.0, 3.0], [None, None])):
        pq.write_table(pa.table({"text": ["a", "b"], "label": label}), tmp_path / f"{i}.parquet")
    (part, _), *others = fragments_at(str(tmp_path))
    assert (part.count, part.rows, others) == (4, 8, [])
    assert [row["label"] for row in rows_at(str(tmp_path))] == ["1", "2", "x", "1", "1", "3", None, None]


def test_a_file_of_a_group_that_lacks_a_column_is_named(tmp_path: Path) -> None:
    for i in range(9):
        (tmp_path / f"{i}.jsonl").write_text('{"text": "a"}\n' if i != 5 else '{"body": "a"}\n')
    with pytest.raises(DataError, match="no column 'text'") as caught:
        rows_at(str(tmp_path), columns=["text"])
    assert str(caught.value.param).endswith("/5.jsonl")


def test_texts_that_look_like_times_stay_as_they_are(tmp_path: Path) -> None:
    times = ["2020-01-01", "2020-01-01T00:00:00", "2021-05-05 10:00:00Z"]
    (tmp_path / "a.jsonl").write_bytes(jsonl(pa.table({"text": times, "n": [1, 2, 3]})))
    assert rows_at(str(tmp_path)) == [{"text": text, "n": i} for i, text in enumerate(times, 1)]


def test_single_values_of_several_types_become_texts(tmp_path: Path) -> None:
    values = ["x", 1, 1.0, 2.5, True, None, "1"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"v": value, "n": 1}) + "\n" for value in values))
    (tmp_path / "b.json").write_text(json.dumps([{"v": value, "n": 1} for value in values]))
    rows = rows_at(str(tmp_path))
    assert [row["v"] for row in rows] == ["x", "1", "1", "2.5", "true", None, "1"] * 2
    assert {row["n"] for row in rows} == {1}


def test_hugging_face_features(tmp_path: Path) -> None:
    """Classes have their names; images are their bytes; what else lies there is no data."""
    images = pa.array(
        [{"bytes": bytes([i]), "path": None} for i in range(30)],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    table = pa.table({"image": images, "label": pa.array([i % 3 - 1 for i in range(30)], pa.int64())})
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    save_to_disk(table, tmp_path / "hf" / "train", features=features, shards=3)
    (tmp_path / "hf" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    expected = [{"image": bytes([i]), "label": (None, "cat", "dog")[i % 3]} for i in range(30)]
    assert rows_at(str(tmp_path / "hf")) == expected
    hub = tmp_path / "hub" / "data"
    hub.mkdir(parents=True)
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), hub / "train-00000-of-00001.parquet", row_group_size=7)
    (tmp_path / "hub" / "dataset_infos.json").write_text("{}")
    (tmp_path / "hub" / "README.md").write_text("# x")
    assert rows_at(str(tmp_path / "hub")) == expected
    assert rows_at(str(tmp_path / "hub"), columns=["label"]) == [{"label": row["label"]} for row in expected]


def test_images_that_are_only_named(tmp_path: Path) -> None:
    """All of them, or some beside others that are there; those may be left out, see test_bad_files."""
    for rows in (1, 3):
        named = [{"bytes": None, "path": f"/home/me/{row}.jpg"} for row in range(rows)]
        for images in (named, [*named, {"bytes": b"1", "path": "1.jpg"}]):
            table = pa.table(
                {"image": images},
                schema=pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]),
            )
            pq.write_table(table, tmp_path / "a.parquet")
            with pytest.raises(DataError, match="not in the dataset") as caught:
                rows_at(str(tmp_path))
            assert "save_to_disk" in str(caught.value.hint)
            assert isinstance(caught.value, DamagedError)


@pytest.mark.parametrize("wrong", [-2, 2])
def test_a_class_id_without_a_name_is_told(wrong: int, tmp_path: Path) -> None:
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    save_to_disk(pa.table({"label": pa.array([0, wrong, 1], pa.int64())}), tmp_path, features=features, shards=1)
    with pytest.raises(DataError, match=f"holds class {wrong}, and there are 2"):
        rows_at(str(tmp_path))


def test_nested_columns_and_names_with_dots(tmp_path: Path) -> None:
    table = pa.table({"a.b": ["x", "y"], "ids": [[1], [2, 3]], "s": [{"t": 1}, {"t": 2}]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert rows_at(str(tmp_path), columns=["ids", "a.b", "s"]) == table.select(["ids", "a.b", "s"]).to_pylist()


@pytest.mark.parametrize("size", [3000, 8 << 20])
@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_webdataset_samples(kind: int, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long names, folders, values of JSON, and a sample that has no label."""
    monkeypatch.setattr(Bounds, "fragment", size)
    long = "x" * (70 if kind == tarfile.USTAR_FORMAT else 300)
    samples = [
        ("a/1", {"jpg": b"\xff\xd8" + b"1" * 700, "json": b'{"label": 3, "w": 2.5, "box": [1]}', "seg.png": b"no"}),
        ("a/2", {"cls": b"7\n", "png": b"2" * 1500, "json": b'{"label": 3}', "txt": "ü".encode()}),
        (f"a/{long}", {"JPEG": b"3", "cls": b"8"}),
        *[(f"b/{i}", {"webp": b"4" * 600, "cls": b"9"}) for i in range(20)],
        ("c/5", {"jpg": b"5"}),
    ]
    (tmp_path / "shard-000000.tar").write_bytes(webdataset(samples, kind))
    parts = fragments_at(str(tmp_path))
    assert sum(part.rows for part, _ in parts) == len(samples)
    assert (len(parts) > 3) == (size == 3000)
    rows = rows_at(str(tmp_path))
    assert [row["__key__"] for row in rows] == [key for key, _ in samples]
    assert rows[0]["image"] == b"\xff\xd8" + b"1" * 700
    assert (rows[0]["label"], rows[0]["w"]) in ((3, 2.5), ("3", 2.5))
    assert (rows[1]["label"], rows[1]["text"]) == ("7", "ü")
    assert rows[2]["label"] == "8"
    assert rows[-1].get("label") is None
    assert "box" not in rows[0]


def test_image_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder names the class; a file name that looks like a split's is none."""
    monkeypatch.setattr(Bounds, "group", 100)
    expected = []
    for label in ("cat", "dog"):
        for i in range(120):
            path = tmp_path / "train" / label / f"test_{i:04d}.{('jpg', 'PNG')[i % 2]}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{label}{i}".encode())
            expected.append((str(path).encode().split(b"/")[-1], label))
    parts = fragments_at(str(tmp_path))
    assert [(part.count, part.rows) for part, _ in parts] == [(100, 100), (100, 100), (40, 40)]
    rows = rows_at(str(tmp_path))
    assert [(str(row["path"]).rsplit("/", 1)[-1].encode(), row["label"]) for row in rows] == expected
    assert rows[121]["image"] == b"dog1"
    found = inspect_dataset(DatasetSpec(path=str(tmp_path)))
    assert [(one["name"], one["role"]) for one in found["columns"]] == [
        ("image", "image"),
        ("label", "label"),
        ("path", None),
    ]
    assert found["splits"]["train"]["label"]["classes"] == {"cat": 120, "dog": 120}
    assert found["splits"]["train"]["formats"] == ["image-folder"]
    assert [one["code"] for one in found["findings"]] == ["unreadable_images"]  # the files hold texts
    manifest = manifest_of({"path": str(tmp_path), "columns": {"text": "path"}, "validation_fraction": 0.1}, tmp_path)
    assert manifest.labels == ("cat", "dog")
    assert sum(split.total_rows for split in manifest.splits.values()) == 240


PIECES = st.sampled_from(["a", "b,c", 'q"uo"te', "line\nend", "ü", "", "x" * 40, ";", "x\r\ny"])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    texts=st.lists(st.lists(PIECES, max_size=4).map("".join), min_size=1, max_size=25),
    size=st.integers(20, 300),
    frame=st.integers(10, 400),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_cuts_lose_and_split_no_row(texts: list[str], size: int, frame: int, end: str, tmp_path: Path) -> None:
    table = pa.table({"text": texts, "n": [str(i) for i in range(len(texts))]})
    written = delimited(table, end=end)
    files = {
        "a.csv": written,
        "b.csv.gz": gzip_members(written, frame),
        "c.csv.zst": zstd_frames(written, frame),
        "d.jsonl": jsonl(table).replace(b"\n", end.encode()),
        "e.jsonl.zst": zstd_frames(jsonl(table), frame),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bounds, "fragment", size)
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
            assert rows_at(str(tmp_path / name)) == table.to_pylist(), name
