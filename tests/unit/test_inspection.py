"""What inspection tells of a dataset agrees with a plain count, and the memory of its hashes is bounded."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astraml_ray.cli.main import main
from astraml_ray.cli.s3_server import S3Server
from astraml_ray.data.formats import Bounds
from astraml_ray.data.inspection.inspect import Progress, inspect_dataset
from astraml_ray.data.inspection.lengths import LengthTally
from astraml_ray.data.inspection.repeats import RowHashes
from astraml_ray.errors import DataError
from astraml_ray.spec.dataset import Columns, DatasetSpec
from tests.conftest import write_dataset
from tests.unit.format_files import write_rows
from tests.unit.images import encoded
from tests.unit.test_bad_files import PACKERS, WRITERS

Rows = list[tuple[Any, Any]]

TEXTS = st.sampled_from(["", "  ", "one", "two words", "Ünï cödé 😀", "x" * 300, "a b\tc\nd"]) | st.text(max_size=12)
ROWS = st.lists(st.tuples(TEXTS | st.none(), st.sampled_from(["yes", "no", "perhaps"]) | st.none()), max_size=30)


def write(path: Path, rows: Rows, *, group: int = 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    texts, labels = ([row[place] for row in rows] for place in (0, 1))
    table = pa.table({"text": pa.array(texts, pa.string()), "label": pa.array(labels)})
    pq.write_table(table, path, row_group_size=group)


def inspect(folder: Path, **options: Any) -> dict[str, Any]:
    return inspect_dataset(DatasetSpec(path=str(folder)), **options)


def codes(found: dict[str, Any], level: str | None = None) -> set[tuple[str, str | None]]:
    return {(f["code"], f["split"]) for f in found["findings"] if level in (None, f["level"])}


def said(rows: Rows) -> Rows:
    """The rows whose text is compared with others'."""
    return [row for row in rows if row[0] is not None and row[0].split()]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(train=ROWS.filter(lambda rows: len(rows) > 1), more=ROWS.filter(bool), other=ROWS.filter(bool))
def test_counts_equal_plain_ones(
    train: Rows, more: Rows, other: Rows, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Over several files and row groups."""
    folder = tmp_path_factory.mktemp("counts")
    write(folder / "train" / "a.parquet", train)
    write(folder / "train" / "b.parquet", more)
    write(folder / "test.parquet", other)
    found = inspect(folder)
    assert list(found["splits"]) == ["train", "test"]
    for name, rows in (("train", train + more), ("test", other)):
        split = found["splits"][name]
        texts = [text for text, _ in rows if text is not None]
        assert split["rows"] == split["rows_read"] == len(rows)
        assert split["text"]["null"] == len(rows) - len(texts)
        assert split["text"]["blank"] == sum(not text.split() for text in texts)
        assert split["text"]["characters"]["max"] == max(map(len, texts), default=0)
        assert split["text"]["words"]["max"] == max((len(text.split()) for text in texts), default=0)
        assert split["label"]["classes"] == Counter(label for _, label in rows if label is not None)
        assert split["label"]["null"] == sum(label is None for _, label in rows)
        copies = Counter(text for text, _ in said(rows))
        labels = {text: {label for other_text, label in said(rows) if other_text == text} for text in copies}
        assert split["duplicates"] == {
            "hashed": len(said(rows)),
            "rows": sum(count - 1 for count in copies.values()),
            "texts": sum(count > 1 for count in copies.values()),
            "conflicting": sum(len(different) > 1 for different in labels.values()),
        }
    trained, tested = ([text for text, _ in said(rows)] for rows in (train + more, other))
    leak = found["leakage"][0]
    assert leak["rows"] == sum(text in trained for text in tested)
    assert leak["train_rows"] == sum(text in tested for text in trained)
    assert (("leakage", "test") in codes(found)) == bool(set(trained) & set(tested))


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 10_000), min_size=1, max_size=50), min_size=1, max_size=4))
def test_lengths_are_exact_when_short_and_near_when_long(batches: list[list[int]]) -> None:
    tally = LengthTally()
    for batch in batches:
        tally.add(np.array(batch, np.int64))
    lengths = sorted(length for batch in batches for length in batch)
    for share in (0.5, 0.95, 0.99, 1.0):
        true = lengths[math.ceil(share * len(lengths)) - 1]
        assert true <= tally.quantile(share) <= (true if true < 128 else true * (1 + 1 / 64))
    histogram = tally.histogram()
    assert sum(part["rows"] for part in histogram) == len(lengths)
    assert histogram[0]["from"] == 0
    assert histogram[-1]["to"] == tally.largest == lengths[-1]
    assert all(a["to"] + 1 == b["from"] for a, b in itertools.pairwise(histogram))
    if lengths[-1] < 128:
        assert all(p["rows"] == sum(p["from"] <= n <= p["to"] for n in lengths) for p in histogram)


def test_hashes_beyond_the_bound_are_a_sample_of_texts_with_all_their_rows() -> None:
    generator = np.random.default_rng(0)
    texts = generator.integers(0, 2**64, 20_000, np.uint64)
    hashes = RowHashes(most=4000)
    zeros = np.zeros(10_000, np.uint64)
    for part in (texts[:10_000], texts[10_000:], texts[:10_000]):  # half of them are there twice
        hashes.add("train", part, zeros)
    hashes.add("test", texts[5_000:15_000], zeros)
    assert sum(table.size for table in hashes._splits.values()) <= 5000
    assert hashes.share <= 1 / 8
    found, overlap = hashes.repeats("train"), hashes.overlap("test")
    kept = texts[texts % np.uint64(1 / hashes.share) == 0]
    assert found.hashed == len(kept) + np.isin(kept, texts[:10_000]).sum()
    assert found.rows == found.texts == np.isin(kept, texts[:10_000]).sum() > 500
    assert overlap.rows == overlap.hashed == np.isin(kept, texts[5_000:15_000]).sum() > 500


def test_one_text_in_very_many_rows_takes_one_place() -> None:
    hashes = RowHashes(most=10)
    for _ in range(100):
        hashes.add("train", np.zeros(1000, np.uint64), np.zeros(1000, np.uint64))
    assert hashes.share == 1
    assert hashes.repeats("train").rows == 99_999


def test_findings_of_a_bad_dataset_come_worst_first(tmp_path: Path) -> None:
    train = [(f"text {i}", "a") for i in range(98)] + [("text 1", "b"), ("", "b"), (None, "7")]
    write(tmp_path / "train.parquet", train)
    write(tmp_path / "dev.parquet", [("text 5", "a"), ("new", "c"), ("newer", None)])
    found = inspect(tmp_path)
    assert codes(found) == {
        ("leakage", "validation"),
        ("null_texts", "train"),
        ("blank_texts", "train"),
        ("mixed_labels", "train"),
        ("dominant_class", "train"),
        ("conflicting_labels", "train"),
        ("duplicates", "train"),
        ("null_labels", "validation"),
        ("untrained_classes", "validation"),
        ("missing_classes", "validation"),
    }
    levels = [finding["level"] for finding in found["findings"]]
    assert levels == sorted(levels, key=("error", "warning", "note").index)
    assert codes(found, "error") == {
        ("null_texts", "train"),
        ("null_labels", "validation"),
        ("untrained_classes", "validation"),
    }
    assert all(finding["hint"] for finding in found["findings"])


def test_a_label_taken_for_the_text_is_told(tmp_path: Path) -> None:
    table = pa.table({"blob": [b"1", b"2"], "label": ["cat", "dog"]})
    pq.write_table(table, tmp_path / "train.parquet")
    assert ("doubtful_text", None) in codes(inspect(tmp_path), "warning")


def test_bytes_that_are_no_text_are_a_data_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"\xff\xd8", b"\xff"], "label": ["cat", "dog"]}), tmp_path / "train.parquet")
    for verb in (["inspect"], ["preview", "--augmentation", "light"]):
        done = CliRunner().invoke(main, ["data", *verb, str(tmp_path), "--set", "dataset.columns.text=image"])
        assert done.exit_code == 20
        assert "'image' holds binary" in done.stderr


@pytest.mark.parametrize("struct", [False, True])
def test_images_are_told_by_size_and_format(struct: bool, tmp_path: Path) -> None:
    """As bytes, and as Hugging Face writes them."""
    drawn = [encoded(np.full((8, 10 + i, 3), i, np.uint8), "JPEG" if i % 4 == 0 else "PNG") for i in range(20)]
    files = [*drawn, drawn[1], b"no image", *([] if struct else [None])]  # of a struct, reading refuses it
    images = [{"bytes": one, "path": "x"} for one in files] if struct else files
    rows = {"image": images, "label": ["cat", "dog", "cat"] * 7 + ["dog", "cat"][: len(files) - 21]}
    pq.write_table(pa.table(rows), tmp_path / "train.parquet", row_group_size=5)
    found = inspect(tmp_path)
    assert found["rows_are"] == "images"
    image = found["splits"]["train"]["image"]
    assert image["formats"] == {"PNG": 16, "JPEG": 5}
    assert image["unreadable"] == 1
    assert (image["width"]["max"], image["height"]["p50"], image["height"]["max"]) == (29, 8, 8)
    assert image["bytes"]["max"] == max(map(len, drawn))
    assert found["splits"]["train"]["duplicates"]["rows"] == 1
    faults = {("unreadable_images", "train"), *([] if struct else [("null_images", "train")])}
    assert codes(found, "error") == faults
    assert all("text" not in finding["message"] for finding in found["findings"])
    code, out, _ = command(str(tmp_path))
    assert code == 20
    assert "PNG 16, JPEG 5" in out
    assert "characters" not in out


def test_tagged_words_are_told_with_their_tags(tmp_path: Path) -> None:
    words = [["Anna", "sleeps"], ["in", "Rome", "now"], None, ["Anna", "sleeps"], []]
    tags = [["PER", "O"], ["O", "LOC", "O"], ["O"], ["O", "O"], []]
    pq.write_table(pa.table({"tokens": words, "ner_tags": tags}), tmp_path / "train.parquet", row_group_size=2)
    found = inspect(tmp_path)
    split = found["splits"]["train"]
    assert (found["rows_are"], split["image"]) == ("words", None)
    assert (split["text"]["null"], split["text"]["blank"], split["text"]["words"]["max"]) == (1, 1, 3)
    assert split["label"]["classes"] == {"LOC": 1, "O": 6, "PER": 1}
    assert split["duplicates"] == {"hashed": 3, "rows": 1, "texts": 1, "conflicting": 1}
    roles = {column["name"]: column["role"] for column in found["columns"]}
    assert roles == {"tokens": "tokens", "ner_tags": "label"}
    assert "tags" in command(str(tmp_path))[1].splitlines()


def test_labels_that_are_no_classes_are_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("astraml_ray.data.inspection.counts.MAX_CLASSES", 50)
    write(tmp_path / "train.parquet", [(f"text {i}", f"id {i}") for i in range(60)], group=60)
    write(tmp_path / "test.parquet", [(f"other {i}", f"id {100 + i}") for i in range(10)])
    found = inspect(tmp_path)
    assert len(found["splits"]["train"]["label"]["classes"]) == 50
    assert codes(found) == {("too_many_classes", "train")}


def test_nothing_is_found_where_there_is_nothing(tmp_path: Path) -> None:
    write_dataset(tmp_path / "d")
    assert inspect(tmp_path / "d")["findings"] == []


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_every_format_and_numbers_as_labels(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are read in many fragments."""
    monkeypatch.setattr(Bounds, "fragment", 200)
    rows = [{"id": i, "review": f"a good, or bad, text {i % 40}", "stars": i % 3} for i in range(50)]
    path = tmp_path / f"train.{kind}"
    write_rows(rows, path)
    spec = DatasetSpec(path=str(tmp_path), columns=Columns(label="stars"))
    steps: list[Progress] = []
    found = inspect_dataset(spec, progress=steps.append)
    assert len(steps) > 5
    assert steps[-1] == Progress(50, path.stat().st_size, path.stat().st_size)
    split = found["splits"]["train"]
    assert split["label"]["classes"] == {"0": 17, "1": 17, "2": 16}
    assert split["label"]["types"] == {"number": 50}
    assert (split["duplicates"]["rows"], split["duplicates"]["conflicting"]) == (10, 10)
    roles = {column["name"]: (column["role"], column["why"]) for column in found["columns"]}
    assert roles == {"id": (None, None), "review": ("text", "usual_name"), "stars": ("label", "named")}
    assert found["split_off"] == 0.05


def test_labels_that_change_their_type_are_counted(tmp_path: Path) -> None:
    """In JSON Lines, in the second fragment, or in the first; training cannot read them if one is no single value."""
    for place, odd in itertools.product((0, 49), ("x", ["x"])):
        lines = [{"text": f"text\u2028{i}", "label": odd if i == place else i % 2} for i in range(50)]
        path = tmp_path / f"{place} {odd}" / "train.jsonl"
        path.parent.mkdir()
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Bounds, "fragment", 300)
            found = inspect(path.parent)
        label = found["splits"]["train"]["label"]
        assert label["types"] == {"number": 49, "text": 1}
        assert sum(label["classes"].values()) == found["splits"]["train"]["rows"] == 50
        if odd == "x":
            assert codes(found) == {("mixed_labels", "train")}
            continue
        assert codes(found) == {("refused_file", "train"), ("mixed_labels", "train")}
        assert path.name in found["findings"][0]["message"]
        assert "changed from" in found["findings"][0]["message"]
    (tmp_path / "train.jsonl").write_text('{"text": "a"\n')
    with pytest.raises(DataError, match="damaged"):
        inspect(tmp_path / "train.jsonl")


@pytest.mark.parametrize("name", ["train.jsonl", "train.jsonl.gz", "train.json", "train.csv.zst"])
def test_rows_that_do_not_parse_are_told_and_the_others_counted(name: str, tmp_path: Path) -> None:
    rows: list[Any] = [{"text": f"text {i}", "label": i % 3} for i in range(50)]
    rows[7:7] = rows[40:40] = ["not a row"]
    plain = WRITERS[name.split(".")[1]](rows)
    (tmp_path / name).write_bytes(PACKERS[f".{name.split('.')[2]}" if name.count(".") > 1 else ""](plain))
    found = inspect(tmp_path)
    split = found["splits"]["train"]
    assert (split["rows"], split["label"]["classes"]) == (50, {"0": 17, "1": 17, "2": 16})
    assert split["label"]["types"] == {"number": 50}
    assert codes(found) == {("refused_file", "train")}
    assert name in found["findings"][0]["message"]
    assert "2 of 52 rows there do not parse" in found["findings"][0]["message"]
    assert "on_bad_row" in found["findings"][0]["hint"]


@pytest.mark.parametrize("packed", PACKERS)
def test_labels_of_no_single_value_are_counted_in_compressed_files(packed: str, tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "label": ["x"] if i == 30 else i % 2} for i in range(50)]
    (tmp_path / f"train.jsonl{packed}").write_bytes(PACKERS[packed](WRITERS["jsonl"](rows)))
    label = inspect(tmp_path)["splits"]["train"]["label"]
    assert label["classes"] == {"0": 24, "1": 25, '["x"]': 1}


def test_small_files_that_differ_are_counted_and_the_one_at_fault_is_named(tmp_path: Path) -> None:
    """Of four that are read as one, one has other labels, and one cannot be read."""
    (tmp_path / "train").mkdir()
    for name, label in {"a": "1", "b": '["x"]', "c": "1"}.items():
        (tmp_path / "train" / f"{name}.jsonl").write_text(f'{{"text": "{name}", "label": {label}}}\n' * 3)
    (tmp_path / "train" / "d.jsonl").write_text('{"text": \n' * 2)
    found = inspect(tmp_path)
    assert found["splits"]["train"]["label"]["classes"] == {"1": 6, '["x"]': 3}
    [refused] = found["splits"]["train"]["refused"]
    assert refused["file"].endswith("d.jsonl")
    assert "2 of 11 rows there do not parse" in refused["why"]


def test_labels_that_are_infinite_or_huge_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [("a", math.inf), ("b", 1e300), ("c", 1.0), ("d", 1.0)])
    assert inspect(tmp_path)["splits"]["train"]["label"]["classes"] == {"1": 2, "1e+300": 1, "inf": 1}


def test_limit_reads_the_first_rows_and_says_so(tmp_path: Path) -> None:
    write_dataset(tmp_path / "d", rows=200, group=40)
    found = inspect(tmp_path / "d", limit=55)
    splits = found["splits"]
    assert {name: (s["rows"], s["rows_read"]) for name, s in splits.items()} == {
        "train": (None, 55),
        "validation": (None, 55),
        "test": (50, 50),
    }
    assert ("limited", None) in codes(found, "note")
    whole = inspect(tmp_path / "d", limit=200)
    assert whole["splits"]["train"]["rows"] == 200


def command(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, ["data", "inspect", *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_command_from_s3(s3: S3Server) -> None:
    folder = write_dataset(s3.folder / "bucket" / "inspected")
    leaked = pq.read_table(folder / "train.parquet").slice(0, 3)
    pq.write_table(leaked, folder / "test.parquet")
    code, out, _ = command("s3://bucket/inspected")
    assert code == 0
    assert out.splitlines()[0].startswith("warning: 3 rows of test (100.0%) are in train too")
    assert "\x1b" not in out
    code, out, _ = command("s3://bucket/inspected", "--output", "json")
    found = json.loads(out)
    assert code == 0
    assert found["leakage"][1] == {"split": "test", "hashed": 3, "rows": 3, "train_rows": 3}


def test_progress_is_told_on_stderr_when_it_takes_long(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command(str(dataset), "--output", "json")[2] == ""
    monkeypatch.setattr("astraml_ray.cli.data._QUIET_S", 0.0)
    code, out, told = command(str(dataset), "--output", "json")
    assert code == 0
    assert json.loads(out)
    assert told.startswith("40 rows, ")


def test_command_s_exit_codes(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [("one", "a"), (None, "b")])
    code, out, _ = command(str(tmp_path), "--output", "json")
    assert (code, json.loads(out)["findings"][0]["code"]) == (20, "null_texts")
    code, _, error = command(str(tmp_path / "nothing"))
    assert code == 20
    assert "nothing" in error
    code, _, error = command()
    assert code == 10
    assert "/dataset" in error
    code, _, error = command(str(tmp_path), "--set", "dataset.credentials={secret: x}")
    assert code == 10
    assert "/dataset/credentials" in error


def test_pairs_are_the_same_row_only_if_both_texts_are(tmp_path: Path) -> None:
    rows = [{"premise": "one", "hypothesis": f"other {i % 9}", "label": "ab"[i % 2]} for i in range(10)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    found = inspect(tmp_path)
    roles = {column["name"]: column["role"] for column in found["columns"]}
    assert roles == {"premise": "text", "hypothesis": "text_pair", "label": "label"}
    repeats = found["splits"]["train"]["duplicates"]
    assert (repeats["rows"], repeats["conflicting"]) == (1, 1)
