"""What a preview shows is what training reads, and what differs is marked."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from astraml_ray.cli.main import main
from astraml_ray.cli.preview_page import preview_html, preview_page
from astraml_ray.data import plan
from astraml_ray.data.augmentation.draws import Means
from astraml_ray.data.blocks import BlockReader, rows_of_block
from astraml_ray.data.encoding.text import SEQUENCES, TextEncoder
from astraml_ray.data.encoding.tokenizers import train_tokenizer
from astraml_ray.data.inspection.preview import preview_dataset
from astraml_ray.data.inspection.previews import mark_changes, preview
from astraml_ray.data.microbatches import local_blocks, micro_batches
from astraml_ray.data.prepare import build_manifest
from astraml_ray.errors import SpecError
from astraml_ray.spec.augmentation import augmentations_of
from astraml_ray.spec.loading import parse_spec
from astraml_ray.spec.text_augmentation import TEXT_PRESETS
from tests.conftest import word_rows, write_dataset

ROWS, SEED, MASK = 101, 7, "[MASK]"


@pytest.mark.parametrize("name", sorted(TEXT_PRESETS))
@pytest.mark.parametrize("blocks", ["one", "many"])
@pytest.mark.parametrize("validation", [True, False])
def test_after_is_what_the_stream_trains_on(
    name: str, blocks: str, validation: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens of the preview's texts equal the stream's, with two workers, over one block or several."""
    folder = write_dataset(tmp_path / "d", rows=ROWS, group=5)
    if not validation:
        (folder / "validation.parquet").unlink()
    if blocks == "many":
        monkeypatch.setitem(plan.epoch_blocks.__kwdefaults__, "block_bytes", 1)
        monkeypatch.setitem(plan.run_blocks.__kwdefaults__, "block_bytes", 1)
    dataset = parse_spec({"dataset": str(folder), "model": "m"}).dataset
    tokenizer = train_tokenizer(word_rows(300)["text"].to_pylist(), kind="wordpiece", vocab_size=300)
    trained = build_manifest(dataset, task="text-classification", cache=tmp_path / "c")
    encoder = TextEncoder(tokenizer, "text-classification", 40, trained.labels, MASK)
    split = trained.splits["train"]
    reader = BlockReader(trained, split, encoder, SEED, 8, 2, TEXT_PRESETS[name])
    streamed = {}
    for rank in range(2):
        tables = local_blocks(reader, epochs=1, world_rank=rank)
        total = split.total_rows
        for batch in micro_batches(
            tables, schema=SEQUENCES, rows_per_epoch=total, batch_size=8, epochs=1, world_rank=rank, world_size=2
        ):
            streamed |= {row["position"]: row["input_ids"] for row in batch.table.to_pylist()}

    shown_manifest = build_manifest(dataset, task="masked-lm", cache=tmp_path / "c")
    pairs = list(preview(shown_manifest, TEXT_PRESETS[name], seed=SEED, rows=60, means=Means(MASK)))
    assert [pair.position for pair in pairs] == list(range(60))
    assert sum(pair.before != pair.after for pair in pairs) > 5
    encode = _tokenizer(tokenizer)
    assert [encode(pair.after) for pair in pairs] == [streamed[pair.position] for pair in pairs]
    assert (
        len(list(preview(shown_manifest, TEXT_PRESETS[name], seed=SEED, rows=10_000, means=Means(MASK))))
        == split.total_rows
    )


def _tokenizer(text: str):  # type: ignore[no-untyped-def]
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(text)
    return lambda words: tokenizer.encode(words).ids


WORDS = st.lists(st.sampled_from(["a", "b", "c", "d", "[MASK]", "<b>", "é", "😀"]), max_size=12).map(" ".join)


@given(WORDS, WORDS)
def test_pieces_hold_every_word_and_agree_on_what_stayed(before: str, after: str) -> None:
    gone, come = mark_changes(before, after)
    assert " ".join(words for words, _ in gone) == before
    assert " ".join(words for words, _ in come) == after
    assert _kept(gone) == _kept(come)
    assert (before == after) == (not any(changed for _, changed in [*gone, *come]))


def _kept(pieces: Sequence[tuple[str, bool]]) -> str:
    return " ".join(words for words, changed in pieces if not changed)


def test_long_texts_are_cut() -> None:
    gone, come = mark_changes("a " * 1000, "a " * 1000, most_words=10)
    assert gone == come == [(" ".join(["a"] * 10 + ["…"]), False)]


FOUND = {
    "epoch": 0,
    "seed": 3,
    "augmentation": [{"type": "random_mask", "rate": 0.1, "probability": 1.0}],
    "mask_token": MASK,
    "rows": [
        {"position": 0, "before": "日本語 の テキスト " * 8, "after": "日本語 [MASK] テキスト " * 8},
        {"position": 1, "before": "x" * 200, "after": "x" * 200},
        {"position": 2, "before": "<script>bad()</script> [bold]b[/bold] \x1b[31mred", "after": "<i>"},
    ],
}


@pytest.mark.parametrize("width", [40, 80, 200])
def test_terminal_widths_are_respected_and_differences_marked_without_colour(width: int) -> None:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(preview_page(FOUND, styled=False))
    text = capture.get()
    assert all(cell_len(line) <= width for line in text.splitlines())
    assert "\x1b" not in text
    assert "{+[MASK]+}" in text
    assert "[-の-]" in text
    assert "[bold]" in text or width == 40  # a text is no markup; narrow columns may fold it


def test_terminal_colours() -> None:
    console = Console(width=80, force_terminal=True, color_system="standard")
    with console.capture() as capture:
        console.print(preview_page(FOUND, styled=True))
    assert "\x1b[1;32m[MASK]" in capture.get()
    assert "{+" not in capture.get()


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.outside += [value or "" for name, value in attrs if name in ("src", "href")]


def test_html_is_one_page_and_texts_are_no_markup() -> None:
    text = preview_html(FOUND)
    page = _Page()
    page.feed(text)
    assert not page.outside
    assert "script" not in page.tags
    assert "i" not in page.tags
    assert page.tags.count("tr") == 4
    assert "<ins>[MASK]</ins>" in text
    assert "&lt;script&gt;bad()&lt;/script&gt;" in text


def run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, ["data", "preview", *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_command_with_a_name_a_file_and_a_page(dataset: Path, tmp_path: Path) -> None:
    code, out, _ = run(str(dataset), "--augmentation", "strong", "-n", "5", "--output", "json")
    found = json.loads(out)
    assert (code, found["epoch"], found["seed"], len(found["rows"])) == (0, 0, 0, 5)
    assert [one["type"] for one in found["augmentation"]] == [one.type for one in TEXT_PRESETS["strong"]]
    assert (
        found["rows"]
        != json.loads(run(str(dataset), "--augmentation", "strong", "-n", "5", "--seed", "1", "--output", "json")[1])[
            "rows"
        ]
    )

    spec = tmp_path / "spec.yaml"
    spec.write_text(f"dataset: {dataset}\nmodel: m\nseed: 4\naugmentation: [{{type: case_noise, rate: 0.5}}]\n")
    by_spec = run("-f", str(spec), "--output", "json")[1]
    by_file = run(str(dataset), "--augmentation", str(spec), "--seed", "4", "--output", "json")[1]
    assert json.loads(by_spec) == json.loads(by_file)
    assert len(json.loads(by_spec)["rows"]) == 16

    code, out, _ = run("-f", str(spec))
    assert code == 0
    assert "epoch 0 with seed 4" in out
    page = tmp_path / "page.html"
    assert run("-f", str(spec), "--html", str(page))[:2] == (0, f"{page}\n")
    assert "<ins>" in page.read_text()


def test_command_s_errors(dataset: Path, tmp_path: Path) -> None:
    code, _, error = run(str(dataset), "--augmentation", "lihgt")
    assert code == 10
    assert "light, medium, strong" in error
    code, _, error = run(str(dataset))
    assert code == 10
    assert "--augmentation light" in error
    bad = tmp_path / "bad.yaml"
    bad.write_text("augmentation: [{type: case_nois}]\n")
    code, _, error = run(str(dataset), "--augmentation", str(bad))
    assert code == 10
    assert "/augmentation/0" in error
    assert run(str(tmp_path / "none"), "--augmentation", "light")[0] == 20
    assert run(str(dataset), "--augmentation", "light", "--html", str(tmp_path / "no" / "page.html"))[0] == 30


def _bad_labels(path: Path) -> None:
    rows = word_rows(100).to_pylist()
    for row in rows[::7]:
        row["label"] = None
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _broken_first_line(path: Path) -> None:
    path.write_text("{broken\n" + "".join(json.dumps(row) + "\n" for row in word_rows(100).to_pylist()))


@pytest.mark.parametrize("write", [_bad_labels, _broken_first_line])
def test_rows_are_those_of_a_run_that_leaves_bad_ones_out(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl")
    dataset = {"path": str(tmp_path), "on_bad_row": "skip", "max_bad_fraction": 0.3}
    spec = parse_spec({"dataset": dataset, "model": "m", "augmentation": "light", "seed": SEED})
    shown = preview_dataset(spec, rows=20, cache=tmp_path / "c")["rows"]
    manifest = build_manifest(spec.dataset, task="text-classification", cache=tmp_path / "c")
    split = manifest.splits["train"]
    (block,) = plan.epoch_blocks(split.rows, split.sizes, seed=SEED, epoch=0)
    table, _ = rows_of_block(manifest, split, block)
    trained = table["text"].take(plan.permutation(block, SEED)[:20]).to_pylist()
    assert [row["before"] for row in shown] == trained


def test_texts_without_labels_are_augmented_as_language_models_train(tmp_path: Path) -> None:
    pq.write_table(word_rows(50).select(["text"]), tmp_path / "train.parquet")
    spec = parse_spec({"dataset": str(tmp_path), "model": "m", "augmentation": "light"})
    shown = preview_dataset(spec, rows=2, cache=tmp_path / "c")["augmentation"]
    wanted = {task: [one.type for one in augmentations_of("light", task)] for task in ("masked-lm", "causal-lm")}
    assert [one["type"] for one in shown] == wanted["masked-lm"] == wanted["causal-lm"]
    with pytest.raises(SpecError) as caught:
        preview_dataset(spec.model_copy(update={"sampling": "balanced"}), rows=2, cache=tmp_path / "c")
    assert [problem.param for problem in caught.value.problems] == ["/sampling"]


def test_weights_of_a_class_that_is_not_there_are_refused(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "d", rows=30)
    sampling = {"weights": {"zzz": 2.0}}
    spec = parse_spec({"dataset": str(folder), "model": "m", "augmentation": "light", "sampling": sampling})
    with pytest.raises(SpecError) as caught:
        preview_dataset(spec, rows=2, cache=tmp_path / "c")
    assert [problem.param for problem in caught.value.problems] == ["/sampling/weights"]
