"""A sweep from its first trial to its account, in this process: the places, the scheduler and the director, no Ray."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from astraml_ray.cli import run as cli
from astraml_ray.errors import InfrastructureError, NumericError
from astraml_ray.settings import load_settings
from astraml_ray.spec.loading import parse_spec
from astraml_ray.spec.placement import Placement
from astraml_ray.training.attempt import Watcher
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.training.stop import Stop
from astraml_ray.tuning.journal import read_sweep
from astraml_ray.tuning.sweep import _placed, _Sweep, begin_sweep, prepare_sweep
from astraml_ray.tuning.trainable import Shared, TrialPlace
from astraml_ray.tuning.trials import Course, goal_of
from astraml_ray.tuning.tuner import _config, _Scheduler
from tests.conftest import write_dataset

PLACEMENT = Placement(workers=1, gpus_per_worker=0, cpus_per_worker=1.0, threads=1)


class Sitting:
    """What run_sweep makes for one process, with one place that takes a trial after the other."""

    def __init__(self, folder: RunFolder, document: dict[str, Any], **changes: Any) -> None:
        spec = parse_spec(document)
        inputs = prepare_sweep(spec, load_settings())[0]
        if not folder.exists("inputs.json"):
            begin_sweep(spec, inputs, folder)
        state = read_sweep(folder)
        self.events: list[dict[str, Any]] = []
        self.stop = Stop()
        inputs = replace(_placed(inputs, PLACEMENT), **changes)
        self.shared = Shared(inputs, state["document"], goal_of(spec), folder, PLACEMENT, channel=None)
        watcher = Watcher(self.events.append, self.stop)
        self.sweep = _Sweep(inputs.spec.sweep, self.shared, watcher, concurrent=1, saved=state)  # type: ignore[arg-type]
        self.director = self.sweep._director

    def run(self, *, trials: int | None = None) -> None:
        """As Ray Tune does."""
        scheduler, place = _Scheduler(self.director), None
        ran = 0
        while ran != trials and (number := self.director.next_trial()) is not None:
            ran += 1
            config = _config(self.director, number)
            if place is None:
                place = self.place(config)
            else:
                place.reset_config(config)
            self.director.started(number)
            self.train(place, scheduler, SimpleNamespace(config=config))
        if place is not None:
            place.cleanup()

    def place(self, config: dict[str, Any]) -> TrialPlace:
        """As tune.with_parameters makes it."""
        shared = self.shared

        class Place(TrialPlace):
            def setup(self, config: dict[str, Any]) -> None:
                super().setup(config, shared)

        return Place(config)

    def train(self, place: TrialPlace, scheduler: _Scheduler, trial: Any) -> None:
        while True:
            result = place.step()
            if result["done"]:
                scheduler.on_trial_complete(None, trial, result)
                return
            if scheduler.on_trial_result(None, trial, result) == "STOP":
                return


@pytest.fixture(autouse=True)
def _lines_go_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("astraml_ray.tuning.trainable.line_shipper", lambda channel: lambda lines: None)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """13 steps, or fewer where more rows are kept for validation."""
    data = write_dataset(tmp_path_factory.mktemp("place") / "d", rows=200, group=40)
    return {
        "dataset": {"train": str(data / "train.parquet"), "test": str(data / "test.parquet")},
        "model": "tiny-bert",
        "hyperparams": {"batch_size": 16, "epochs": 1, "eval_every": "4 steps", "max_length": 32, "lr": 5e-3},
        "resources": {"gpus": 0, "threads_per_worker": 1},
    }


def test_trials_of_other_rows_are_judged_by_their_own_course_and_the_best_is_published(
    document: dict[str, Any], tmp_path: Path
) -> None:
    shares = [0.1, 0.6]
    sweep = {"parameters": {"dataset.validation_fraction": {"choice": shares}}, "scheduler": "none"}
    hyper = {**document["hyperparams"], "eval_every": "0.25 epochs"}
    sitting = Sitting(RunFolder(str(tmp_path)), {**document, "hyperparams": hyper, "sweep": sweep})
    sitting.run()
    sitting.sweep._end()
    result = sitting.sweep.conclude(load_settings(), started=0.0, here=True)
    assert (result["status"], result["reason"]) == ("succeeded", "completed")
    many, few = result["sweep"]["trials"]
    assert (many["status"], few["status"]) == ("succeeded", "succeeded")
    assert few["step"] < many["step"]
    for trial in (many, few):
        every = max(1, round(0.25 * trial["step"]))
        expected = [*range(every, trial["step"], every), trial["step"]]
        assert [step for step, _ in trial["history"]] == expected
        numbers = [found[2] for found in read_sweep(RunFolder(str(tmp_path)))["results"] if found[0] == trial["number"]]
        assert numbers == list(range(1, len(expected) + 1))
    assert result["sweep"]["best_trial"] == min((many, few), key=lambda t: t["best_metric"])["trial_id"]
    assert "test/accuracy" in result["metrics"]
    assert Path(result["model_path"], "model.safetensors").exists()
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert not list((tmp_path / "changes").rglob("*.json"))


def test_a_stop_between_two_trials_keeps_the_best_and_says_so(document: dict[str, Any], tmp_path: Path) -> None:
    sweep = {"parameters": {"seed": {"choice": [1, 2, 3]}}, "scheduler": "none"}
    sitting = Sitting(RunFolder(str(tmp_path)), {**document, "sweep": sweep})
    sitting.run(trials=1)
    sitting.stop.request("keep_best")
    sitting.sweep._end()
    result = sitting.sweep.conclude(load_settings(), started=0.0, here=True)
    assert (result["status"], result["reason"]) == ("cancelled", "stopped_keep_best")
    assert [t["status"] for t in result["sweep"]["trials"]] == ["succeeded"]


def test_a_sweep_that_begins_again_tells_of_the_trials_that_had_ended(document: dict[str, Any], tmp_path: Path) -> None:
    sweep = {"parameters": {"hyperparams.lr": {"choice": [1e-3, 5e-3]}}, "scheduler": "none"}
    sitting = Sitting(RunFolder(str(tmp_path)), {**document, "sweep": sweep})
    for number in range(2):
        sitting.director.next_trial()
        sitting.director.started(number)
        sitting.director.evaluated(number, 4, 0.3, {"validation/loss": 0.5 + number}, Course(4, 4))
        sitting.director.finished(number, "completed", 13)
    # Killed before anybody has heard of it.
    again = Sitting(RunFolder(str(tmp_path)), {**document, "sweep": sweep})
    again.sweep.work()
    told = [event["trial"] for event in again.events if event.get("event") == "trial"]
    assert told == again.director.records()
    assert [(t["status"], t["best_metric"]) for t in told] == [("succeeded", 0.5), ("succeeded", 1.5)]
    assert [event["sweep/best"] for event in again.events if "event" not in event] == [0.5]


def test_trials_that_nobody_has_stopped_are_not_counted_as_done(document: dict[str, Any], tmp_path: Path) -> None:
    sweep = {"parameters": {"seed": {"choice": [1, 2]}}, "scheduler": "none"}
    sitting = Sitting(RunFolder(str(tmp_path)), {**document, "sweep": sweep})
    sitting.director.next_trial()
    sitting.director.started(0)
    with pytest.raises(InfrastructureError, match="Ray Tune has ended before the trials had") as caught:
        sitting.sweep._end()
    assert "--resume" in str(caught.value.hint)
    again = Sitting(RunFolder(str(tmp_path)), {**document, "sweep": sweep})
    assert [again.director.next_trial(), again.director.is_over] == [0, False]


def test_a_sweep_whose_trials_have_all_failed_is_tried_again_by_who_resumes_it(
    document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = {"parameters": {"hyperparams.lr": {"choice": [1e-3, 5e-3]}}, "scheduler": "none"}
    whole, folder = {**document, "sweep": sweep}, RunFolder(str(tmp_path))
    sitting = Sitting(folder, whole)
    for number in range(2):
        sitting.director.next_trial()
        sitting.director.started(number)
        sitting.director.failed(number, InfrastructureError("the bucket was away").as_dict())
    with pytest.raises(InfrastructureError, match="all 2 trials that ended have failed"):
        sitting.sweep._end()

    def sweep_on(inputs: Any, folder: RunFolder, process: Any, stop: Stop) -> dict[str, Any]:
        again = Sitting(folder, whole)
        assert again.director.hopeless() is None
        again.run()
        again.sweep._end()
        return again.sweep.conclude(process, started=0.0, here=True)

    monkeypatch.setattr(cli, "sweep_on", sweep_on)
    monkeypatch.setattr(cli, "stop_on_signals", lambda stop: None)
    monkeypatch.setattr(cli, "apply_ray_environment", lambda: None)
    result = cli.resume_run(str(tmp_path), "nowhere", load_settings())
    assert [(t["status"], t["error"]) for t in result["sweep"]["trials"]] == [("succeeded", None)] * 2


def test_what_trials_fail_of_is_written_without_the_jobs_secrets(document: dict[str, Any], tmp_path: Path) -> None:
    sweep = {"parameters": {"seed": {"choice": [1, 2, 3]}}, "scheduler": "none"}
    whole = {**document, "sweep": sweep}
    env = parse_spec({**whole, "env": {"TOKEN": {"secret": "token"}}}).env
    folder = RunFolder(str(tmp_path))
    spec = _placed(prepare_sweep(parse_spec(whole), load_settings())[0], PLACEMENT).spec.model_copy(update={"env": env})
    sitting = Sitting(folder, whole, spec=spec, secrets=lambda name: f"{name}-correct-horse")
    plan = {"number": 7, "parameters": {"model.name": "./token-correct-horse"}, "copied": None}
    told = json.loads(sitting.place({"plan": json.dumps(plan)}).step()["told"])
    assert (told["code"], "token-correct-horse" in json.dumps(told), "***" in json.dumps(told)) == (
        "model",
        False,
        True,
    )
    for number in range(3):
        sitting.director.next_trial()
        sitting.director.started(number)
        sitting.director.failed(number, NumericError("told token-correct-horse").as_dict())
    with pytest.raises(NumericError, match=r"told \*\*\*"):
        sitting.sweep._end()
    assert "token-correct-horse" not in (tmp_path / "sweep.json").read_text() + json.dumps(sitting.events)
