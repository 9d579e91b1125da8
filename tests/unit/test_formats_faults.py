"""Damaged, cut, huge and hostile files: an error that names the object, and memory that stays flat."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard

from astraml_ray.data.formats import Bounds, registry
from astraml_ray.data.storage.objects import ObjectInfo
from astraml_ray.errors import DataError
from tests.conftest import word_rows
from tests.unit.format_files import (
    WRITERS,
    fragments_at,
    gzip_members,
    jsonl,
    rows_at,
    save_to_disk,
    webdataset,
    zstd_frames,
)

ROWS = word_rows(200)
CUT = ["parquet", "jsonl.gz", "members.jsonl.gz", "jsonl.zst", "frames.jsonl.zst", "csv.gz", "tar", "tar.gz", "json"]


@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
@pytest.mark.parametrize("size", [1000, 8 << 20])
@pytest.mark.parametrize("name", CUT)
def test_cut_short(name: str, size: int, share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bounds, "fragment", size)
    file = tmp_path / f"train.{name}"
    WRITERS[name](ROWS, file)
    data = file.read_bytes().rstrip(b"\0") if name == "tar" else file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError) as caught:
        rows_at(str(tmp_path))
    assert str(caught.value.param).endswith(f"train.{name}")
    assert caught.value.hint


@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
def test_an_arrow_file_cut_short(share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bounds, "fragment", 1000)
    save_to_disk(ROWS, tmp_path / "train", features={}, shards=1)
    (file,) = tmp_path.glob("train/data-*")
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    with pytest.raises(DataError, match="cut short at byte") as caught:
        rows_at(str(tmp_path))
    assert str(caught.value.param).endswith(file.name)


@pytest.mark.parametrize("name", ["jsonl.gz", "jsonl.zst", "tar", "arrow", "parquet"])
def test_damage_anywhere_is_an_error_or_harmless(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never another exception than ours, nor a hang."""
    monkeypatch.setattr(Bounds, "fragment", 1000)
    WRITERS[name](ROWS.slice(0, 40), tmp_path / f"train.{name}")
    data = (tmp_path / f"train.{name}").read_bytes()
    for place in range(0, len(data), max(1, len(data) // 30)):
        for filler in (b"\xff" * 4, b"\0" * 4):
            (tmp_path / f"train.{name}").write_bytes(data[:place] + filler + data[place + 4 :])
            try:
                rows_at(str(tmp_path))
            except DataError as error:
                assert str(error.param).endswith(f"train.{name}")  # noqa: PT017


@pytest.mark.parametrize("packed", ["gz", "zst"])
def test_a_decompression_bomb_is_refused(packed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bounds, "whole", 4 << 20)
    monkeypatch.setattr(Bounds, "line", 4 << 20)
    head = b'{"text": "a", "label": "b"}\n' * 2000
    data = head + b" " * (40 << 20)
    (tmp_path / f"a.jsonl.{packed}").write_bytes(gzip.compress(data) if packed == "gz" else zstandard.compress(data))
    assert (tmp_path / f"a.jsonl.{packed}").stat().st_size < 60_000
    with pytest.raises(DataError, match="over 4 MiB") as caught:
        rows_at(str(tmp_path))
    assert str(caught.value.param).endswith(f"a.jsonl.{packed}")


@pytest.mark.parametrize("packed", ["gz", "zst"])
def test_much_in_one_frame_is_refused_and_in_many_is_read(
    packed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bounds, "fragment", 2000)
    monkeypatch.setattr(Bounds, "frame", 10_000)
    table = word_rows(1000)
    compress = gzip_members if packed == "gz" else zstd_frames
    file = tmp_path / f"a.jsonl.{packed}"
    file.write_bytes(compress(jsonl(table)))
    with pytest.raises(DataError, match="from one end to the other") as caught:
        fragments_at(str(tmp_path))
    assert "bgzip" in str(caught.value.hint)
    file.write_bytes(compress(jsonl(table), 1500))
    parts = [part for part, _ in fragments_at(str(tmp_path))]
    assert len({part.group for part in parts}) > 10
    assert all(part.stop <= 10_000 for part in parts)
    assert rows_at(str(tmp_path)) == table.to_pylist()


def test_small_files_are_counted_as_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 40 compressed files that are one fragment, no more are read than the bound takes, and as many at once."""
    for number in range(40):
        (tmp_path / f"{number:02}.jsonl.gz").write_bytes(gzip.compress(jsonl(ROWS)))
    assert len(fragments_at(str(tmp_path))) == 1
    seen: list[str] = []
    kind = registry.FORMATS["jsonl.gz"]

    def counted(info: ObjectInfo, *arguments: Any) -> pa.Table:
        seen.append(info.uri)
        return kind.read(info, *arguments)

    monkeypatch.setitem(registry.FORMATS, "jsonl.gz", replace(kind, read=counted))
    assert len(rows_at(str(tmp_path))) == 40 * len(ROWS)
    assert len(seen) == 40
    seen.clear()
    monkeypatch.setattr(Bounds, "frame", 3 * ROWS.nbytes)
    with pytest.raises(DataError, match="small files beside it"):
        rows_at(str(tmp_path))
    assert 3 < len(seen) <= 3 + registry._READERS


def test_a_row_too_long_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quote that is never closed, or no line end."""
    monkeypatch.setattr(Bounds, "fragment", 1 << 16)
    monkeypatch.setattr(Bounds, "line", 1 << 18)
    (tmp_path / "a.csv").write_text('text,label\n"a,b\n' + "c,d\n" * 200_000)
    (tmp_path / "b.jsonl").write_text('{"text": "' + "x" * 800_000)
    for name in ("a.csv", "b.jsonl"):
        with pytest.raises(DataError, match="row of over") as caught:
            rows_at(str(tmp_path / name))
        assert str(caught.value.param).endswith(name)


def test_a_large_json_array_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bounds, "whole", 1000)
    (tmp_path / "a.json").write_text(json.dumps(ROWS.to_pylist()))
    with pytest.raises(DataError, match="JSON array of") as caught:
        rows_at(str(tmp_path))
    assert "JSON Lines" in str(caught.value.hint)


def test_a_column_of_objects_and_values_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": {"b": 1}}\n')
    with pytest.raises(DataError, match="changed from") as caught:
        rows_at(str(tmp_path))
    assert "'text'" in str(caught.value.hint)


@pytest.mark.parametrize("line", ['"text"', "[1]", "7", "not JSON", '{"text": "a"} {', '{"text": 1}}'])
def test_a_line_that_is_no_object(line: str, tmp_path: Path) -> None:
    for lines in ([{"text": "a"}, {"text": 1}], [{"text": "a"}]):
        written = "".join(json.dumps(one) + "\n" for one in lines)
        (tmp_path / "a.jsonl").write_text(written + line + "\n")
        with pytest.raises(DataError, match="damaged"):
            rows_at(str(tmp_path))


def test_a_sample_with_one_file_twice(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(webdataset([("1", {"cls": b"a"}), ("1", {"cls": b"b"})]))
    with pytest.raises(DataError, match="twice in one sample"):
        rows_at(str(tmp_path))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    """200 MB of each format take not nearly the 180 MB more than 20 MB of it that they would if they were held."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.unit.bounded_reading", str(tmp_path)]
    at_once = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(64 << 10)}  # what is freed goes back
    done = subprocess.run(command, cwd=root, env=at_once, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for kind, (small, large, rows) in found.items():
        assert rows > 100_000, kind
        assert large < small + (96 << 20), (kind, small >> 20, large >> 20)
