"""Image folders with a metadata file: rows in its order, of the images that it names, whatever is wrong with either."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from astraml_ray.cli.s3_server import S3Server
from astraml_ray.control import dry_run
from astraml_ray.data.bad_data.quarantine import quarantined
from astraml_ray.data.changes import digest_of, listing_digest
from astraml_ray.data.formats import Bounds, image_metadata, listed_images
from astraml_ray.data.inspection.inspect import inspect_dataset
from astraml_ray.data.manifest import Manifest
from astraml_ray.data.rows import read_rows
from astraml_ray.errors import DataError
from astraml_ray.spec.dataset import Columns, DatasetSpec
from tests.unit.format_files import fragments_at, rows_at, write_rows
from tests.unit.images import image_rows
from tests.unit.test_bad_rows import error_of, manifest_of

KINDS = ("jsonl", "csv", "parquet")
Rows = list[dict[str, Any]]


def write_metadata(folder: Path, rows: Rows, kind: str = "jsonl") -> None:
    write_rows(rows, folder / f"metadata.{kind}")


def write_folder(folder: Path, count: int, *, seed: int, kind: str = "jsonl", extra: Sequence[str] = ()) -> Rows:
    """Images in two subfolders, named in another order than theirs; as its rows should be."""
    rows = []
    for number, row in enumerate(image_rows(count, seed=seed).to_pylist()):
        name = f"{'ab'[number % 2]}/{number:03}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(row["image"])
        rows.append({"file_name": name, "label": row["label"], "score": number, "image": row["image"]})
    for name in extra:
        (folder / name).write_bytes(rows[0]["image"])
    rows = rows[::-1]
    write_metadata(folder, [{name: row[name] for name in ("file_name", "label", "score")} for row in rows], kind)
    return rows


def images_of(manifest: Manifest, split: str) -> list[tuple[bytes, str]]:
    part = manifest.splits[split]
    tables = [read_rows(manifest, part, i) for i in range(len(part.fragments))]
    return [(row["image"], row["label"]) for table in tables for row in table.to_pylist()]


def expected_of(rows: Rows) -> list[tuple[bytes, str]]:
    return [(row["image"], row["label"]) for row in rows]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_those_of_the_file(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its order, over fragments of images, with all its columns; a class of numbers is named as others are."""
    monkeypatch.setattr(Bounds, "group", 8)
    rows = write_folder(tmp_path / "train", 30, seed=1, kind=kind)
    other = write_folder(tmp_path / "validation", 12, seed=2, kind=kind)
    manifest = manifest_of(tmp_path, tmp_path / "c")
    assert len(manifest.splits["train"].fragments) == 4
    assert images_of(manifest, "train") == expected_of(rows)
    assert images_of(manifest, "validation") == expected_of(other)
    assert Manifest.from_json(manifest.to_json()) == manifest
    plain = rows_at(str(tmp_path / "train"))
    assert list(plain[0]) == ["image", "label", "score", "path"]
    assert [int(str(row["score"])) for row in plain] == list(range(30))[::-1]
    assert str(plain[0]["path"]).endswith("/train/b/029.png")
    by_number = manifest_of(tmp_path, tmp_path / "c", columns={"label": "score"}, on_bad_row="skip")
    assert by_number.labels == tuple(map(str, range(30)))


def test_without_a_validation_folder_rows_are_split_off(tmp_path: Path) -> None:
    rows = write_folder(tmp_path / "d", 40, seed=1)
    manifest = manifest_of(tmp_path / "d", tmp_path / "c", validation_fraction=0.2)
    held, kept = images_of(manifest, "validation"), images_of(manifest, "train")
    assert held
    assert sorted(held + kept) == sorted(expected_of(rows))


def test_in_a_bucket_each_file_is_pinned(s3: S3Server, tmp_path: Path) -> None:
    folder = s3.folder / "bucket" / "pictures"
    rows = write_folder(folder / "train", 20, seed=1)
    write_folder(folder / "validation", 6, seed=2)
    manifest = manifest_of("s3://bucket/pictures", tmp_path / "c")
    assert images_of(manifest, "train") == expected_of(rows)
    write_metadata(folder / "train", [{name: row[name] for name in ("file_name", "label")} for row in rows[::-1]])
    image_metadata._kept = image_metadata._Kept()
    with pytest.raises(DataError, match="changed under the run") as caught:
        images_of(manifest, "train")
    assert str(caught.value.param).endswith("train/metadata.jsonl")
    assert images_of(manifest_of("s3://bucket/pictures", tmp_path / "c"), "train") == expected_of(rows[::-1])


def test_folders_are_as_they_are_written(tmp_path: Path) -> None:
    """A path with dots, or a key with an empty step: names are looked up below it all the same."""
    (tmp_path / "beside").mkdir()
    rows = write_folder(tmp_path / "d" / "train" / "x", 8, seed=1)
    write_folder(tmp_path / "d" / "validation", 6, seed=2)
    plain = [{"file_name": f"../x/./{row['file_name']}", "label": row["label"]} for row in rows]
    write_metadata(tmp_path / "d" / "train" / "x", plain)
    manifest = manifest_of(tmp_path / "beside" / ".." / "d", tmp_path / "c")
    assert images_of(manifest, "train") == expected_of(rows)
    assert image_metadata._below("s3://b/a//train", "x/../../y/1.png") == "s3://b/a//y/1.png"


def test_images_are_not_read_to_count_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what was counted is remembered until the metadata file or an image changes."""
    write_folder(tmp_path / "d" / "train", 20, seed=1)
    write_folder(tmp_path / "d" / "validation", 6, seed=2)
    with monkeypatch.context() as patch:
        patch.setattr(listed_images, "images_of", lambda *_: pytest.fail("read"))
        first = manifest_of(tmp_path / "d", tmp_path / "c")
        patch.setattr("astraml_ray.data.scan.read_checked", lambda *_: pytest.fail("read again"))
        assert manifest_of(tmp_path / "d", tmp_path / "c") == first
    path = tmp_path / "d" / "train" / "metadata.jsonl"
    path.write_text(path.read_text().replace('"disc"', '"ring"'))
    with pytest.raises(DataError, match="'disc' of the validation set is in no training row"):
        manifest_of(tmp_path / "d", tmp_path / "c")


def test_an_image_that_is_not_named_is_left_out_and_told(tmp_path: Path) -> None:
    rows = write_folder(tmp_path / "train", 10, seed=1, extra=["left.png", "a/right.png"])
    write_folder(tmp_path / "validation", 10, seed=2, extra=["one.png"])
    assert images_of(manifest_of(tmp_path, tmp_path / "c"), "train") == expected_of(rows)
    found = inspect_dataset(DatasetSpec(path=str(tmp_path)))
    split = found["splits"]["train"]
    assert (split["rows"], split["files"], split["unnamed_images"]) == (10, 11, 2)
    assert found["splits"]["validation"]["unnamed_images"] == 1
    told = {one["split"]: one["message"] for one in found["findings"] if one["code"] == "unnamed_images"}
    assert told == {
        "train": "2 images of train left out: no metadata file names them",
        "validation": "1 image of validation left out: no metadata file names it",
    }


@pytest.mark.parametrize("name", ["a/none.png", "../validation/a/000.png", "/etc/hostname"])
def test_a_named_image_that_is_missing_is_a_bad_row(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is one that lies elsewhere: only what was listed is read, and once."""
    rows = write_folder(tmp_path / "train", 20, seed=1)
    write_folder(tmp_path / "validation", 6, seed=2)
    plain = [{key: row[key] for key in ("file_name", "label")} for row in rows]
    write_metadata(tmp_path / "train", [*plain[:7], {"file_name": name, "label": "disc"}, *plain[7:]])
    error = error_of(tmp_path, tmp_path / "c")
    assert error.message == "is named in metadata.jsonl, and is not there, empty or hidden (row 7 of it)"
    assert str(error.param).endswith(name.rpartition("/")[2])
    manifest = manifest_of(tmp_path, tmp_path / "c", on_bad_row="quarantine", max_bad_fraction=0.1)
    assert manifest.left_out["train"].reasons == {"missing_image": 1}
    assert images_of(manifest, "train") == expected_of(rows)
    [record] = map(json.loads, quarantined(manifest).splitlines())
    assert (record["reason"], json.loads(record["line"])) == ("missing_image", {"file_name": name, "label": "disc"})
    with monkeypatch.context() as patch:
        patch.setattr(Bounds, "group", 1)
        alone = error_of(tmp_path, tmp_path / "c")
        assert alone.message == error.message
    reads: list[int] = []
    read = listed_images.images_of
    monkeypatch.setattr(listed_images, "images_of", lambda *given: reads.append(len(given[0])) or read(*given))
    found = inspect_dataset(DatasetSpec(path=str(tmp_path)))
    assert (found["splits"]["train"]["rows"], sum(reads)) == (20, 26)
    [refused] = found["splits"]["train"]["refused"]
    assert "is not there" in refused["why"]


def write_above(folder: Path, kind: str = "jsonl") -> dict[str, Rows]:
    """One metadata file above the folders of three splits, whose rows are mixed; as their rows should be."""
    counts = {"train": 30, "val": 12, "test": 8}
    found = {}
    for seed, (split, count) in enumerate(counts.items()):
        found[split] = write_folder(folder / split, count, seed=seed)
        (folder / split / "metadata.jsonl").unlink()
    rows = [
        {"file_name": f"{split}/{row['file_name']}", "label": row["label"], "score": row["score"]}
        for split, part in found.items()
        for row in part
    ]
    order = sorted(range(len(rows)), key=lambda i: i * 7919 % 50)
    write_metadata(folder, [rows[i] for i in order], kind)
    flat = [(split, row) for split, part in found.items() for row in part]
    return {split: [flat[i][1] for i in order if flat[i][0] == split] for split in counts}


@pytest.mark.parametrize("kind", KINDS)
def test_one_file_above_the_folders_of_all_splits(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each split's rows are those whose images are in its folder, in the order of the file."""
    monkeypatch.setattr(Bounds, "group", 8)
    rows = write_above(tmp_path / "d", kind)
    manifest = manifest_of(tmp_path / "d", tmp_path / "c")
    assert {name: split.total_rows for name, split in manifest.splits.items()} == {
        "train": 30,
        "validation": 12,
        "test": 8,
    }
    for name, split in (("train", "train"), ("validation", "val"), ("test", "test")):
        assert images_of(manifest, name) == expected_of(rows[split])
    assert len(manifest.splits["train"].fragments) == 4
    assert Manifest.from_json(manifest.to_json()) == manifest
    again = manifest_of(tmp_path / "d", tmp_path / "c")  # what was counted is remembered
    assert again == manifest
    spec = DatasetSpec(path=str(tmp_path / "d"))
    assert listing_digest(spec, None) == digest_of(spec, manifest.objects)
    found = inspect_dataset(spec)
    assert [split["rows"] for split in found["splits"].values()] == [30, 12, 8]
    assert not any(split["unnamed_images"] or split["refused"] for split in found["splits"].values())
    alone = manifest_of(tmp_path / "d", tmp_path / "c", columns={"label": "score"}, on_bad_row="skip")
    assert [row["score"] for row in rows["train"]] == [int(label) for _, label in images_of(alone, "train")]


def test_bad_rows_of_a_file_above_all_splits_are_told_by_their_numbers_in_it(tmp_path: Path) -> None:
    """A row without a name, one whose image is not there, one of an image in no split, and one that does not parse."""
    rows = write_above(tmp_path)
    path = tmp_path / "metadata.jsonl"
    lines = path.read_text().splitlines()
    missing = next(i for i, line in enumerate(lines) if "val/" in line)
    nameless, outside, broken = [i for i, line in enumerate(lines) if "train/" in line and i > missing][:3]
    gone = tmp_path / json.loads(lines[missing])["file_name"]
    gone.unlink()
    lines[nameless] = json.dumps({**json.loads(lines[nameless]), "file_name": ""})
    lines[outside] = json.dumps({**json.loads(lines[outside]), "file_name": "other/x.png"})
    lines[broken] = lines[broken][:-3]
    path.write_text("\n".join(lines) + "\n")
    manifest = manifest_of(tmp_path, tmp_path / "c", on_bad_row="quarantine", max_bad_fraction=0.2)
    records = [json.loads(line) for line in quarantined(manifest).splitlines()]
    told = {(one["split"], one["reason"], one["row"]) for one in records if one["reason"] != "missing_image"}
    assert told == {("train", "null", nameless), ("train", "unparsable", broken)}
    images = {(record["split"], record["message"].partition("(")[2]) for record in records}
    assert {("train", f"row {outside} of it)"), ("validation", f"row {missing} of it)")} < images
    assert len(images_of(manifest, "train")) == len(rows["train"]) - 3
    assert len(images_of(manifest, "validation")) == len(rows["val"]) - 1
    assert images_of(manifest, "test") == expected_of(rows["test"])


def test_a_split_with_a_file_of_its_own_takes_none_from_above(tmp_path: Path) -> None:
    rows = write_above(tmp_path)
    own = write_folder(tmp_path / "val", 12, seed=9)
    manifest = manifest_of(tmp_path, tmp_path / "c")
    assert images_of(manifest, "validation") == expected_of(own)
    assert images_of(manifest, "train") == expected_of(rows["train"])


def test_a_file_above_one_split_alone(tmp_path: Path) -> None:
    """And the classes are its, not the folders'."""
    rows = write_folder(tmp_path / "train", 30, seed=1)
    (tmp_path / "train" / "metadata.jsonl").unlink()
    write_metadata(tmp_path, [{"file_name": f"train/{row['file_name']}", "label": row["label"]} for row in rows])
    manifest = manifest_of(tmp_path, tmp_path / "c")
    both = images_of(manifest, "train") + images_of(manifest, "validation")
    assert sorted(both) == sorted(expected_of(rows))


def test_a_metadata_file_that_is_not_every_images_is_refused(tmp_path: Path) -> None:
    """Of one split or of some folders only: images would be left out unseen."""
    rows = write_folder(tmp_path / "train", 10, seed=1)
    write_folder(tmp_path / "validation", 6, seed=2)
    for split in ("train", "validation"):
        (tmp_path / split / "metadata.jsonl").unlink()
    write_metadata(tmp_path, [{"file_name": f"train/{row['file_name']}", "label": row["label"]} for row in rows])
    above = error_of(tmp_path, tmp_path / "c")
    assert "the validation set has no rows" in above.message
    assert str(above.param).endswith("/metadata.jsonl")
    (tmp_path / "metadata.jsonl").rename(tmp_path / "train" / "a" / "metadata.jsonl")
    some = error_of(tmp_path, tmp_path / "c")
    assert "in no folder with a metadata file" in some.message
    assert str(some.param).endswith("/train/b/001.png")


def test_a_dataset_that_is_as_it_was_has_the_digest_of_its_manifest(tmp_path: Path) -> None:
    """Of images, what is read of them: their metadata file's order, and none that it does not name."""
    rows = write_folder(tmp_path / "train", 10, seed=1, extra=["left.png"])
    write_folder(tmp_path / "validation", 6, seed=2)
    spec = DatasetSpec(path=str(tmp_path))
    before = digest_of(spec, manifest_of(tmp_path, tmp_path / "c").objects)
    assert listing_digest(spec, None) == before
    (tmp_path / "train" / "left.png").unlink()
    assert listing_digest(spec, None) == before
    (tmp_path / "train" / rows[0]["file_name"]).write_bytes(rows[1]["image"])
    assert listing_digest(spec, None) != before


def test_a_missing_image_is_told_when_a_run_meets_it(tmp_path: Path) -> None:
    write_metadata(tmp_path, [{"file_name": "1.png", "label": "a"}, {"file_name": "2.png", "label": "b"}])
    (tmp_path / "1.png").write_bytes(b"1")
    with pytest.raises(DataError, match="is not there") as caught:
        rows_at(str(tmp_path))
    assert str(caught.value.param).endswith("/2.png")
    assert "on_bad_row" in str(caught.value.hint)


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_row_that_does_not_parse_or_names_nothing_is_a_bad_row(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its line, and its number in the metadata file, whichever fragment it is in."""
    monkeypatch.setattr(Bounds, "group", 8)
    rows = write_folder(tmp_path / "train", 20, seed=1, kind=kind)
    write_folder(tmp_path / "validation", 6, seed=2)
    path = tmp_path / "train" / f"metadata.{kind}"
    lines = path.read_text().splitlines(keepends=True)
    heads = lines[: kind == "csv"]
    lines = lines[len(heads) :]
    torn = '{"file_name": \n' if kind == "jsonl" else "one,two\n"
    nameless = '{"file_name": null, "label": "disc", "score": 0}\n' if kind == "jsonl" else ',"disc",0\n'
    path.write_text("".join([*heads, *lines[:11], torn, *lines[11:15], nameless, *lines[15:]]))
    error = error_of(tmp_path, tmp_path / "c")
    assert error.message.startswith("row 11: at byte ")
    assert "2 of 22 rows" in error.message
    assert str(error.param).endswith(f"/metadata.{kind}")
    left = {"on_bad_row": "quarantine", "max_bad_fraction": 0.1}
    for again in (False, True):
        if again:
            image_metadata._kept = image_metadata._Kept()
        manifest = manifest_of(tmp_path, tmp_path / "c", **left)
        assert (manifest.left_out["train"].rows, manifest.left_out["train"].count) == (22, 2)
        assert images_of(manifest, "train") == expected_of(rows)
    first, second = map(json.loads, quarantined(manifest).splitlines())
    assert (first["reason"], first["row"], first["line"]) == ("unparsable", 11, torn)
    assert (second["reason"], second["row"], json.loads(second["line"])["label"]) == ("null", 16, "disc")
    with pytest.raises(DataError, match="row 11: at byte") as caught:
        rows_at(str(tmp_path / "train"))
    assert "correct the row" in str(caught.value.hint)
    refused = inspect_dataset(DatasetSpec(path=str(tmp_path)))["splits"]["train"]["refused"]
    assert "row 11: at byte" in refused[0]["why"]


def test_a_damaged_image_and_a_null_label_cost_their_rows(tmp_path: Path) -> None:
    rows = write_folder(tmp_path / "train", 20, seed=1)
    write_folder(tmp_path / "validation", 6, seed=2)
    (tmp_path / "train" / rows[3]["file_name"]).write_bytes(b"<html>")
    plain: Rows = [{key: row[key] for key in ("file_name", "label")} for row in rows]
    plain[5]["label"] = None
    write_metadata(tmp_path / "train", plain)
    assert "column 'label' is null" in error_of(tmp_path, tmp_path / "c").message
    manifest = manifest_of(tmp_path, tmp_path / "c", on_bad_row="skip", max_bad_fraction=0.2)
    assert manifest.left_out["train"].reasons == {"bad_image": 1, "null": 1}
    assert images_of(manifest, "train") == expected_of([row for n, row in enumerate(rows) if n not in (3, 5)])


def test_two_folders_of_a_split_and_one_image_named_twice(tmp_path: Path) -> None:
    first = write_folder(tmp_path / "train" / "x", 8, seed=1)
    second = write_folder(tmp_path / "train" / "y", 8, seed=2, kind="csv")
    names = [{"file_name": f"./{first[0]['file_name']}", "label": label} for label in ("bars", "disc", "bars")]
    write_metadata(tmp_path / "train" / "x", [*names, {"file_name": first[1]["file_name"], "label": "disc"}])
    write_folder(tmp_path / "validation", 8, seed=3)
    manifest = manifest_of(tmp_path, tmp_path / "c")
    one, two = first[0]["image"], first[1]["image"]
    assert images_of(manifest, "train") == [
        (one, "bars"),
        (one, "disc"),
        (one, "bars"),
        (two, "disc"),
        *expected_of(second),
    ]
    found = inspect_dataset(DatasetSpec(path=str(tmp_path)))["splits"]["train"]
    read = [tmp_path / "train" / "x" / row["file_name"] for row in first[:2]]
    read += [tmp_path / "train" / "y" / row["file_name"] for row in second]
    read += [tmp_path / "train" / "x" / "metadata.jsonl", tmp_path / "train" / "y" / "metadata.csv"]
    assert (found["unnamed_images"], found["formats"], found["files"]) == (6, ["image-folder"], 12)
    assert found["bytes"] == sum(path.stat().st_size for path in read), "of an image that is named twice once"
    split = dry_run._split(manifest, manifest.splits["train"])
    assert split == {"rows": 12, "objects": 12, "bytes": found["bytes"], "formats": ["image-folder"]}


def test_a_folder_of_classes_beside_one_with_a_file(tmp_path: Path) -> None:
    """Validation by folders; and a file of that name without images is data as any other."""
    rows = write_folder(tmp_path / "d" / "train", 12, seed=1)
    for row in rows:
        path = tmp_path / "d" / "validation" / row["label"] / Path(row["file_name"]).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(row["image"])
    manifest = manifest_of(tmp_path / "d", tmp_path / "c")
    assert sorted(images_of(manifest, "validation")) == sorted(expected_of(rows))
    (tmp_path / "metadata.csv").write_text("text,label\na,x\nb,y\n")
    assert rows_at(str(tmp_path / "metadata.csv")) == [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]


def test_texts_about_images_are_texts(tmp_path: Path) -> None:
    rows = write_folder(tmp_path / "d", 30, seed=1)
    spec = DatasetSpec(path=str(tmp_path / "d"), columns=Columns(text="label"), format="image-folder")
    found = inspect_dataset(spec)
    assert (found["rows_are"], found["splits"]["train"]["rows"]) == ("texts", len(rows))


def test_texts_about_images_are_looked_at_as_other_texts(tmp_path: Path) -> None:
    """A null text costs its row, and words have a tag each; no image is read for them."""
    for split in ("train", "validation"):
        rows = write_folder(tmp_path / split, 8, seed=1)
        told: Rows = [
            {
                "file_name": row["file_name"],
                "caption": f"no. {n}",
                "label": row["label"],
                "words": ["a"],
                "tags": ["xy"[n % 2]],
            }
            for n, row in enumerate(rows)
        ]
        told[2]["caption"] = None
        told[3]["tags"] = ["y", "x"]
        write_metadata(tmp_path / split, told)
    left = {"on_bad_row": "skip", "max_bad_fraction": 0.2}
    manifest = manifest_of(tmp_path, tmp_path / "c", columns={"text": "caption"}, **left)
    assert manifest.left_out["validation"].reasons == {"null": 1}
    kept = read_rows(manifest, manifest.splits["train"], 0)["text"].to_pylist()
    assert kept == [f"no. {n}" for n in range(8) if n != 2]
    words = manifest_of(tmp_path, tmp_path / "c", columns={"tokens": "words", "label": "tags"}, **left)
    assert words.left_out["train"].reasons == {"unequal_lengths": 1}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"name": "1.png", "label": "a"}], "no column 'file_name'"),
        ([{"file_name": "1.png", "image": "a"}], "has a column 'image'"),
        ([{"file_name": 1, "label": "a"}], "no names"),
        ([{"file_name": None, "label": "a"}], "no names"),
    ],
)
def test_a_file_that_names_no_images(rows: Rows, said: str, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"1")
    write_metadata(tmp_path, rows)
    for look in (rows_at, fragments_at):
        with pytest.raises(DataError, match=said) as caught:
            look(str(tmp_path))
        assert str(caught.value.param).endswith("/metadata.jsonl")
        assert caught.value.hint


def test_a_damaged_file_a_second_one_and_one_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, 4, seed=1)
    path = tmp_path / "metadata.jsonl"
    good = path.read_text()
    path.write_text('{"file_name": \n')
    with pytest.raises(DataError, match="damaged"):
        rows_at(str(tmp_path))
    path.write_text(good)
    (tmp_path / "metadata.csv").write_text("file_name,label\na/000.png,x\n")
    with pytest.raises(DataError, match="second metadata file"):
        rows_at(str(tmp_path))
    (tmp_path / "metadata.csv").unlink()
    monkeypatch.setattr(Bounds, "whole", 100)
    with pytest.raises(DataError, match="read as a whole"):
        rows_at(str(tmp_path))


def test_of_many_metadata_files_few_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = image_metadata._Kept()
    monkeypatch.setattr(image_metadata, "_kept", tables)
    monkeypatch.setattr(Bounds, "frame", 1000)
    for number in range(10):
        write_folder(tmp_path / str(number), 10, seed=number)
    assert len(rows_at(str(tmp_path))) == 100
    assert 1 <= len(tables._kept) < 5
