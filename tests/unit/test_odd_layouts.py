"""Layouts as people and tools leave them, through `astraml data inspect`: read, or refused with what to do."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from astraml_ray.cli.main import main
from astraml_ray.cli.s3_server import S3Server
from tests.conftest import word_rows
from tests.unit.format_files import delimited, jsonl, save_to_disk
from tests.unit.images import image_rows

ROWS = word_rows(60, seed=3)
TEXTS: list[dict[str, Any]] = ROWS.to_pylist()


def inspected(uri: Path | str) -> dict[str, Any]:
    done = CliRunner().invoke(main, ["data", "inspect", str(uri), "--output", "json"])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refused(uri: Path | str) -> str:
    done = CliRunner().invoke(main, ["data", "inspect", str(uri)])
    assert done.exit_code == 20, done.output
    return " ".join(done.output.split())


def facts(found: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Rows and files of each split."""
    return {name: (split["rows"], split["files"]) for name, split in found["splits"].items()}


def codes(found: dict[str, Any]) -> list[str]:
    return [one["code"] for one in found["findings"] if one["code"] not in ("duplicates", "conflicting", "leakage")]


def test_a_saved_dataset_dict_with_a_split_of_another_name(tmp_path: Path) -> None:
    value = {"dtype": "string", "_type": "Value"}
    for split, rows in (("train", ROWS), ("test", ROWS.slice(0, 9)), ("unsupervised", ROWS.slice(0, 20))):
        save_to_disk(rows, tmp_path / split, features={"text": value, "label": value}, shards=1)
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test", "unsupervised"]}))
    found = inspected(tmp_path)
    assert facts(found) == {"train": (60, 1), "test": (9, 1)}
    [told] = [one for one in found["findings"] if one["code"] == "files_of_no_split"]
    assert "1 file of no split left out" in told["message"]
    assert "/unsupervised/data-00000-of-00001.arrow" in told["message"]


def test_what_spark_leaves(tmp_path: Path) -> None:
    """Markers, checksums, an empty part; and columns in the names of folders, which are told."""
    for name in ("_SUCCESS", "part-00003.json"):
        (tmp_path / name).touch()
    for name in ("._SUCCESS.crc", ".part-00000.json.crc"):
        (tmp_path / name).write_bytes(b"crc")
    for part in range(3):
        (tmp_path / f"part-0000{part}.json").write_bytes(jsonl(ROWS.slice(part * 20, 20)))
    found = inspected(tmp_path)
    assert facts(found) == {"train": (60, 3)}
    assert not codes(found)
    for label in ("a", "b"):
        folder = tmp_path / "parts" / f"label={label}"
        folder.mkdir(parents=True)
        pq.write_table(ROWS.select(["text"]), folder / "part-0.parquet")
    parts = inspected(tmp_path / "parts")
    assert facts(parts) == {"train": (120, 2)}
    assert [one["message"] for one in parts["findings"] if one["code"] == "partition_folders"] == [
        "folders are named label=…, and such columns are not read"
    ]


def test_tables(tmp_path: Path) -> None:
    """A byte order mark, quotes that are none; a part without rows; zeros behind gzip; a category and an index."""
    quoted = "".join(f'{row["text"]} 5" disk\t{row["label"]}\n' for row in TEXTS)
    layouts = {
        "bom/train.tsv": ("text\tlabel\n" + quoted).encode("utf-8-sig"),
        "parts/train-0.csv": b"text,label\n",
        "parts/train-1.csv": delimited(ROWS),
        "zeros/train.csv.gz": gzip.compress(delimited(ROWS)) + b"\0" * 512,
        "ends/train.jsonl": jsonl(ROWS).replace(b"\n", b"\r\n") + b"\r\n\r\n",
        "long/train.jsonl": jsonl(ROWS) + json.dumps({"text": "word " * (1 << 21), "label": "cat"}).encode(),
    }
    for name, data in layouts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    frame = ROWS.to_pandas()
    frame["label"] = frame["label"].astype("category")
    (tmp_path / "pandas").mkdir()
    frame.set_index(frame.index + 100).to_parquet(tmp_path / "pandas" / "train.parquet")
    spans = pa.array([[{"start": 1, "kind": "x"}] * (i % 3) for i in range(60)])
    (tmp_path / "spans").mkdir()
    pq.write_table(ROWS.append_column("spans", spans), tmp_path / "spans" / "train.parquet")
    for folder in sorted(tmp_path.iterdir()):
        found = inspected(folder)
        assert facts(found)["train"][0] == 60 + (folder.name == "long"), folder
        assert not codes(found), folder


def test_texts_in_folders(tmp_path: Path) -> None:
    """A file per text, as reviews come: that their folders are no labels is told."""
    for number, row in enumerate(TEXTS):
        path = tmp_path / ("train", "test")[number % 5 == 4] / ("pos", "neg")[number % 2] / f"{number}_7.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(row["text"])
    found = inspected(tmp_path)
    assert facts(found) == {"train": (48, 48), "test": (12, 12)}
    [told] = [one["message"] for one in found["findings"] if one["code"] == "text_folders"]
    assert told == "texts lie in folders (neg, pos), whose names are no labels"


def test_images_and_tars(tmp_path: Path) -> None:
    """Extensions in capitals, folders with spaces; long names that are not ASCII, and what macOS leaves in tars."""
    images = [row["image"] for row in image_rows(24, seed=1).to_pylist()]
    for number, data in enumerate(images):
        path = tmp_path / "d" / "TRAIN" / ("Cat", "Dog dog")[number % 2] / f"IMG_{number:03}.PNG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert facts(inspected(tmp_path / "d")) == {"train": (24, 24)}
    with tarfile.open(tmp_path / "train-000.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        folder = tarfile.TarInfo("dir")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for number, data in enumerate(images):
            key = f"dir/{'ü' * 90}_{number:04}"
            for name, body in (
                (f"dir/._{number}.png", b"junk"),
                (f"{key}.png", data),
                (f"{key}.cls", b"%d" % (number % 2)),
            ):
                member = tarfile.TarInfo(name)
                member.size, member.mtime = len(body), 1.5
                tar.addfile(member, io.BytesIO(body))
    found = inspected(tmp_path / "train-000.tar")
    assert facts(found) == {"train": (24, 1)}
    assert set(found["splits"]["train"]["label"]["classes"]) == {"0", "1"}


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        (
            "train.jsonl",
            b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n' * 2,
            "chats are not read as they are: write each 'messages' as one text",
        ),
        (
            "train.json",
            json.dumps({"data": TEXTS}, indent=1).encode(),
            "if the rows are those within 'data', write them alone: jq -c '.data[]'",
        ),
        (
            "train.csv",
            delimited(ROWS.select(["text", "label"])).split(b"\n", 1)[1],
            "dataset.columns.text=NAME; the first line of a table has the columns' names",
        ),
        (
            "train.csv",
            "text;label\né one;a\nè two;b\n".encode("latin-1"),
            "write it as UTF-8 (iconv -f LATIN1 -t UTF-8",
        ),
    ],
)
def test_what_is_not_read_is_told_with_what_to_do(name: str, data: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    assert told in refused(tmp_path)


def test_a_zip_is_to_be_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as packed:
        packed.writestr("a.csv", "text,label\na,b\n")
    assert "is zip, which is not read → unpack it" in refused(tmp_path)


def test_odd_names_in_a_bucket(s3: S3Server, tmp_path: Path) -> None:
    """Spaces, signs with a meaning in URLs, letters that are not ASCII: of folders and of files."""
    odd = s3.folder / "bucket" / "odd näme %20 #1 +&?"
    (odd / "train").mkdir(parents=True)
    pq.write_table(ROWS, odd / "train" / "a b%#ü.parquet")
    assert facts(inspected(f"s3://bucket/{odd.name}")) == {"train": (60, 1)}
    assert facts(inspected(f"s3://bucket/{odd.name}/train/a b%#ü.parquet")) == {"train": (60, 1)}
    images = s3.folder / "bucket" / "bilder #2 %41"
    for number, row in enumerate(image_rows(12, seed=1).to_pylist()):
        path = images / ("train é", "test")[number % 4 == 3] / f"{number} %.PNG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(row["image"])
    names = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.PNG"))
    lines = [json.dumps({"file_name": name, "label": "ab"[i % 2]}) + "\n" for i, name in enumerate(names)]
    (images / "metadata.jsonl").write_text("".join(lines))
    assert facts(inspected(f"s3://bucket/{images.name}")) == {"train": (9, 10), "test": (3, 4)}
    local = tmp_path / images.name
    shutil.copytree(images, local)
    assert facts(inspected(local)) == {"train": (9, 10), "test": (3, 4)}
