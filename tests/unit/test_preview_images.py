"""A preview of images shows what training reads, on a page that needs nothing else; pairs and tagged words show too."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from astraml_ray.cli.image_preview_page import augmentation_words, image_preview_html
from astraml_ray.cli.main import main
from astraml_ray.data import plan
from astraml_ray.data.blocks import BlockReader
from astraml_ray.data.encoding.images import ImageEncoder, pixels_of
from astraml_ray.data.inspection.preview import preview_dataset, within
from astraml_ray.data.plan import run_blocks
from astraml_ray.data.prepare import build_manifest
from astraml_ray.data.sampling import make_sampler
from astraml_ray.errors import DataError, SpecError
from astraml_ray.spec import JobSpec
from astraml_ray.spec.augmentation import augmentations_of
from astraml_ray.spec.loading import parse_spec
from tests.unit.images import write_images

SIDE, SEED, EPOCHS = 24, 7, 3


def spec_of(folder: Path, **more: Any) -> JobSpec:
    document = {"dataset": str(folder), "model": "none", "seed": SEED, "augmentation": "strong", **more}
    return parse_spec({"hyperparams": {"image_size": SIDE}, **document})


def pixels(file: dict[str, Any]) -> np.ndarray[Any, Any]:
    with Image.open(io.BytesIO(base64.b64decode(file["data"]))) as opened:
        assert file["media_type"] == f"image/{str(opened.format).lower()}"
        return np.asarray(opened)


@pytest.mark.parametrize("blocks", ["one", "many"])
@pytest.mark.parametrize("sampling", ["natural", "balanced"])
def test_after_is_what_workers_train_on_in_every_epoch(
    blocks: str, sampling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two workers, with mixtures, of which the partners are other workers' rows too."""
    if blocks == "many":
        monkeypatch.setitem(plan.epoch_blocks.__kwdefaults__, "block_bytes", 1)
        monkeypatch.setitem(plan.run_blocks.__kwdefaults__, "block_bytes", 1)
    folder = write_images(tmp_path / "d", rows=60, group=6)
    spec = spec_of(folder, sampling=sampling)
    found = preview_dataset(spec, rows=9, draws=EPOCHS, cache=tmp_path / "c")
    assert [row["position"] for row in found["rows"]] == list(range(9))

    counted = sampling != "natural"
    manifest = build_manifest(spec.dataset, task="image-classification", cache=tmp_path / "c", count_classes=counted)
    augmentations = augmentations_of("strong", "image-classification")
    encoder = ImageEncoder(SIDE, SIDE, manifest.labels, short_edge=SIDE, mixes=True)
    split, sampler = manifest.splits["train"], make_sampler(manifest, spec.sampling, seed=SEED)
    reader = BlockReader(manifest, split, encoder, SEED, 8, 2, augmentations, sampler=sampler)
    trained: dict[tuple[int, int], Any] = {}
    for block in run_blocks(split.rows, split.sizes, seed=SEED, epochs=EPOCHS, sampler=sampler):
        for rank in range(2):
            table = pa.concat_tables(reader.read(block, world_rank=rank))
            images = pixels_of(table, "image", SIDE, SIDE)
            for position, image, partner, weight in zip(
                table["position"].to_pylist(),
                images,
                table["partner_label"].to_pylist(),
                table["partner_weight"].to_pylist(),
                strict=True,
            ):
                trained[block.epoch, position] = image, manifest.labels[partner] if weight else None, weight
    source = {
        image.tobytes(): label
        for image, label in zip(
            encoder.decode(pq.read_table(folder / "train.parquet")["image"]),
            pq.read_table(folder / "train.parquet")["label"].to_pylist(),
            strict=True,
        )
    }
    mixed = 0
    for row in found["rows"]:
        assert source[pixels(row["before"]).tobytes()] == row["label"]
        assert row["after"][0]["epoch"] == 0
        if not counted:
            assert [one["epoch"] for one in row["after"]] == list(range(EPOCHS))
        for one in row["after"]:
            image, partner, weight = trained[one["epoch"], one["position"]]
            assert np.array_equal(pixels(one), image)
            assert (one["partner_label"], one["partner_weight"]) == (partner, round(weight, 4))
            mixed += partner is not None
    assert mixed > 3
    draws = [pixels(one).tobytes() for one in found["rows"][0]["after"]]
    assert len(set(draws)) == len(draws)


def test_draws_of_a_row_are_of_that_row(tmp_path: Path) -> None:
    """An augmentation that only mirrors tells which image it was of."""
    folder = write_images(tmp_path / "d", rows=40, group=7)
    spec = spec_of(folder, augmentation=[{"type": "flip", "probability": 1.0}])
    for row in preview_dataset(spec, rows=12, draws=EPOCHS, cache=tmp_path / "c")["rows"]:
        assert len(row["after"]) == EPOCHS
        for one in row["after"]:
            assert np.array_equal(pixels(one), pixels(row["before"])[:, ::-1])


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_is_well_formed_and_holds_every_image(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "d", rows=30)
    found = preview_dataset(spec_of(folder), rows=5, draws=2, cache=tmp_path / "c")
    found["rows"][0]["label"] = "<script>bad()</script> @ROWS@"
    text = image_preview_html(found)
    page = _Page()
    page.feed(text)
    page.close()
    assert page.open == []
    assert len(page.sources) == 5 * 3
    assert all(re.match(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+$", source) for source in page.sources)
    assert "default-src 'none'; img-src data:" in text
    assert "<script" not in text
    assert any("<script>bad()</script> @ROWS@" in one for one in page.texts)
    assert "://" not in text
    assert "url(" not in text


def test_augmentations_in_words() -> None:
    words = [
        augmentation_words(one.model_dump(mode="json")) for one in augmentations_of("light", "image-classification")
    ]
    assert words == ["random crop (padding 0.125)", "flip (axis horizontal) on 50% of the images"]


def run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, ["data", "preview", *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_the_command_writes_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = str(write_images(tmp_path / "d", rows=30))
    shown = ("--augmentation", "strong", "-n", "4", "--size", "80")
    code, out, _ = run(folder, *shown)
    assert (code, out.splitlines()[-1]) == (0, "preview.html")
    text = (tmp_path / "preview.html").read_text()
    assert text.count("<img ") == 4 * 5
    assert "data:image/jpeg" in text
    (tmp_path / "preview.html").unlink()
    code, out, _ = run(folder, *shown, "--draws", "1", "--output", "json")
    found = json.loads(out)
    assert (code, found["kind"], found["size"], len(found["rows"])) == (0, "images", 80, 4)
    assert not (tmp_path / "preview.html").exists()
    assert run(folder, *shown, "--html", str(tmp_path / "no" / "page.html"))[0] == 30
    code, _, error = run(folder, "--augmentation", "light", "-n", "300")
    assert (code, "256 at most" in error) == (10, True)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "d", rows=12)
    with pytest.raises(SpecError, match="case_noise is for texts"):
        preview_dataset(spec_of(folder, augmentation=[{"type": "case_noise"}]), rows=1, cache=tmp_path / "c")
    table = pq.read_table(folder / "train.parquet")
    damaged = pa.array([b"no image"] * table.num_rows)
    pq.write_table(table.set_column(0, "image", damaged), folder / "train.parquet")
    with pytest.raises(DataError, match=r"row \d+: column 'image': is of no format"):
        preview_dataset(spec_of(folder), rows=1, cache=tmp_path / "c")


PAIRS = pa.table(
    {
        "premise": [f"a man runs over hill number {i} in the morning light" for i in range(30)],
        "hypothesis": [f"somebody moves quickly up slope {i} before noon" for i in range(30)],
        "label": ["yes", "no"] * 15,
    }
)
WORDS = pa.table(
    {"tokens": [["Anna", "lives", "in", f"Town{i}"] for i in range(30)], "ner_tags": [["PER", "O", "O", "LOC"]] * 30}
)


@pytest.mark.parametrize(("table", "kind"), [(PAIRS, "pairs"), (WORDS, "words")])
def test_pairs_and_tagged_words(table: pa.Table, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(table, tmp_path / "train.parquet")
    shown = (str(tmp_path), "--augmentation", "strong", "-n", "12")
    found = json.loads(run(*shown, "--output", "json")[1])
    assert found["kind"] == kind
    if kind == "pairs":
        premises, hypotheses = table["premise"].to_pylist(), table["hypothesis"].to_pylist()
        places = [premises.index(row["before"]) for row in found["rows"]]
        assert [row["before_pair"] for row in found["rows"]] == [hypotheses[place] for place in places]
        assert sum(row["after"] != row["before"] for row in found["rows"]) > 3
        assert sum(row["after_pair"] != row["before_pair"] for row in found["rows"]) > 3
    else:
        assert all(len(row["after"]) == len(row["before"]) == len(row["tags"]) for row in found["rows"])
        assert any(row["after"] != row["before"] for row in found["rows"])
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = run(*shown)
    assert code == 0
    assert ("Anna" in out and "/LOC" in out) if kind == "words" else ("somebody" in out and "a man" in out)
    page = tmp_path / "page.html"
    assert run(*shown, "--html", str(page))[0] == 0
    assert "<ins>" in page.read_text()


def test_what_is_sent_is_bounded() -> None:
    long = {"position": 0, "before": "é" * 100, "after": "x" * 100}
    found = within({"rows": [long] * 5}, most_bytes=300, most_characters=50)
    assert (len(found["rows"]), found["left_out"]) == (1, 4)
    assert found["rows"][0]["before"] == "é" * 50 + "…"
    words = {"position": 0, "before": ["w" * 9] * 9, "after": ["v"] * 9, "tags": ["O"] * 9}
    cut = within({"rows": [words]}, most_bytes=10, most_characters=4)["rows"][0]
    assert cut == {"position": 0, "before": ["wwww…"] * 4, "after": ["v"] * 4, "tags": ["O"] * 4}
    image = {"position": 0, "before": {"media_type": "image/png", "data": "x" * 200}, "after": []}
    assert within({"rows": [image] * 3}, most_bytes=600, most_characters=4)["rows"] == [image] * 2
    odd = {"position": 0, "before": "\x01é" * 20, "after": ""}
    for most in (500, 1000, 3000):
        kept = within({"rows": [image, odd] * 6}, most_bytes=most, most_characters=100)["rows"]
        assert 0 < len(json.dumps(kept)) <= most + 2 * len(kept)  # the commas between rows


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    tell: Callable[[str], None] = told.append
    preview_dataset(spec_of(write_images(tmp_path / "d", rows=12)), rows=2, draws=2, cache=tmp_path, progress=tell)
    assert told[-2:] == ["epoch 1 of 2: reading images", "epoch 2 of 2: reading images"]
