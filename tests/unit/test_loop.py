"""The train loop under bare torch: exact accumulation, exact resume, early stopping, schedules, faults."""

from __future__ import annotations

import copy
import json
import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from astraml_ray.data.blocks import BlockReader
from astraml_ray.data.encoding.text import SEQUENCES, TextEncoder
from astraml_ray.data.encoding.tokenizers import train_tokenizer
from astraml_ray.data.microbatches import MicroBatch, Position, local_blocks, micro_batches
from astraml_ray.data.prepare import build_manifest
from astraml_ray.errors import MemoryExhaustedError, NumericError
from astraml_ray.spec import EarlyStopping, Hyperparams, Interval
from astraml_ray.spec.loading import parse_spec
from astraml_ray.training.batching import Batch
from astraml_ray.training.checkpoint import MemoryCheckpoints, Progress, weights_of
from astraml_ray.training.collectives import World
from astraml_ray.training.evaluation import EvaluationRows
from astraml_ray.training.loop import Outcome, train
from astraml_ray.training.models import Blueprint, build_model
from astraml_ray.training.narration import Narrator
from astraml_ray.training.objectives.classification import TextClassification
from astraml_ray.training.stop import STOP_CODES
from astraml_ray.training.tasks import objective_of
from astraml_ray.training.timetable import Timetable, lr_factor
from tests.conftest import word_rows, write_dataset

ROWS = 101
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@dataclass
class Log:
    """A reporter that keeps everything, and stops on demand."""

    stop_at: int | None = None
    stop_mode: str = "now"
    records: list[dict[str, Any]] = field(default_factory=list)
    flushed: int = 0

    def report(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def flush(self) -> None:
        self.flushed = len(self.records)

    def stop_requested(self) -> int:
        due = self.stop_at is not None and bool(self.records) and self.records[-1]["step"] >= self.stop_at
        return STOP_CODES[self.stop_mode] if due else 0

    def values(self, name: str) -> list[float]:
        return [record[name] for record in self.records if name in record]


@dataclass
class Setting:
    """A small real task: tokenised word rows on disk, and a tiny model."""

    readers: dict[str, BlockReader]
    task: str
    model: torch.nn.Module
    classes: tuple[str, ...]

    def run(
        self,
        hyper: Hyperparams,
        *,
        world: World | None = None,
        checkpoints: Any = None,
        log: Log | None = None,
        **more: Any,
    ) -> tuple[Outcome, torch.nn.Module, Log]:
        world, log = world or World(), log or Log()
        model = copy.deepcopy(self.model)
        train_reader = self._sized(self.readers["train"], hyper, world)
        timetable = Timetable.of(hyper, train_reader.split.total_rows)

        def batches(position: Position) -> Iterator[MicroBatch]:
            tables = local_blocks(train_reader, epochs=hyper.epochs, world_rank=world.world_rank, position=position)
            return micro_batches(
                tables,
                schema=SEQUENCES,
                rows_per_epoch=timetable.rows,
                batch_size=timetable.batch_size,
                epochs=hyper.epochs,
                world_rank=world.world_rank,
                world_size=world.world_size,
                position=position,
            )

        validation = EvaluationRows(self._sized(self.readers["validation"], hyper, world), world.world_rank)
        outcome = train(
            model,
            batches,
            timetable=timetable,
            hyper=hyper,
            objective=objective_of(self.task, self.classes, 0),
            validation=validation,
            checkpoints=checkpoints or MemoryCheckpoints(),
            reporter=log,
            world=world,
            **more,
        )
        return outcome, model, log

    @staticmethod
    def _sized(reader: BlockReader, hyper: Hyperparams, world: World) -> BlockReader:
        from dataclasses import replace

        return replace(reader, batch_size=hyper.batch_size, world_size=world.world_size)


def make_setting(folder: Path, task: str, *, dropout: float = 0.0) -> Setting:
    write_dataset(folder, rows=ROWS, group=13)
    manifest = build_manifest(
        parse_spec({"dataset": str(folder), "model": "m"}).dataset, task="text-classification", cache=folder / "c"
    )
    tokenizer = train_tokenizer(word_rows(300)["text"].to_pylist(), kind="wordpiece", vocab_size=200)
    encoder = TextEncoder(tokenizer, task, 24, manifest.labels, "[MASK]")  # type: ignore[arg-type]
    readers = {
        name: BlockReader(manifest, split, encoder, 7, 8, 1, shuffle=name == "train")
        for name, split in manifest.splits.items()
    }
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    torch.manual_seed(0)
    model: Any
    if task == "causal-lm":
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=400,
                n_embd=16,
                n_layer=1,
                n_head=2,
                resid_pdrop=dropout,
                embd_pdrop=dropout,
                attn_pdrop=dropout,
            )
        )
    elif task == "masked-lm":
        model = BertForMaskedLM(BertConfig(vocab_size=400, **SMALL, **rates))
    else:
        model = BertForSequenceClassification(BertConfig(vocab_size=400, num_labels=3, **SMALL, **rates))
    return Setting(readers, task, model, manifest.labels if task == "text-classification" else ())


@pytest.fixture(scope="module", params=["text-classification", "causal-lm", "masked-lm"])
def exact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """Each task in float64 without dropout, where sums can be compared to 1e-6 and closer."""
    setting = make_setting(tmp_path_factory.mktemp("exact"), request.param)
    setting.model.double()
    return setting


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """Classification in float32 with dropout."""
    return make_setting(tmp_path_factory.mktemp("noisy"), "text-classification", dropout=0.2)


def hyper(**fields: Any) -> Hyperparams:
    base: dict[str, Any] = {"batch_size": 8, "lr": 1e-2, "epochs": 2, "early_stopping": None, "precision": "fp32"}
    return Hyperparams(**{**base, **fields})


def distance(first: torch.nn.Module, second: torch.nn.Module) -> float:
    pairs = zip(weights_of(first).values(), weights_of(second).values(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


@pytest.mark.parametrize("accumulation", [2, 3, 5])
def test_k_micro_batches_of_b_equal_one_of_kb(exact: Setting, accumulation: int) -> None:
    """101 rows: uneven lengths, and a short last window in each epoch."""
    whole = exact.run(hyper(batch_size=10 * accumulation))
    parts = exact.run(hyper(batch_size=10, gradient_accumulation_steps=accumulation))
    assert whole[0].progress.step == parts[0].progress.step
    if exact.task != "masked-lm":
        assert np.allclose(whole[2].values("train/loss"), parts[2].values("train/loss"), rtol=0, atol=1e-6)
    assert distance(whole[1], parts[1]) < 1e-6


def _worker(rank: int, size: int, setting: Setting, rendezvous: str, out: str, fields: dict[str, Any]) -> None:
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=size)
    torch.set_num_threads(1)
    stop_at, divisor = fields.pop("keep_best_at", None), fields.pop("divisor", 1)
    log = Log(stop_at=stop_at if rank == 0 else None, stop_mode="keep_best")
    outcome, model, log = setting.run(hyper(**fields), world=World(rank, size), log=log, divisor=divisor)
    torch.save(
        ({**outcome.progress.to_dict(), "reason": outcome.reason}, model.state_dict(), log.records), f"{out}/{rank}.pt"
    )
    dist.destroy_process_group()


def run_workers(setting: Setting, size: int, **fields: Any) -> list[Any]:
    with tempfile.TemporaryDirectory() as folder:
        # A fork server imports torch and transformers once for all workers of all tests.
        multiprocessing.set_forkserver_preload([__name__])
        mp.start_processes(  # type: ignore[no-untyped-call]
            _worker, (size, setting, f"{folder}/r", folder, fields), nprocs=size, start_method="forkserver"
        )
        return [torch.load(f"{folder}/{rank}.pt", weights_only=False) for rank in range(size)]


def test_two_workers_equal_one_also_with_accumulation_and_an_idle_worker(exact: Setting) -> None:
    """The last micro-batch of an epoch has one row: the second worker has none, and takes part all the same."""
    fields = {"batch_size": 10, "gradient_accumulation_steps": 3}
    outcome, model, log = exact.run(hyper(**fields))
    workers = run_workers(exact, 2, **fields)
    for progress, weights, _ in workers:
        assert progress["step"] == outcome.progress.step
        assert max(float((weights[n] - p).abs().max()) for n, p in model.state_dict().items()) < 1e-6
    assert np.allclose(
        [r["train/loss"] for r in workers[0][2] if "train/loss" in r], log.values("train/loss"), atol=1e-6
    )
    scores = [[r["validation/accuracy"] for r in w[2] if "validation/accuracy" in r] for w in workers]
    assert scores[0] == scores[1] == log.values("validation/accuracy")


def test_a_divided_micro_batch_gives_the_same_result(exact: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """101 rows in micro-batches of 16: 8 parts are two rows each, and the last ones of an epoch have fewer."""
    largest: list[int] = []
    moved = Batch.to

    def watched(self: Batch, device: torch.device) -> Batch:
        largest[-1] = max(largest[-1], len(self.labels))
        return moved(self, device)

    monkeypatch.setattr(Batch, "to", watched)
    fields = {"batch_size": 16, "gradient_accumulation_steps": 2, "epochs": 1, "eval_every": "1 epochs"}
    runs = []
    for divisor in (1, 2, 8):
        largest.append(0)
        runs.append(exact.run(hyper(**fields), divisor=divisor))
    whole = runs[0]
    for parts in runs[1:]:
        for name in ("train/loss", "validation/loss"):
            assert np.allclose(whole[2].values(name), parts[2].values(name), rtol=0, atol=1e-6)
        assert distance(whole[1], parts[1]) < 1e-6
    assert largest[1:] == [8, 2]
    assert largest[0] > 8


def test_two_workers_divide_their_own_part(exact: Setting) -> None:
    fields = {"batch_size": 16, "epochs": 1}
    _, model, _ = exact.run(hyper(**fields))
    workers = run_workers(exact, 2, divisor=4, **fields)
    for _, weights, _ in workers:
        assert max(float((weights[n] - p).abs().max()) for n, p in model.state_dict().items()) < 1e-6


def test_losses_equal_those_of_hf_trainer(tmp_path: Path) -> None:
    """Same weights, same batches, step by step: loss, schedule, decay and clipping are those of the Trainer."""
    from transformers import Trainer, TrainingArguments

    setting = make_setting(tmp_path / "d", "text-classification")
    fields = {"batch_size": 8, "lr": 5e-3, "warmup_steps": 3, "weight_decay": 0.1, "epochs": 2}
    _, model, log = setting.run(hyper(**fields))

    reader = setting._sized(setting.readers["train"], hyper(**fields), World())
    rows = [row for table in local_blocks(reader, epochs=2) for row in table.to_pylist()]
    items = [{"input_ids": r["input_ids"], "labels": r["labels"][0]} for r in rows]

    def collate(batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        width = max(len(item["input_ids"]) for item in batch)
        ids = torch.tensor([item["input_ids"] + [0] * (width - len(item["input_ids"])) for item in batch])
        return {
            "input_ids": ids,
            "attention_mask": (ids != 0).long(),
            "labels": torch.tensor([i["labels"] for i in batch]),
        }

    class InOrder(Trainer):
        epoch_rows = 0

        def get_train_dataloader(self) -> Any:
            return _Epochs([[items[e * ROWS + i] for i in range(ROWS)] for e in range(2)], 8, collate)

    arguments = TrainingArguments(
        output_dir=str(tmp_path / "hf"),
        per_device_train_batch_size=8,
        learning_rate=5e-3,
        lr_scheduler_type="cosine",
        warmup_steps=3,
        weight_decay=0.1,
        num_train_epochs=2,
        max_grad_norm=1.0,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        seed=0,
        disable_tqdm=True,
        optim="adamw_torch",
    )
    peer = copy.deepcopy(setting.model)
    trainer = InOrder(model=peer, args=arguments, train_dataset=items[:ROWS], data_collator=collate)  # type: ignore[arg-type]
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    assert len(losses) == len(log.values("train/loss")) == 26
    assert np.allclose(log.values("train/loss"), losses, atol=1e-5)
    # The Trainer logs the rate of a step, this loop the one that follows it: at the end, the schedule's end.
    assert np.allclose(log.values("train/learning_rate")[:-1], rates[1:], atol=1e-12)
    assert distance(model, peer) < 1e-4


class _Epochs:
    """A data loader whose epochs differ, as the plan's do."""

    def __init__(self, epochs: list[list[Any]], size: int, collate: Any) -> None:
        self._epochs, self._size, self._collate, self._next = epochs, size, collate, 0

    def __len__(self) -> int:
        return -(-ROWS // self._size)

    def __iter__(self) -> Iterator[Any]:
        rows = self._epochs[min(self._next, len(self._epochs) - 1)]
        self._next += 1
        for start in range(0, len(rows), self._size):
            yield self._collate(rows[start : start + self._size])


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
def test_the_schedule_ends_with_the_run(noisy: Setting, kind: str) -> None:
    _, _, log = noisy.run(hyper(lr_scheduler=kind, warmup_steps=0.2, lr=1e-3))
    rates = log.values("train/learning_rate")
    assert rates[-1] == pytest.approx(1e-3 if kind == "constant" else 0.0, abs=1e-15)
    assert max(rates) == pytest.approx(1e-3)
    assert rates[0] < rates[1]
    assert lr_factor(kind, 10, total_steps=10, warmup_steps=0) == (1.0 if kind == "constant" else 0.0)


def test_resuming_after_any_step_is_bit_identical(noisy: Setting) -> None:
    settings = hyper(
        epochs=1, gradient_accumulation_steps=2, eval_every="0.4 epochs", early_stopping=EarlyStopping(patience=9)
    )
    outcome, whole, log = noisy.run(settings, seed=3)
    for step in range(outcome.progress.step):
        kept = MemoryCheckpoints()
        if step:
            noisy.run(settings, checkpoints=kept, log=Log(stop_at=step), seed=3)
            assert kept.saved[-1][0].step == step
        resumed, model, rest = noisy.run(settings, checkpoints=kept, seed=3)
        assert distance(whole, model) == 0.0
        assert resumed.progress == outcome.progress  # with the mean loss between two evaluations
        assert rest.values("train/loss") == log.values("train/loss")[step:]


def test_early_stopping_counts_evaluations_and_survives_a_resume(noisy: Setting) -> None:
    settings = hyper(
        lr=1e-9,
        epochs=10,
        eval_every="5 steps",
        early_stopping=EarlyStopping(patience=4, min_delta=0.5),
    )
    outcome, _, log = noisy.run(settings)
    assert outcome.reason == "early_stopping"
    assert outcome.progress.step == 25  # the first evaluation sets the best, four more bring nothing
    assert log.values("early_stopping/waited") == [0, 1, 2, 3, 4]
    kept = MemoryCheckpoints()
    stopped, _, _ = noisy.run(settings, checkpoints=kept, log=Log(stop_at=13))
    assert (stopped.reason, stopped.progress.patience.waited) == ("stopped", 1)
    resumed, _, _ = noisy.run(settings, checkpoints=kept)
    assert (resumed.reason, resumed.progress.step) == ("early_stopping", 25)


def test_two_workers_leave_at_the_same_step(noisy: Setting) -> None:
    rule = EarlyStopping(patience=1, min_delta=0.5)
    workers = run_workers(noisy, 2, lr=1e-9, epochs=5, eval_every="4 steps", early_stopping=rule)
    assert [w[0]["step"] for w in workers] == [8, 8]


def test_stopping_during_an_evaluation_keeps_the_work_and_scores_later(noisy: Setting) -> None:
    settings = hyper(epochs=1, eval_every="5 steps")
    whole = noisy.run(settings)[1]
    kept = MemoryCheckpoints()
    stopped, _, _ = noisy.run(settings, checkpoints=kept, log=Log(stop_at=5))
    assert (stopped.progress.step, stopped.progress.scored) == (5, 0)
    resumed, model, log = noisy.run(settings, checkpoints=kept)
    assert log.records[0]["step"] == 5
    assert "validation/loss" in log.records[0]
    assert distance(whole, model) == 0.0
    assert resumed.progress.scored == resumed.progress.step


def test_keeping_the_best_stops_all_workers_at_the_same_step_and_lets_an_evaluation_end(noisy: Setting) -> None:
    workers = run_workers(noisy, 2, keep_best_at=9, eval_every="5 steps")
    assert {w[0]["reason"] for w in workers} == {"stopped_keep_best"}
    assert {w[0]["step"] for w in workers} == {9}
    kept = MemoryCheckpoints()
    during, _, _ = noisy.run(
        hyper(eval_every="5 steps"), checkpoints=kept, log=Log(stop_at=5, stop_mode="keep_best"), seed=3
    )
    assert (during.reason, during.progress.step, during.progress.scored) == ("stopped_keep_best", 5, 5)
    assert during.progress.patience.best_step == kept.saved[-1][0].step == 5


def test_the_loop_tells_what_it_does_on_the_first_worker_alone(
    noisy: Setting, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("astraml_ray.training.narration._STEP_LINE_S", 0.0)
    rule = EarlyStopping(patience=2, min_delta=0.5)
    with caplog.at_level("INFO", "astraml_ray"):
        noisy.run(hyper(lr=1e-9, eval_every="5 steps", early_stopping=rule))
    text = caplog.text
    assert "training on cpu, 1 worker, fp32" in text
    assert f"{sum(p.numel() for p in noisy.model.parameters()):,} parameters" in text
    assert "starting from step 0" in text
    assert "step 7/26, epoch 0.54: loss " in text
    assert "step 10/26, validation: loss" in text
    assert "(no better than step 5, 1 of 2 in a row)" in text
    assert "step 15/26: early stopping" in text
    caplog.clear()
    with caplog.at_level("INFO", "astraml_ray"):
        Narrator(World(1, 2), Timetable(10, 2, 1, 1)).end("completed", Progress())
    assert caplog.text == ""


def test_checkpoints_lie_between_steps_and_as_often_as_asked(noisy: Setting) -> None:
    log = Log()

    class Durable(MemoryCheckpoints):
        def save(self, progress: Progress, files: dict[str, bytes]) -> None:
            assert log.flushed == len(log.records)
            super().save(progress, files)

    kept = Durable()
    settings = hyper(epochs=1, gradient_accumulation_steps=2, eval_every="1 epochs")
    noisy.run(settings, checkpoints=kept, log=log, checkpoint_every=Interval(3, "steps"))
    assert [progress.step for progress, _ in kept.saved] == [3, 6, 7]


def test_loss_that_is_not_finite_names_the_step(noisy: Setting) -> None:
    kept = MemoryCheckpoints()
    with pytest.raises(NumericError, match="not finite at step") as caught:
        noisy.run(hyper(lr=100, max_grad_norm=None, epochs=30, weight_decay=10), checkpoints=kept)
    assert caught.value.param == "/hyperparams/lr"
    assert all(np.isfinite(progress.train_loss or 0) for progress, _ in kept.saved)


def test_memory_error_says_how_to_go_on(noisy: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(TextClassification, "loss_sum", exhausted)
    with pytest.raises(MemoryExhaustedError) as caught:
        noisy.run(hyper())
    assert "double gradient_accumulation_steps" in (caught.value.hint or "")


def test_memory_that_really_runs_out_is_answered_by_smaller_parts_and_the_same_result(tmp_path: Path) -> None:
    """A process of its own, whose address space the kernel bounds."""
    command = [sys.executable, "-m", "tests.unit.bounded_memory", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["code"] == "out_of_memory"
    assert "did not fit into memory" in told["message"]
    assert told["divisor"] > 1
    assert np.allclose(told["bounded"], told["free"], rtol=0, atol=1e-6)


def test_parameters_that_the_loss_never_reaches_are_frozen() -> None:
    config = BertConfig(vocab_size=50, num_labels=2, **SMALL)
    model = build_model("text-classification", config, Blueprint(None, None, scratch=True), seed=1)
    assert all(p.requires_grad for p in model.parameters())
    twin = build_model("text-classification", config, Blueprint(None, None, scratch=True), seed=1)
    assert distance(model, twin) == 0.0


def test_progress_survives_json() -> None:
    progress = Progress(step=3, scored=2, best_metrics={"loss": 1.0}, train_loss=0.5)
    assert Progress.from_dict(progress.to_dict()) == progress
