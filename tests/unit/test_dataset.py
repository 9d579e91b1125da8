"""From a folder or a bucket to a manifest: formats, conventions, counts, and every way a dataset can be wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from astraml_ray.cli.s3_server import S3Server
from astraml_ray.data.formats import Bounds
from astraml_ray.data.manifest import Manifest
from astraml_ray.data.prepare import build_manifest
from astraml_ray.data.rows import read_rows
from astraml_ray.data.splits import split_of
from astraml_ray.errors import AstraError, DataError, InfrastructureError
from astraml_ray.spec.loading import parse_spec
from tests.conftest import word_rows, write_dataset


def manifest_of(dataset: object, cache: Path, *, task: str = "auto") -> Manifest:
    spec = parse_spec({"dataset": dataset, "model": "m"}).dataset
    return build_manifest(spec, task=task, cache=cache)


def texts_of(manifest: Manifest, split: str) -> list[str]:
    part = manifest.splits[split]
    return [text for i in range(len(part.fragments)) for text in read_rows(manifest, part, i)["text"].to_pylist()]


def error_of(dataset: object, cache: Path, *, task: str = "auto") -> AstraError:
    with pytest.raises(AstraError) as caught:
        manifest_of(dataset, cache, task=task)
    return caught.value


def write_parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, row_group_size=30)


def write_jsonl(table: pa.Table, path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))


def write_csv(table: pa.Table, path: Path) -> None:
    pa_csv.write_csv(table, path)


@pytest.mark.parametrize(("suffix", "write"), [("parquet", write_parquet), ("jsonl", write_jsonl), ("csv", write_csv)])
def test_formats_give_the_same_rows(
    suffix: str, write: Callable[[pa.Table, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bounds, "fragment", 1000)
    rows = word_rows(100)
    odd = pa.table({"text": ['with "quotes", and\na line end', "", "ünï"], "label": ["bird", "metal", "fruit"]})
    train = pa.concat_tables([rows, odd])
    folder = tmp_path / "d"
    folder.mkdir()
    write(train, folder / f"train.{suffix}")
    write(word_rows(20, seed=5), folder / f"dev.{suffix}")
    manifest = manifest_of(str(folder), tmp_path)
    assert texts_of(manifest, "train") == train["text"].to_pylist()
    assert len(manifest.splits["train"].fragments) > 2
    assert manifest.labels == ("bird", "fruit", "metal")
    assert manifest.splits["validation"].total_rows == 20
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_text_files_have_one_row_per_line(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("one\n\ntwo\r\nthree")
    manifest = manifest_of(
        {"path": str(tmp_path / "corpus.txt"), "validation_fraction": 0.001}, tmp_path / "c", task="masked-lm"
    )
    assert sorted(texts_of(manifest, "train") + texts_of(manifest, "validation")) == ["one", "three", "two"]
    assert manifest.splits["validation"].total_rows == 1


def test_bucket_and_folder_give_the_same_rows(s3: S3Server, tmp_path: Path) -> None:
    write_dataset(s3.folder / "bucket" / "words")
    here, there = manifest_of(str(s3.folder / "bucket" / "words"), tmp_path), manifest_of("s3://bucket/words", tmp_path)
    for split in ("train", "validation", "test"):
        assert texts_of(here, split) == texts_of(there, split)
    assert all(info.uri.startswith("s3://bucket/words/") and info.etag for info in there.objects)


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("/train.parquet", "train"),
        ("/train-00000-of-2.parquet", "train"),
        ("/train/a.parquet", "train"),
        ("/data/validation.csv", "validation"),
        ("/dev.jsonl", "validation"),
        ("/val_1.parquet", "validation"),
        ("/test/part.parquet", "test"),
        ("/trains.parquet", None),
        ("/valuable.parquet", None),
        ("/x.parquet", None),
    ],
)
def test_split_names(path: str, split: str | None) -> None:
    assert split_of(path) == split


def test_a_prefix_that_looks_like_a_split_is_none(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`train/` inside `trainers/`, given as a relative path."""
    (tmp_path / "trainers" / "train").mkdir(parents=True)
    for file in dataset.iterdir():
        shutil.copy(file, tmp_path / "trainers" / "train" / f"dev-{file.name}")
        shutil.copy(file, tmp_path / "trainers" / "train" / file.name)
    monkeypatch.chdir(tmp_path / "trainers")
    manifest = manifest_of("train", tmp_path / "c")
    assert {name: split.total_rows for name, split in manifest.splits.items()} == {
        "train": 200,
        "validation": 370,
        "test": 50,
    }


def test_split_off_validation_is_stable_and_keeps_equal_rows_together(tmp_path: Path) -> None:
    rows = word_rows(2000)
    doubled = pa.concat_tables([rows, rows])
    for name, table in {"a": doubled, "b": doubled.take(list(range(3999, -1, -1)))}.items():
        (tmp_path / name).mkdir()
        pq.write_table(table, tmp_path / name / "rows.parquet", row_group_size=500)
    first, second = (manifest_of({"path": str(tmp_path / n), "validation_fraction": 0.2}, tmp_path) for n in "ab")
    held, kept = texts_of(first, "validation"), texts_of(first, "train")
    assert sorted(held) == sorted(texts_of(second, "validation"))
    assert not set(held) & set(kept)
    assert len(held) + len(kept) == 4000
    assert 0.15 < len(held) / 4000 < 0.25


def test_second_look_reads_nothing_again(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = manifest_of(str(dataset), tmp_path / "cache")
    monkeypatch.setattr("astraml_ray.data.scan.read_checked", lambda *_: pytest.fail("read again"))
    assert manifest_of(str(dataset), tmp_path / "cache") == first


@pytest.mark.parametrize("policy", ["skip", "quarantine"])
def test_texts_are_not_read_again_for_another_policy(
    policy: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images are: those that cannot be decoded are found then."""
    first = manifest_of(str(dataset), tmp_path / "cache")
    monkeypatch.setattr("astraml_ray.data.scan.read_checked", lambda *_: pytest.fail("read again"))
    assert manifest_of({"path": str(dataset), "on_bad_row": policy}, tmp_path / "cache").splits == first.splits


def test_number_labels_are_in_numeric_order_and_floats_are_whole(tmp_path: Path) -> None:
    pq.write_table(pa.table({"sentence": ["a", "b", "c"], "label": [10.0, 9.0, 2.0]}), tmp_path / "train.parquet")
    pq.write_table(pa.table({"sentence": ["a"], "label": ["9"]}), tmp_path / "test.parquet")
    manifest = manifest_of({"path": str(tmp_path), "validation_fraction": 0.01}, tmp_path / "c")
    assert manifest.labels == ("2", "9", "10")


class TestErrors:
    """What went wrong, where, and what to do."""

    def test_missing_bucket_and_prefix(self, s3: S3Server, tmp_path: Path) -> None:
        for uri in ("s3://no-such-bucket/x", "s3://bucket/no/such/prefix", str(tmp_path / "nothing")):
            error = error_of(uri, tmp_path)
            assert isinstance(error, DataError)
            assert error.param == uri
            assert error.hint

    def test_wrong_keys(self, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_dataset(s3.folder / "bucket" / "denied")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        error = error_of({"path": "s3://bucket/denied", "endpoint_url": s3.endpoint_url + "/"}, tmp_path)
        assert isinstance(error, DataError)
        assert "denied" in error.message
        assert "AWS_ACCESS_KEY_ID" in (error.hint or "") or "credentials" in (error.hint or "")

    def test_unreachable_endpoint(self, tmp_path: Path, s3: S3Server) -> None:
        error = error_of({"path": "s3://bucket/x", "endpoint_url": "http://127.0.0.1:9"}, tmp_path)
        assert isinstance(error, InfrastructureError)
        assert "endpoint" in error.message

    def test_truncated_parquet(self, dataset: Path, tmp_path: Path) -> None:
        file = dataset / "train.parquet"
        file.write_bytes(file.read_bytes()[:-50])
        error = error_of(str(dataset), tmp_path)
        assert isinstance(error, DataError)
        assert str(error.param).endswith("train.parquet")
        assert "damaged" in error.message

    def test_mixed_schemas(self, dataset: Path, tmp_path: Path) -> None:
        (dataset / "train").mkdir()
        shutil.move(dataset / "train.parquet", dataset / "train" / "a.parquet")
        pq.write_table(pa.table({"body": ["x"], "label": ["bird"]}), dataset / "train" / "b.parquet")
        error = error_of(str(dataset), tmp_path)
        assert str(error.param).endswith("b.parquet")
        assert "'text'" in error.message
        assert "body" in error.message

    def test_null_text_names_object_group_and_row(self, tmp_path: Path) -> None:
        table = pa.table({"text": ["a"] * 45 + [None] + ["b"] * 4, "label": ["x", "y"] * 25})
        pq.write_table(table, tmp_path / "train.parquet", row_group_size=20)
        error = error_of(str(tmp_path), tmp_path / "c")
        assert "train.parquet, row group 2" in str(error.param)
        assert "row 5" in error.message

    def test_unseen_label_in_validation(self, dataset: Path, tmp_path: Path) -> None:
        pq.write_table(pa.table({"text": ["a"], "label": ["reptile"]}), dataset / "validation.parquet")
        error = error_of(str(dataset), tmp_path)
        assert "'reptile'" in error.message
        assert "validation" in error.message

    def test_one_class(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"text": ["a", "b"], "label": ["x", "x"]}), tmp_path / "train.parquet")
        assert "one class only" in error_of(str(tmp_path), tmp_path / "c").message

    def test_no_usual_columns_lists_what_is_there(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"foo": ["a", "b"], "bar": ["x", "y"]}), tmp_path / "train.parquet")
        error = error_of(str(tmp_path), tmp_path / "c")
        assert "foo (string), bar (string)" in error.message
        assert "dataset.columns.text" in (error.hint or "")
        named = error_of({"path": str(tmp_path), "columns": {"text": "baz"}}, tmp_path / "c")
        assert named.param == "/dataset/columns/text"

    def test_label_is_needed_for_classification(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "train.parquet")
        assert "label" in error_of(str(tmp_path), tmp_path / "c", task="text-classification").message
        assert manifest_of(str(tmp_path), tmp_path / "c").target is None

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("train.jsonl", '{"text": "a", "label": "x"}\n{"text": oops}\n'),
            ("train.json", '[{"text": "a"}]'),
            ("train.csv", "text,label\na,x\nb\n"),
            ("train.bin", "?"),
            ("train.jsonl.gz", "?"),
        ],
    )
    def test_damaged_lines_and_unknown_formats(self, name: str, content: str, tmp_path: Path) -> None:
        (tmp_path / name).write_text(content)
        error = error_of(str(tmp_path), tmp_path / "c")
        assert isinstance(error, DataError)
        assert str(error.param).endswith(name)
        assert error.hint

    def test_changed_under_the_run(self, s3: S3Server, tmp_path: Path) -> None:
        folder = write_dataset(s3.folder / "bucket" / "altered")
        manifest = manifest_of("s3://bucket/altered", tmp_path)
        write_dataset(folder, rows=199)
        with pytest.raises(DataError, match="changed under the run"):
            texts_of(manifest, "train")

    def test_an_image_column_that_is_not_there(self, dataset: Path, tmp_path: Path) -> None:
        error = error_of({"path": str(dataset), "columns": {"image": "i"}}, tmp_path)
        assert error.param == "/dataset/columns/image"
        assert "'i'" in error.message
