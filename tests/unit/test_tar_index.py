"""Index files beside WebDataset shards: used where they fit, never believed where they do not, and never data."""

from __future__ import annotations

import io
import json
import logging
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from astraml_ray.data.formats import Bounds, fragments_of
from astraml_ray.data.formats.tar_index import samples_of_index
from astraml_ray.data.storage.credentials import OWN
from astraml_ray.data.storage.objects import list_objects
from tests.unit.format_files import fragments_at, rows_at, webdataset

SAMPLES = [(f"d/{i:04d}", {"jpg": bytes([i % 256]) * (100 + i * 7), "cls": str(i % 3).encode()}) for i in range(60)]
Index = Callable[[bytes], bytes]


def members(shard: bytes) -> list[tarfile.TarInfo]:
    return [member for member in tarfile.open(fileobj=io.BytesIO(shard)) if member.isreg()]


def split_name(name: str) -> tuple[str, str]:
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension


def dali(shard: bytes, version: str = "v1.2") -> bytes:
    """As `wds2idx shard.tar shard.idx` writes it: `v1.2 60`, then `jpg 512 100 d/0000.jpg cls 1536 1 d/0000.cls` ..."""
    lines: dict[str, list[str]] = {}
    for member in members(shard):
        key, extension = split_name(member.name)
        name = [member.name] if version == "v1.2" else []
        lines.setdefault(key, []).extend([extension, str(member.offset_data), str(member.size), *name])
    return "".join([f"{version} {len(lines)}\n", *(" ".join(words) + "\n" for words in lines.values())]).encode()


def energon(shard: bytes) -> bytes:
    """As `energon prepare` writes `shard.tar.idx`: where each sample's first header is, then where the last ends."""
    starts: dict[str, int] = {}
    for member in members(shard):
        starts.setdefault(split_name(member.name)[0], member.offset)
    last = members(shard)[-1]
    return struct.pack(f"<{len(starts) + 1}Q", *starts.values(), last.offset_data + (last.size + 511) // 512 * 512)


def wids(names: dict[str, int]) -> bytes:
    """As `widsindex create` writes it."""
    shards = [{"url": name, "md5sum": "0" * 32, "nsamples": count, "filesize": 1} for name, count in names.items()]
    return json.dumps({"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": shards}, indent=2).encode()


INDEXES: dict[str, tuple[str, Index]] = {
    "dali 1.2": ("shard.idx", dali),
    "dali 1.1": ("shard.idx", lambda shard: dali(shard, "v1.1")),
    "energon": ("shard.tar.idx", energon),
}


@pytest.fixture(autouse=True)
def small_fragments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bounds, "fragment", 4000)


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("kind", INDEXES)
def test_fragments_are_those_of_the_walk(
    kind: str, format_: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long names too, whose headers come before those of the files."""
    long = "x" * (70 if format_ == tarfile.USTAR_FORMAT else 150)
    shard = webdataset([*SAMPLES[:30], *((f"{long}/{key}", files) for key, files in SAMPLES[30:])], format_)
    (tmp_path / "shard.tar").write_bytes(shard)
    walked, rows = fragments_at(str(tmp_path)), rows_at(str(tmp_path))
    assert len(walked) > 5
    name, index = INDEXES[kind]
    (tmp_path / name).write_bytes(index(shard))
    monkeypatch.setattr("astraml_ray.data.formats.webdataset.walked", lambda *_: pytest.fail("the headers were read"))
    assert fragments_at(str(tmp_path)) == walked
    monkeypatch.undo()
    assert rows_at(str(tmp_path)) == rows


def other_sizes(shard: bytes) -> bytes:
    return webdataset([(key, {**files, "jpg": files["jpg"] + b"+" * 600}) for key, files in SAMPLES])


MISFITS: dict[str, Callable[[bytes], bytes]] = {
    "a shard written again, with larger files": other_sizes,
    "one with a sample more": lambda shard: webdataset([*SAMPLES, ("e/1", {"jpg": b"1", "cls": b"1"})]),
    "one with a sample less": lambda shard: webdataset(SAMPLES[:-1]),
    "one in another order": lambda shard: webdataset(SAMPLES[::-1]),
    "one with other names": lambda shard: webdataset([(f"f/{key}", files) for key, files in SAMPLES]),
}


@pytest.mark.parametrize("misfit", MISFITS)
@pytest.mark.parametrize("kind", INDEXES)
def test_an_index_that_does_not_fit_is_not_used(
    kind: str, misfit: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Then the headers tell, and a line of the log says why it took longer."""
    name, index = INDEXES[kind]
    shard = webdataset(SAMPLES)
    (tmp_path / name).write_bytes(index(shard))
    (tmp_path / "shard.tar").write_bytes(MISFITS[misfit](shard))
    with caplog.at_level(logging.WARNING):
        found = fragments_at(str(tmp_path))
    (tmp_path / name).unlink()
    assert found == fragments_at(str(tmp_path))
    names_alone = "names" in misfit and kind != "dali 1.2"  # where nothing else differs, it does fit
    assert any("does not fit its shard" in line for line in caplog.messages) != names_alone


@pytest.mark.parametrize(
    "data",
    [
        b"v1.2 2\njpg 512 3 a.jpg\n",
        b"v1.2 1\njpg 512 3 a b.jpg\n",
        b"v1.2 1\njpg 513 3 a.jpg\n",
        b"v1.2 1\njpg 0 3 a.jpg\n",
        b"v1.2 1\njpg x 3 a.jpg\n",
        b"v1.2 2\njpg 1024 3 a.jpg\njpg 1024 3 b.jpg\n",
        b"v1.2 0\n",
        b"v1.2 1\njpg 512 3 \xff.jpg\n",
        b"v9.9 1\njpg 512 3 a.jpg\n",
        b"",
        b"\x00" * 12,
        struct.pack("<3Q", 0, 1024, 512),
        struct.pack("<2Q", 100, 1024),
    ],
)
def test_damaged_indexes(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        samples_of_index(data)
    (tmp_path / "shard.tar").write_bytes(webdataset(SAMPLES))
    expected = fragments_at(str(tmp_path))
    (tmp_path / "shard.idx").write_bytes(data)
    assert fragments_at(str(tmp_path)) == expected


def test_block_numbers_behind_long_headers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GNU tar, which wds2idx asks, counts a file from behind its PAX headers: the file before seems to end there."""
    monkeypatch.setattr(Bounds, "fragment", 1)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number, (key, files) in enumerate(SAMPLES):
            for extension, data in files.items():
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size, member.mtime = len(data), 1.5 if number % 4 == 3 else 1
                tar.addfile(member, io.BytesIO(data))
    shard = out.getvalue()
    files = members(shard)
    headers = [member.offset_data - 512 for member in files[1:]] + [files[-1].offset_data + 512]
    wrong = [after - -(-member.size // 512) * 512 for member, after in zip(files, headers, strict=True)]
    lines = [
        " ".join(f"{split_name(files[i].name)[1]} {wrong[i]} {files[i].size} {files[i].name}" for i in (n, n + 1))
        for n in range(0, len(files), 2)
    ]
    (tmp_path / "shard.tar").write_bytes(shard)
    expected = fragments_at(str(tmp_path))
    (tmp_path / "shard.idx").write_bytes("\n".join([f"v1.2 {len(lines)}", *lines, ""]).encode())
    with caplog.at_level(logging.WARNING):
        assert fragments_at(str(tmp_path)) == expected
    assert len(rows_at(str(tmp_path))) == len(SAMPLES)
    assert "does not fit its shard" in caplog.text


def test_indexes_are_no_data(tmp_path: Path) -> None:
    shards = {f"shard-{i}.tar": webdataset(SAMPLES[i * 20 : i * 20 + 20]) for i in range(3)}
    for name, shard in shards.items():
        (tmp_path / name).write_bytes(shard)
        (tmp_path / f"{name}.idx").write_bytes(energon(shard))
    expected = rows_at(str(tmp_path))
    (tmp_path / "shards.json").write_bytes(wids(dict.fromkeys(shards, 20)))
    (tmp_path / "shard-0.idx").write_bytes(dali(shards["shard-0.tar"]))
    assert rows_at(str(tmp_path)) == expected
    assert [row["__key__"] for row in expected] == [key for key, _ in SAMPLES]


def test_a_small_shard_is_not_asked_for_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bounds, "fragment", 8 << 20)
    (tmp_path / "shard.tar").write_bytes(webdataset(SAMPLES))
    monkeypatch.setattr("astraml_ray.data.formats.webdataset.indexed_fragments", lambda *_: pytest.fail("it was"))
    objects = list_objects(str(tmp_path))
    assert sum(part.rows for part in fragments_of(objects, ["webdataset"], range(1), OWN)) == len(SAMPLES)
