"""A run as the service sees it, on one local cluster: lines, events, stops, and nothing left behind."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from astraml_ray.data.blocks import rows_of_block
from astraml_ray.data.plan import run_blocks
from astraml_ray.errors import ModelError, NumericError, RunStopped
from astraml_ray.settings import load_settings
from astraml_ray.spec.loading import parse_spec
from astraml_ray.training.checkpoint import FolderCheckpoints
from astraml_ray.training.orphans import remove_orphans
from astraml_ray.training.preparation import RunInputs, prepare
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.training.runner import Watcher, run_attempts, start_run
from astraml_ray.training.stop import Stop
from astraml_ray.training.worker import split_reader
from tests.cluster.leftovers import assert_nothing_is_left, of_ours, soon
from tests.conftest import write_dataset
from tests.translation import back_of, write_lexicon_dataset

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> RunInputs:
    """A run of 260 steps, if nothing stops it."""
    data = write_dataset(tmp_path_factory.mktemp("wing") / "d", rows=405, group=60)
    spec = {
        "dataset": str(data),
        "model": "tiny-bert",
        "hyperparams": {"batch_size": 16, "lr": 1e-3, "epochs": 10, "eval_every": "10 steps", "max_length": 32},
        "checkpoint": {"every": "5 steps"},
        "resources": {"gpus": 0, "workers": 2, "threads_per_worker": 1},
    }
    return prepare(parse_spec(spec), load_settings())[0]


@dataclass
class Followed:
    """A run with all that is told of it; `at` has what is to happen at a step, once."""

    folder: RunFolder
    at: dict[int, Callable[[], None]] = field(default_factory=dict)
    stop: Stop = field(default_factory=Stop)
    events: list[dict[str, Any]] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    lines: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def run(self, inputs: RunInputs, cores: int | None) -> dict[str, Any]:
        inputs, placement = start_run(inputs, self.folder, cores)
        watcher = Watcher(self._take, self.stop, self._take_lines, grace_s=3.0)
        return run_attempts(inputs, self.folder, placement, watcher)

    def _take(self, record: dict[str, Any]) -> None:
        (self.events if "event" in record else self.records).append(record)
        for step in [step for step in self.at if "event" not in record and record["step"] >= step]:
            self.at.pop(step)()

    def _take_lines(self, source: str, lines: list[dict[str, Any]]) -> None:
        self.lines.setdefault(source, []).extend(lines)

    def text(self) -> str:
        return "\n".join(line["text"] for lines in self.lines.values() for line in lines)


def saved_step(folder: RunFolder) -> int:
    return FolderCheckpoints(folder, keep=2).latest_progress().step


def test_keeping_the_best_model_of_a_run(cores: int | None, inputs: RunInputs, tmp_path: Path) -> None:
    """Stopped between two evaluations: the model is that of the last one, and the run is over."""
    run = Followed(RunFolder(str(tmp_path / "run")))
    run.at[13] = lambda: run.stop.request("keep_best")
    result = run.run(inputs, cores)
    assert_nothing_is_left()
    best, end = result["best_step"], result["steps"]
    assert (result["status"], result["reason"]) == ("cancelled", "stopped_keep_best")
    assert 10 <= best <= end < 100
    assert best % 10 == 0
    assert "test/accuracy" in result["metrics"]
    from safetensors.torch import load
    from transformers import AutoModelForSequenceClassification

    saved = FolderCheckpoints(run.folder, keep=2).load(best)
    assert saved is not None
    model = AutoModelForSequenceClassification.from_pretrained(result["model_path"])
    kept = load(saved[1]["model.safetensors"])
    assert all(bool((parameter == kept[name]).all()) for name, parameter in model.named_parameters())

    for lines in run.lines.values():
        assert [line["sequence"] for line in lines] == list(range(1, len(lines) + 1))
    assert f"step {best}/260, validation: loss" in run.text()
    assert "training on cpu, 2 workers" in run.text()
    assert "asked to stop and keep the best model" in run.text()
    assert "the model is at" in run.text()
    assert {line["rank"] for lines in run.lines.values() for line in lines} == {0}
    assert run.records[0]["time"] > 1.6e9

    digest = hashlib.sha256((tmp_path / "run" / "model" / "model.safetensors").read_bytes()).hexdigest()
    again = Followed(run.folder)
    assert run_attempts(inputs, run.folder, None, Watcher(again._take, again.stop)) == result  # type: ignore[arg-type]
    assert again.events == []
    assert hashlib.sha256((tmp_path / "run" / "model" / "model.safetensors").read_bytes()).hexdigest() == digest


class Runner:
    """An actor that owns a run, as the service's does."""

    def go(self, inputs: RunInputs, folder: RunFolder, cores: int) -> None:
        Followed(folder).run(inputs, cores)


def test_a_killed_runner_and_then_frozen_workers(cores: int | None, inputs: RunInputs, tmp_path: Path) -> None:
    """What a killed runner leaves, the next one removes; workers that do not answer a stop are ended."""
    folder = RunFolder(str(tmp_path / "run"))
    runner = ray.remote(Runner).options(num_cpus=0).remote()
    runner.go.remote(inputs, folder, cores)
    assert soon(lambda: saved_step(folder) >= 10)
    (process,) = of_ours("Runner")
    assert "astraml_ray.forkserver.server" in psutil.Process(psutil.Process(process).ppid()).cmdline()
    os.kill(process, signal.SIGKILL)
    assert soon(lambda: not of_ours("RayTrainWorker"))
    assert remove_orphans() == 1
    assert remove_orphans() == 0
    assert_nothing_is_left()
    saved = saved_step(folder)
    assert saved >= 10

    run = Followed(folder)

    def freeze() -> None:
        if saved_step(folder) == saved:  # a checkpoint is written beside the steps, and may come after them
            run.at[run.records[-1]["step"] + 1] = freeze
            return
        for worker in of_ours("RayTrainWorker"):
            os.kill(worker, signal.SIGSTOP)
        run.stop.request("now")

    run.at[saved + 1] = freeze
    with pytest.raises(RunStopped, match="were ended after 3 s") as caught:
        run.run(inputs, cores)
    assert_nothing_is_left()
    assert run.events[0]["step"] == saved
    assert caught.value.step == saved_step(folder)
    assert saved < (caught.value.step or 0) < 260
    assert run.lines


def test_a_stop_before_the_workers_are_there_is_quick_and_clean(
    cores: int | None, inputs: RunInputs, tmp_path: Path
) -> None:
    run = Followed(RunFolder(str(tmp_path / "run")))
    timer = threading.Timer(1.5, run.stop.request)
    timer.start()
    with pytest.raises(RunStopped, match="before the first checkpoint"):
        run.run(inputs, cores)
    assert run.records == []
    assert_nothing_is_left()


def test_a_failing_worker_says_why_in_its_log(cores: int | None, inputs: RunInputs, tmp_path: Path) -> None:
    hyper = inputs.spec.hyperparams.model_copy(update={"lr": 1e6, "max_grad_norm": None})
    broken = inputs.spec.model_copy(update={"hyperparams": hyper})
    run = Followed(RunFolder(str(tmp_path / "run")))
    with pytest.raises(NumericError) as caught:
        run.run(replace(inputs, spec=broken), cores)
    assert_nothing_is_left()
    assert caught.value.rank in (0, 1)
    failed = run.events[-1]
    assert (failed["event"], failed["next"], failed["error"]["class"]) == ("attempt_failed", "give_up", "numeric")
    assert failed["error"]["rank"] == caught.value.rank
    errors = [line for lines in run.lines.values() for line in lines if line["level"] == "ERROR"]
    first = [line["text"] for line in errors if line["rank"] == caught.value.rank]
    assert first[0] == f"worker {caught.value.rank} of 2 failed"
    assert first[1].startswith("Traceback")
    assert any("NumericError" in text and "not finite" in text for text in first)


def translating(translators: tuple[Path, Path], folder: Path, *, rows: int) -> RunInputs:
    """A run of few steps, whose texts go there and back."""
    forward, backward = map(str, translators)
    spec = {
        "dataset": str(write_lexicon_dataset(folder / "d", rows=rows, group=1000)),
        "model": "tiny-bert",
        "hyperparams": {"batch_size": 256, "epochs": 1, "eval_every": "1 epochs", "max_length": 16},
        "augmentation": [{"type": "back_translation", "forward": forward, "backward": backward, "num_beams": 8}],
        "resources": {"gpus": 0, "workers": 2, "threads_per_worker": 1},
    }
    return prepare(parse_spec(spec), load_settings())[0]


def when(condition: Callable[[], bool], then: Callable[[], None]) -> threading.Thread:
    """Does something as soon as it may."""

    def watch() -> None:
        assert soon(condition)
        then()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_texts_are_translated_before_the_first_step_and_once(
    cores: int | None, translators: tuple[Path, Path], tmp_path: Path
) -> None:
    """Stopped in the middle, and then an actor is killed: what is done is not done again, and every row has its own."""
    inputs, folder = translating(translators, tmp_path, rows=1536), RunFolder(str(tmp_path / "run"))

    def chunks() -> int:
        return len(list((tmp_path / "run" / "translations").glob("*.texts")))

    run = Followed(folder)
    when(lambda: chunks() > 0, run.stop.request)
    with pytest.raises(RunStopped, match="before the first checkpoint"):
        run.run(inputs, cores)
    assert_nothing_is_left()
    assert [event["event"] for event in run.events][:2] == ["attempt_started", "translating"]
    done = chunks()
    assert 0 < done < 7

    run = Followed(folder)
    when(lambda: bool(of_ours("MapWorker")), lambda: os.kill(of_ours("MapWorker")[0], signal.SIGKILL))
    result = run.run(inputs, cores)
    assert (result["status"], result["steps"], result["attempts"]) == ("succeeded", 6, 2)
    assert_nothing_is_left()
    names = [event["event"] for event in run.events if event["event"] != "translating"]
    assert names == ["attempt_started", "attempt_failed", "attempt_started", "translated"]
    first, failed = (next(e for e in run.events if e["event"] == name) for name in ("translating", "attempt_failed"))
    assert first["rows"] > 0
    assert failed["message"].startswith("the translation: ")
    assert chunks() == 7
    reader = split_reader(replace(inputs, translations=folder.uri), "train", 1)
    (block,) = run_blocks(reader.split.rows, reader.split.sizes, seed=0, epochs=1)
    table, _ = rows_of_block(reader.manifest, reader.split, block, None, reader.translations)
    rows = zip(table["text"].to_pylist(), table["text_candidates"].to_pylist(), strict=True)
    assert all(set(found) == back_of(text) for text, found in rows)


def test_a_model_that_cannot_be_loaded_is_told_by_its_field(
    cores: int | None, translators: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(translators[1], tmp_path / "broken")
    weights = tmp_path / "broken" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    run = Followed(RunFolder(str(tmp_path / "run")))
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        run.run(translating((translators[0], tmp_path / "broken"), tmp_path, rows=50), cores)
    assert caught.value.param == "/augmentation/0/backward"
    assert [event["event"] for event in run.events] == ["attempt_started", "translating", "attempt_failed"]
    assert run.events[-1]["next"] == "give_up"
    assert_nothing_is_left()
