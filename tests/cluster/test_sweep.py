"""Sweeps for real, on one local cluster: pruned, failed, killed, copied, and larger than the cluster."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml

from astraml_ray.control.outbox import Outbox
from astraml_ray.control.run_job import RunJob
from astraml_ray.control.run_secrets import RunSecrets
from astraml_ray.errors import NumericError
from astraml_ray.forkserver.start import fork_server
from astraml_ray.settings import apply_ray_environment, load_settings
from astraml_ray.spec.loading import parse_document, parse_spec
from astraml_ray.training.attempt import Watcher
from astraml_ray.training.cluster import cluster
from astraml_ray.training.preparation import load_inputs
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.training.stop import Stop
from astraml_ray.tuning.journal import read_sweep
from astraml_ray.tuning.ledger import Evaluation
from astraml_ray.tuning.pruning import make_pruner
from astraml_ray.tuning.sweep import begin_sweep, prepare_sweep, run_sweep
from astraml_ray.tuning.trials import evaluations_of, goal_of
from tests.cluster.conftest import Command, result_of
from tests.cluster.leftovers import assert_nothing_is_left
from tests.conftest import write_dataset

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cores() -> Iterator[int | None]:
    apply_ray_environment()
    with fork_server(load_settings()) as settings, cluster(settings, 2) as local_cores:
        yield local_cores


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Trials of 26 steps with 6 evaluations."""
    data = write_dataset(tmp_path_factory.mktemp("sweep") / "d", rows=208, group=60)
    return {
        "dataset": str(data),
        "model": "tiny-bert",
        "hyperparams": {"batch_size": 16, "epochs": 2, "eval_every": "5 steps", "max_length": 32},
        "resources": {"gpus": 0, "threads_per_worker": 1},
    }


@dataclass
class Followed:
    """A sweep with all that is told of it."""

    folder: RunFolder
    stop: Stop = field(default_factory=Stop)
    events: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def begin(self, document: dict[str, Any]) -> None:
        spec = parse_spec(document)
        inputs, _ = prepare_sweep(spec, load_settings())
        begin_sweep(spec, inputs, self.folder)

    def run(self, cores: int | None) -> dict[str, Any]:
        watcher = Watcher(self.events.append, self.stop, self._take_lines)
        return run_sweep(load_inputs(self.folder), self.folder, watcher, load_settings(), local_cores=cores)

    def _take_lines(self, source: str, lines: list[dict[str, Any]]) -> None:
        self.lines += [line["text"] for line in lines]


def same_decisions(folder: Path, trials: list[dict[str, Any]]) -> None:
    """Whether the trials ended as one undisturbed pruner, told the same evaluations, would have had it."""
    saved = read_sweep(RunFolder(str(folder)))
    spec = parse_spec(saved["document"])
    assert spec.sweep is not None
    rows = load_inputs(RunFolder(str(folder))).train_rows
    whole = evaluations_of(spec, rows)
    pruner = make_pruner(spec.sweep, goal_of(spec), whole)
    stopped = {}
    for found in (Evaluation(*plain) for plain in saved["results"]):
        verdict = pruner.decide(found.number, found.evaluation, found.value)
        if verdict.stop and found.evaluation < whole:
            stopped[found.number] = (verdict.rung, verdict.reason, found.step)
    assert stopped == {t["number"]: (t["rung"], t["reason"], t["step"]) for t in trials if t["status"] == "stopped"}


def test_trials_are_stopped_with_a_reason_and_one_that_fails_is_told(
    cores: int | None, document: dict[str, Any], tmp_path: Path
) -> None:
    rates = [3e-3, 100.0, 1e-3, 1e-4, 1e-5, 1e-6]
    hyper = {**document["hyperparams"], "max_grad_norm": None, "weight_decay": 10.0}
    sweep = {"parameters": {"hyperparams.lr": {"choice": rates}}, "reduction_factor": 2}
    run = Followed(RunFolder(str(tmp_path / "sweep")))
    run.begin({**document, "hyperparams": hyper, "sweep": sweep})
    result = run.run(cores)
    assert_nothing_is_left()
    assert (result["status"], result["reason"]) == ("succeeded", "completed")
    trials = result["sweep"]["trials"]
    tried = [t["parameters"]["hyperparams.lr"] for t in trials]
    assert sorted(tried) == sorted(rates)
    (failed,) = (t for t in trials if t["status"] == "failed")
    assert (failed["number"], failed["error"]["code"]) == (tried.index(100.0), "numeric")
    stopped = [t for t in trials if t["status"] == "stopped"]
    assert stopped
    assert all(t["reason"].startswith(f"asha_rung_{t['rung']}: ") and t["step"] < 26 for t in stopped)
    same_decisions(tmp_path / "sweep", trials)

    best = min((t for t in trials if t["best_metric"] is not None), key=lambda t: t["best_metric"])
    assert result["sweep"]["best_trial"] == best["trial_id"]
    assert result["metrics"]["validation/loss"] == best["best_metric"]
    assert "test/accuracy" in result["metrics"]
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(result["model_path"])
    step = f"step-{best['best_step']:09d}"
    kept = safetensors.torch.load_file(Path(best["run_path"]) / "checkpoints" / step / "model.safetensors")
    assert all(bool((parameter == kept[name]).all()) for name, parameter in model.named_parameters())

    # A trial is an ordinary run, of the whole length: its learning rate is that of the full cosine.
    spec = parse_spec(parse_document((Path(trials[0]["run_path"]) / "spec.yaml").read_text(), source="spec.yaml"))
    assert (spec.hyperparams.lr, spec.sweep) == (tried[0], None)
    for trial in stopped:
        lines = (Path(trial["run_path"]) / "metrics.jsonl").read_text().splitlines()
        last = [json.loads(line) for line in lines if "train/learning_rate" in line][-1]
        peak = trial["parameters"]["hyperparams.lr"]
        assert last["train/learning_rate"] == pytest.approx(peak * 0.5 * (1 + math.cos(math.pi * last["step"] / 26)))

    told = [event for event in run.events if event.get("event") == "trial"]
    assert {event["trial"]["trial_id"] for event in told} == {t["trial_id"] for t in trials}
    described = {"metric": "validation/loss", "mode": "min", "algorithm": "grid", "scheduler": "asha"}
    assert run.events[0]["sweep"] == {**described, "trials": 6}
    assert {name: result["sweep"][name] for name in described} == described
    best_so_far = [event["sweep/best"] for event in run.events if "sweep/best" in event]
    assert best_so_far == sorted(best_so_far, reverse=True)
    assert any(line.startswith(f"{failed['trial_id']} | ") and "NumericError" in line for line in run.lines)
    again = Followed(run.folder)
    assert again.run(cores) == result
    assert again.events == []


def test_weak_trials_go_on_with_the_weights_of_strong_ones(
    cores: int | None, document: dict[str, Any], tmp_path: Path
) -> None:
    sweep = {
        "parameters": {"hyperparams.lr": {"log_uniform": [1e-6, 1e-2]}},
        "scheduler": "pbt",
        "trials": 4,
        "max_concurrent": 2,
        "perturb_every": 2,
    }
    run = Followed(RunFolder(str(tmp_path / "sweep")))
    run.begin({**document, "checkpoint": {"keep": 100}, "sweep": sweep})
    result = run.run(cores)
    assert_nothing_is_left()
    trials = {t["trial_id"]: t for t in result["sweep"]["trials"]}
    marked = {name: Path(t["run_path"], "inherited.json") for name, t in trials.items() if t["parent"]}
    when = {name: mark.stat().st_mtime_ns for name, mark in marked.items()}
    # Whoever was copied may copy another one later: then its own weights of that time are gone.
    copied = [trials[name] for name in when if when.get(trials[name]["parent"], 0) < when[name]]
    assert copied
    first = {
        event["trial"]["trial_id"]: event["trial"]["parameters"] for event in reversed(run.events) if "trial" in event
    }
    for trial in copied:
        mark = json.loads((Path(trial["run_path"]) / "inherited.json").read_text())
        step = f"checkpoints/step-{min(_steps(trial)):09d}"
        mine, theirs = Path(trial["run_path"], step), Path(trials[trial["parent"]]["run_path"], step)
        assert f"t{mark['donor']:04d}" == trial["parent"]
        assert (mine / "model.safetensors").read_bytes() == (theirs / "model.safetensors").read_bytes()
        groups = [
            torch.load(place / "optimizer.pt", weights_only=True)["optimizer"]["param_groups"][0]["initial_lr"]
            for place in (mine, theirs)
        ]
        assert groups[0] == trial["parameters"]["hyperparams.lr"] != first[trial["trial_id"]]["hyperparams.lr"]
        assert groups[0] != groups[1]
        assert trial["reason"] is None or trial["reason"].startswith(("pbt: ", "early_stopping"))
    assert all(t["status"] == "succeeded" and t["step"] == 26 for t in trials.values())
    best = trials[result["sweep"]["best_trial"]]
    assert result["metrics"]["validation/loss"] == best["best_metric"]
    assert best["best_metric"] == min(t["best_metric"] for t in trials.values())


def _steps(trial: dict[str, Any]) -> list[int]:
    return [int(place.name.removeprefix("step-")) for place in Path(trial["run_path"], "checkpoints").iterdir()]


def test_trials_of_several_workers_fill_the_cluster_and_do_not_wait_for_each_other(
    cores: int | None, document: dict[str, Any], tmp_path: Path
) -> None:
    """2 trials of 2 workers at a time, or one after the other: never a deadlock on 4 CPUs."""
    hyper = {**document["hyperparams"], "epochs": 1}
    resources = {"gpus": 0, "workers": 2, "cpus_per_worker": 1.0, "threads_per_worker": 1}
    sweep = {"parameters": {"hyperparams.lr": {"choice": [1e-3, 1e-4]}}, "max_concurrent": 2, "scheduler": "none"}
    run = Followed(RunFolder(str(tmp_path / "sweep")))
    run.begin({**document, "hyperparams": hyper, "resources": resources, "sweep": sweep})
    result = run.run(cores)
    assert_nothing_is_left()
    trials = {t["trial_id"]: t for t in result["sweep"]["trials"]}
    for trial in trials.values():
        assert (trial["status"], trial["step"], trial["reason"]) == ("succeeded", 13, None)
        assert [step for step, _ in trial["history"]] == [5, 10, 13]
        place = Path(trial["run_path"])
        spec = parse_spec(parse_document((place / "spec.yaml").read_text(), source="spec.yaml"))
        assert spec.resources.workers == 2
        assert spec.hyperparams.lr == trial["parameters"]["hyperparams.lr"]
        records = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
        scored = [[r["step"], r["validation/loss"]] for r in records if "validation/loss" in r]
        assert scored == trial["history"]
    assert result["workers"] == 2
    best = trials[result["sweep"]["best_trial"]]
    assert result["metrics"]["validation/loss"] == best["best_metric"] == min(t["best_metric"] for t in trials.values())
    kept = Path(best["run_path"]) / "checkpoints" / f"step-{best['best_step']:09d}" / "model.safetensors"
    published = safetensors.torch.load_file(Path(result["model_path"]) / "model.safetensors")
    weights = safetensors.torch.load_file(kept)
    assert all(bool((published[name] == weights[name]).all()) for name in published)


def test_a_job_of_the_service_is_stopped_and_another_goes_on_with_it(
    cores: int | None, document: dict[str, Any], tmp_path: Path
) -> None:
    """Through the door of the service; the second job finds what the first one's trials had done."""
    sweep = {"parameters": {"hyperparams.lr": {"choice": [1e-3, 5e-3, 1e-2]}}, "scheduler": "none"}
    spec = parse_spec({**document, "sweep": sweep})
    first, parent = _job(spec.canonical(), tmp_path / "first", cores)
    original = first._take_record

    def take(record: dict[str, Any]) -> None:
        original(record)
        if record.get("event") == "trial" and record["trial"]["status"] == "succeeded":
            first.stop.request("now")

    first._take_record = take  # type: ignore[method-assign]
    first.run()
    end = parent.next_report()["end"]
    assert (end["status"], end["reason"]) == ("cancelled", "cancelled")
    assert "1 trials done" in end["message"]

    second, outbox = _job(spec.canonical(), tmp_path / "second", cores, parent=tmp_path / "first")
    second.run()
    assert_nothing_is_left()
    report = outbox.next_report()
    assert (report["end"]["status"], report["end"]["reason"]) == ("succeeded", "completed")
    assert "progress" not in report
    assert {trial["number"] for trial in report["trials"]} == {0, 1, 2}  # of the first one's trial it tells too
    assert [event["data"]["sweep"]["trials"] for event in report["events"] if event["type"] == "sweep_started"] == [3]
    assert "sweep/best" in report["windows"]
    result = report["end"]["result"]
    assert [t["status"] for t in result["sweep"]["trials"]] == ["succeeded"] * 3
    assert Path(result["model_path"], "model.safetensors").exists()


def _job(spec: dict[str, Any], folder: Path, cores: int | None, parent: Path | None = None) -> tuple[RunJob, Outbox]:
    order = {
        "spec": spec,
        "stop": None,
        "attempts": 0,
        "failures": [],
        "run_path": str(folder),
        "trials_at_once": 1,
        "parent_run_path": None if parent is None else str(parent),
    }
    outbox = Outbox()
    secrets = RunSecrets(parse_spec(spec), "nobody", "none", lambda attempt, name: "")
    return RunJob(order, local_cores=cores, outbox=outbox, secrets=secrets), outbox


def test_a_sweep_of_failures_ends_early(cores: int | None, document: dict[str, Any], tmp_path: Path) -> None:
    hyper = {**document["hyperparams"], "max_grad_norm": None, "weight_decay": 10.0}
    sweep = {"parameters": {"hyperparams.lr": {"uniform": [90.0, 100.0]}}, "trials": 8}
    run = Followed(RunFolder(str(tmp_path / "sweep")))
    run.begin({**document, "hyperparams": hyper, "sweep": sweep})
    with pytest.raises(NumericError, match="trials that ended have failed"):
        run.run(cores)
    assert_nothing_is_left()
    last = [event["trial"] for event in run.events if event.get("event") == "trial"]
    assert 3 <= len({t["number"] for t in last if t["status"] == "failed"}) < 8


def test_a_killed_driver_goes_on_where_it_was(document: dict[str, Any], tmp_path: Path) -> None:
    """No finished trial is repeated, none is lost, and trials are stopped as if nothing had happened."""
    sweep = {
        "parameters": {"hyperparams.lr": {"log_uniform": [1e-5, 1e-2]}},
        "trials": 7,
        "reduction_factor": 2,
        "max_concurrent": 2,
    }
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump({**document, "sweep": sweep}))
    command = Command.start("run", "-f", str(file), "--storage", str(tmp_path / "runs"))
    folder = Path(command.read_until("run ").split()[-1])
    command.read_until("t0003 starts")
    command.process.kill()
    command.finish()
    before = read_sweep(RunFolder(str(folder)))
    ended = [t for t in before["trials"] if t["status"] in ("succeeded", "stopped")]
    assert ended
    code, out, err = Command.run("run", "--resume", str(folder), "--output", "json")
    assert code == 0, err
    result = result_of(out)
    after = result["sweep"]["trials"]
    assert len(after) == 7
    for trial in ended:
        now = after[trial["number"]]
        assert (now["ended_at"], now["seconds"]) == (trial["ended_at"], pytest.approx(trial["seconds"], abs=0.001))
        assert f"t{trial['number']:04d} goes on" not in err
    kept = json.loads((folder / "sweep.json").read_text())["results"]  # the whole, as nothing changes any more
    assert kept[: len(before["results"])] == before["results"]
    assert len({(number, step) for number, step, *_ in kept}) == len(kept)
    expected = parse_spec(before["document"]).sweep
    assert expected is not None
    assert [t["parameters"] for t in after] == [expected.point(number) for number in range(7)]
    same_decisions(folder, after)
