"""Pairs of texts, numbers and tags: encoded as transformers does, learned, and the same however they are cut."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoTokenizer

from astraml_ray.data.encoding.encoder import encoder_from_plain, encoder_to_plain
from astraml_ray.data.encoding.schema import IGNORED
from astraml_ray.data.keyed import row_keys
from astraml_ray.data.microbatches import MicroBatch, Position, local_blocks, micro_batches
from astraml_ray.data.rows import read_rows
from astraml_ray.errors import ModelError, SpecError
from astraml_ray.settings import load_settings
from astraml_ray.spec import Hyperparams
from astraml_ray.spec.loading import parse_spec
from astraml_ray.training.batching import Cut
from astraml_ray.training.checkpoint import MemoryCheckpoints, weights_of
from astraml_ray.training.collectives import World
from astraml_ray.training.evaluation import EvaluationRows
from astraml_ray.training.loop import train
from astraml_ray.training.models import build_model
from astraml_ray.training.preparation import RunInputs, load_inputs, prepare, store_inputs
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.training.tasks import TASKS, objective_of
from astraml_ray.training.timetable import Timetable
from astraml_ray.training.worker import split_reader
from tests.conftest import write_dataset

_MORE = ["iron", "zinc", "copper", "tin", "lead", "owl", "crow", "finch", "wren", "jay"]
WORDS = ["apple", "pear", "plum", "fig", "melon", *_MORE]
NAMES = ["Anna", "Bert", "Carla", "Dora", "Emil"]
TOWNS = ["Bonn", "Calais", "Delft", "Essen"]


def pairs(count: int, rng: random.Random) -> pa.Table:
    """Of one class if the texts share a word."""
    rows = []
    for _ in range(count):
        first, label = rng.sample(WORDS, 4), rng.choice(["same", "other"])
        second = first[:1] * 4 if label == "same" else rng.sample(sorted(set(WORDS) - set(first)), 4)
        rows.append({"premise": " ".join(first), "hypothesis": " ".join(second), "label": label})
    return pa.Table.from_pylist(rows)


def numbers(count: int, rng: random.Random) -> pa.Table:
    """How many of the words are fruit."""
    texts = [rng.choices(WORDS, k=6) for _ in range(count)]
    scores = [sum(word in WORDS[:5] for word in text) / 2 for text in texts]
    return pa.table({"text": [" ".join(text) for text in texts], "score": scores})


def tagged(count: int, rng: random.Random) -> pa.Table:
    """Names are persons, of one word or two; towns are places."""
    rows = []
    for _ in range(count):
        row = []
        for _ in range(rng.randint(1, 6)):
            kind = rng.random()
            if kind < 0.2:
                row += [(rng.choice(NAMES), "B-PER"), ("Underhill-Smith", "I-PER")][: rng.randint(1, 2)]
            elif kind < 0.4:
                row.append((rng.choice(TOWNS), "B-LOC"))
            else:
                row.append((rng.choice(WORDS), "O"))
        rows.append(row)
    words, tags = ([[pair[side] for pair in row] for row in rows] for side in (0, 1))
    return pa.table({"tokens": words, "ner_tags": tags})


TABLES = {"pairs": pairs, "numbers": numbers, "tagged": tagged}
TASK = {"pairs": "text-classification", "numbers": "text-regression", "tagged": "token-classification"}


def write(folder: Path, kind: str, *, rows: int = 101) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (split, count) in enumerate({"train": rows, "validation": 60}.items()):
        pq.write_table(TABLES[kind](count, random.Random(seed)), folder / f"{split}.parquet", row_group_size=33)
    return folder


def inputs_of(folder: Path, kind: str, **fields: Any) -> RunInputs:
    base = {"dataset": str(folder), "model": "tiny-bert", "task": TASK[kind], "seed": 3}
    hyper = {"max_length": 16, "dropout": 0.0, "early_stopping": None, "precision": "fp32"}
    spec = parse_spec({**base, **fields, "hyperparams": {**hyper, **fields.get("hyperparams", {})}})
    return prepare(spec, load_settings())[0]


@dataclass
class Setting:
    inputs: RunInputs
    model: torch.nn.Module

    def run(self, **fields: Any) -> tuple[torch.nn.Module, list[dict[str, Any]]]:
        given = {"early_stopping": None, "precision": "fp32", "lr": 1e-3, "epochs": 2, **fields}
        hyper, inputs, records = Hyperparams(**given), self.inputs, []
        model, world = copy.deepcopy(self.model), World()
        readers = {
            name: replace(split_reader(inputs, name, 1), batch_size=hyper.batch_size)
            for name in ("train", "validation")
        }
        timetable = Timetable.of(hyper, inputs.train_rows)

        def batches(position: Position) -> Iterator[MicroBatch]:
            return micro_batches(
                local_blocks(readers["train"], epochs=hyper.epochs, position=position),
                schema=inputs.encoder.schema,
                rows_per_epoch=timetable.rows,
                batch_size=timetable.batch_size,
                epochs=hyper.epochs,
                position=position,
            )

        class Log:
            def report(self, record: dict[str, Any]) -> None:
                records.append(record)

            def flush(self) -> None:
                pass

            def stop_requested(self) -> int:
                return 0

        train(
            model,
            batches,
            timetable=timetable,
            hyper=hyper,
            objective=objective_of(inputs.spec.task, inputs.manifest.labels, inputs.tokenizer.pad_token_id),
            validation=EvaluationRows(readers["validation"], 0),
            checkpoints=MemoryCheckpoints(),
            reporter=Log(),
            world=world,
            seed=3,
        )
        return model, records


@pytest.fixture(scope="module", params=sorted(TABLES))
def setting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    inputs = inputs_of(write(tmp_path_factory.mktemp(request.param), request.param, rows=400), request.param)
    for name, value in {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}.items():
        setattr(inputs.config, name, value)
    torch.manual_seed(0)
    return Setting(inputs, build_model(inputs.spec.task, inputs.config, inputs.blueprint, seed=1))


def test_a_planted_rule_is_learned(setting: Setting) -> None:
    _, records = setting.run(batch_size=16, lr=3e-3, epochs=12, eval_every="4 epochs", warmup_steps=20)
    scored = [record for record in records if "validation/loss" in record]
    last = scored[-1]
    assert {name.removeprefix("validation/") for name in last if name.startswith("validation/")} == set(
        TASKS[setting.inputs.spec.task].metrics
    )
    if setting.inputs.spec.task == "text-regression":
        assert last["validation/pearson"] > 0.95
        assert last["validation/r2"] > 0.85
    elif setting.inputs.spec.task == "token-classification":
        assert last["validation/f1"] > 0.95
    else:
        assert last["validation/loss"] < 0.65
        assert last["validation/accuracy"] > 0.7


def test_k_micro_batches_of_b_equal_one_of_kb(setting: Setting) -> None:
    exact = Setting(setting.inputs, copy.deepcopy(setting.model).double())
    whole, first = exact.run(batch_size=96, epochs=1)
    parts, second = exact.run(batch_size=32, gradient_accumulation_steps=3, epochs=1)
    pairs = zip(weights_of(whole).values(), weights_of(parts).values(), strict=True)
    assert max(float((a - b).abs().max()) for a, b in pairs) < 1e-6
    losses = [[r["validation/loss"] for r in records if "validation/loss" in r][-1] for records in (first, second)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_inputs_survive_the_run_folder(setting: Setting, tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path / "run"))
    store_inputs(setting.inputs, folder)
    loaded = load_inputs(folder)
    assert loaded.encoder == setting.inputs.encoder
    assert loaded.manifest == setting.inputs.manifest
    assert encoder_from_plain(encoder_to_plain(loaded.encoder)) == loaded.encoder
    # Batches are padded by it, and it is published with the model.
    assert loaded.tokenizer.pad_token_id == setting.inputs.tokenizer.pad_token_id
    assert loaded.tokenizer.get_vocab() == setting.inputs.tokenizer.get_vocab()


def encode(inputs: RunInputs, split: str = "train") -> tuple[pa.Table, pa.Table]:
    rows = read_rows(inputs.manifest, inputs.manifest.splits[split], 0)
    positions = np.arange(rows.num_rows)
    return rows, inputs.encoder.encode(rows, positions, row_keys(0, 0, positions))


@pytest.mark.parametrize("length", [16, 8, 5])
def test_pairs_are_cut_and_told_apart_as_transformers_does(tmp_path: Path, length: int) -> None:
    inputs = inputs_of(write(tmp_path, "pairs"), "pairs", hyperparams={"max_length": length})
    rows, table = encode(inputs)
    inputs.tokenizer.save_pretrained(tmp_path / "saved")
    peer = AutoTokenizer.from_pretrained(tmp_path / "saved")  # what whoever uses the model has
    expected = peer(
        rows["text"].to_pylist(),
        rows["text_pair"].to_pylist(),
        truncation="longest_first",
        max_length=length,
        return_token_type_ids=True,
    )
    assert table["input_ids"].to_pylist() == expected["input_ids"]
    assert table["token_type_ids"].to_pylist() == expected["token_type_ids"]
    assert {one for row in expected["token_type_ids"] for one in row} == {0, 1}
    batches = objective_of("text-classification", inputs.manifest.labels, 0).collate(table, Cut(0, 8))
    for batch in batches:
        assert set(batch.inputs) == {"input_ids", "attention_mask", "token_type_ids"}
        assert not batch.inputs["token_type_ids"][batch.inputs["attention_mask"] == 0].any()


def test_a_model_without_segments_is_given_none(tmp_path: Path) -> None:
    inputs = inputs_of(write(tmp_path, "pairs"), "pairs", model="tiny-gpt")
    _, table = encode(inputs)
    assert "token_type_ids" not in table.column_names
    model = build_model("text-classification", inputs.config, inputs.blueprint, seed=0)
    (batch, *_) = objective_of("text-classification", ("a", "b"), 0).collate(table, Cut(10**6, 200))
    assert model(**batch.inputs).logits.shape == (len(batch.labels), 2)


@pytest.mark.parametrize("model", ["tiny-bert", "tiny-gpt"])
def test_a_tag_is_the_label_of_its_words_first_token(tmp_path: Path, model: str) -> None:
    inputs = inputs_of(write(tmp_path, "tagged"), "tagged", model=model, hyperparams={"max_length": 12})
    rows, table = encode(inputs)
    cut = 0
    for words, tags, ids, labels in zip(
        rows["tokens"].to_pylist(),
        rows["label"].to_pylist(),
        table["input_ids"].to_pylist(),
        table["labels"].to_pylist(),
        strict=True,
    ):
        assert len(ids) == len(labels) <= 12
        kept = [inputs.manifest.labels[label] for label in labels if label != IGNORED]
        assert kept == tags[: len(kept)]
        cut += len(kept) < len(tags)
        whole = inputs.tokenizer.backend_tokenizer.encode(words, is_pretokenized=True)
        first = {word: place for place, word in reversed(list(enumerate(whole.word_ids))) if word is not None}
        assert sorted(first.values())[: len(kept)] == [p for p, label in enumerate(labels) if label != IGNORED]
        if model == "tiny-gpt":  # the same tokens as in a text
            assert inputs.tokenizer.backend_tokenizer.encode(" ".join(words)).ids == whole.ids
    assert cut
    assert sum(length > 12 for length in inputs.encoder.lengths(rows)) >= cut  # type: ignore[attr-defined]


def test_words_without_tokens_and_rows_without_words_have_no_targets(tmp_path: Path) -> None:
    inputs = inputs_of(write(tmp_path, "tagged"), "tagged")
    rows = pa.table({"tokens": [["", "Anna"], [], [" "]], "label": [["O", "B-PER"], [], ["O"]]})
    table = inputs.encoder.encode(rows, np.arange(3), row_keys(0, 0, np.arange(3)))
    labels = [[label for label in row if label != IGNORED] for row in table["labels"].to_pylist()]
    assert labels == [[inputs.manifest.labels.index("B-PER")], [], []]


def test_validation_rows_are_never_augmented_nor_sampled(tmp_path: Path) -> None:
    """What a run reads of each split with everything turned on, by what it reads with nothing."""
    for kind in TABLES:
        folder = write(tmp_path / kind, kind)
        fields: dict[str, Any] = {"augmentation": "strong"}
        fields |= {"sampling": "balanced"} if kind == "pairs" else {}
        plain, changed = inputs_of(folder, kind), inputs_of(folder, kind, **fields)
        for split, same in (("validation", True), ("train", False)):
            tables = [pa.concat_tables(local_blocks(split_reader(one, split, 1))) for one in (plain, changed)]
            assert (tables[0].to_pylist() == tables[1].to_pylist()) is same


@pytest.mark.parametrize(
    ("kind", "fields", "param"),
    [
        ("tagged", {"augmentation": [{"type": "case_noise"}, {"type": "random_swap"}]}, "/augmentation/1"),
        ("pairs", {"augmentation": [{"type": "mix_texts"}]}, "/augmentation/0"),
        ("numbers", {"sampling": "balanced"}, "/sampling"),
        ("pairs", {"sampling": {"weights": {"same": 2, "never": 1}}}, "/sampling/weights"),
        (
            "numbers",
            {"hyperparams": {"early_stopping": {"monitor": "validation/accuracy"}}},
            "/hyperparams/early_stopping/monitor",
        ),
        (
            "pairs",
            {"task": "masked-lm", "dataset": {"columns": {"text": "premise", "text_pair": "hypothesis"}}},
            "/dataset/columns/text_pair",
        ),
    ],
)
def test_what_does_not_fit_the_task_is_refused_before_anything_runs(
    tmp_path: Path, kind: str, fields: dict[str, Any], param: str
) -> None:
    folder = write(tmp_path, kind)
    if "dataset" in fields:
        fields = {**fields, "dataset": {**fields["dataset"], "path": str(folder)}}
    with pytest.raises(SpecError) as caught:
        inputs_of(folder, kind, **fields)
    assert [problem.param for problem in caught.value.problems] == [param]


def test_errors_and_rates_are_better_when_they_are_lower() -> None:
    from astraml_ray.spec import EarlyStopping
    from astraml_ray.spec.webhook import Condition

    for name, lower in {"mae": True, "rmse": True, "loss": True, "pearson": False, "f1": False}.items():
        assert EarlyStopping(monitor=f"validation/{name}").lower_is_better is lower
        stall = {"when": "no_improvement", "metric": f"validation/{name}", "for": "1h"}
        assert Condition.model_validate(stall).lower_is_better is lower


@pytest.mark.parametrize(
    ("model", "task", "fitting"),
    [
        ("vit-tiny", "text-classification", "image-classification"),
        ("resnet-18", "causal-lm", "image-classification"),
        ("distilbert-base", "causal-lm", "masked-lm"),
        ("tiny-gpt", "masked-lm", "causal-lm"),
    ],
)
def test_a_model_of_another_kind_is_refused_with_its_tasks(model: str, task: str, fitting: str, tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "d", rows=20)
    spec = parse_spec({"dataset": str(folder), "model": {"name": model, "init": "scratch"}, "task": task})
    with pytest.raises(ModelError, match=f"are not made for {task}") as caught:
        prepare(spec, load_settings())
    assert (caught.value.param, fitting in (caught.value.hint or "")) == ("/model", True)
