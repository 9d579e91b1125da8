"""A sweep's trials on their way into the store: once each, whatever is repeated, late or begun again."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from astraml_ray.control.outbox import Outbox
from astraml_ray.control.reconciliation import trials_wanted
from astraml_ray.control.trials import events_between, is_news, trial_record
from astraml_ray.data.masking import Masker
from astraml_ray.spec.loading import parse_spec
from astraml_ray.spec.states import JobStatus
from astraml_ray.store.events import EventRecord, list_events
from astraml_ray.store.trials import TrialRecord, count_trials, find_sweep, get_trial, list_trials
from tests.control.conftest import World
from tests.sweeps import START, SWEEP, sweep_result, told_trials


def told(number: int = 3, **given: Any) -> dict[str, Any]:
    return {**told_trials(number + 1, running=1)[number], **given}


def ended(number: int = 3, **given: Any) -> dict[str, Any]:
    end = {"status": "stopped", "step": 40, "ended_at": START + 300, "reason": "asha_rung_0: 0.5 is worse"}
    return told(number, **{**end, **given})


def start(world: World) -> str:
    """A sweep whose runner r1 has begun."""
    job_id = world.submit()
    world.tick()
    world.controller.begin(job_id, "r1")
    return job_id


def trials_of(world: World, job_id: str) -> list[TrialRecord]:
    with world.store.read() as conn:
        return list_trials(conn, job_id, limit=100)


def told_events(world: World, job_id: str) -> list[EventRecord]:
    with world.store.read() as conn:
        return [event for event in list_events(conn, job_id, limit=1000) if event.type.startswith("trial")]


class TestOutbox:
    def test_only_the_newest_of_each_trial_is_sent(self) -> None:
        outbox = Outbox()
        for step in range(1000):
            outbox.add_trial(told(3, step=step))
            outbox.add_trial(told(4, step=step))
        report = outbox.next_report()
        assert [(one["trial_id"], one["step"]) for one in report["trials"]] == [("t0003", 999), ("t0004", 999)]
        assert report["events"] == []
        outbox.add_trial(told(3, step=1000))
        assert outbox.next_report() is report
        outbox.acknowledge(report["seq"])
        assert not outbox.empty
        later = outbox.next_report()
        assert [one["step"] for one in later["trials"]] == [1000]
        outbox.acknowledge(later["seq"])
        assert outbox.empty

    def test_no_secret_is_in_a_trial(self) -> None:
        outbox = Outbox()
        outbox.hide(Masker({"hf": "hf-correct-horse"}))
        outbox.add_trial(told(error={"message": "denied: hf-correct-horse"}, parameters={"env.X": "hf-correct-horse"}))
        assert "hf-correct-horse" not in json.dumps(outbox.next_report())


class TestWhatIsNews:
    def test_a_trial_that_ended_stays_so_unless_it_was_taken_up_again(self) -> None:
        def record(**given: Any) -> TrialRecord:
            return trial_record("job", told(**given))

        over = trial_record("job", ended())
        assert is_news(None, record())
        assert is_news(record(), record(status="pending"))
        assert is_news(over, trial_record("job", ended(status="succeeded")))
        assert not is_news(over, record())
        assert not is_news(over, record(status="pending", started_at=None, step=None))
        assert is_news(over, record(started_at=START + 301, step=0))
        assert is_news(over, record(step=41))

    @pytest.mark.parametrize(
        ("before", "after", "types"),
        [
            (None, "pending", []),
            (None, "running", ["trial_started"]),
            ("pending", "running", ["trial_started"]),
            ("running", "running", []),
            ("running", "stopped", ["trial_ended"]),
            (None, "succeeded", ["trial_started", "trial_ended"]),
            ("stopped", "stopped", []),
            ("stopped", "running", ["trial_started"]),
        ],
    )
    def test_events(self, before: str | None, after: str, types: list[str]) -> None:
        was = trial_record("job", told(status=before)) if before else None
        found = events_between(was, trial_record("job", told(status=after)), now=START)
        assert [event.type for event in found] == types

    def test_one_that_never_started_has_no_start(self) -> None:
        never = trial_record("job", told(status="cancelled", started_at=None))
        assert [event.type for event in events_between(None, never, now=START)] == ["trial_ended"]


class TestReports:
    def test_evaluations_fill_no_event_log(self, world: World) -> None:
        job_id = start(world)
        world.report(job_id, sweep=SWEEP, trials=[told(status="pending", started_at=None, history=[])])
        for step in range(20, 200, 20):
            history = [[at, 0.1] for at in range(20, step + 1, 20)]
            world.report(job_id, status="running", trials=[told(step=step, history=history)])
        world.report(job_id, trials=[ended(step=200, best_metric=0.93)])
        (trial,) = trials_of(world, job_id)
        assert (trial.status, trial.step, trial.ended_at, trial.score) == ("stopped", 200, START + 300, -0.93)
        begun, over = told_events(world, job_id)
        assert (begun.type, begun.at, over.type, over.at) == ("trial_started", START + 60, "trial_ended", START + 300)
        assert (over.data or {})["reason"] == "asha_rung_0: 0.5 is worse"
        assert max(len(json.dumps(event.data)) for event in (begun, over)) < 500
        assert "0.93" in str(over.message)
        assert world.job(job_id).status is JobStatus.RUNNING

    def test_repeats_count_once_and_what_is_late_not_at_all(self, world: World) -> None:
        job_id = start(world)
        world.report(job_id, seq=5, trials=[ended()])
        before = (trials_of(world, job_id), told_events(world, job_id))
        for seq in (5, 5, 4, 3):
            world.report(job_id, seq=seq, trials=[told(step=99, status="running"), told(4)])
        assert (trials_of(world, job_id), told_events(world, job_id)) == before
        assert len(before[0]) == 1

    def test_a_sweep_that_begins_again_tells_of_all_its_trials(self, world: World) -> None:
        job_id = start(world)
        world.report(job_id, sweep=SWEEP, trials=[ended(0), ended(1), told(2)])
        world.launcher.running.clear()
        world.tick()
        world.controller.begin(job_id, "r2")
        # The old runner's last word is not heard any more.
        assert world.report(job_id, "r1", trials=[ended(2, status="failed")])["abandon"]
        again = [ended(0), told(1, step=0, status="pending", started_at=None), told(2, started_at=START + 500)]
        world.report(job_id, "r2", sweep=SWEEP, trials=again)
        assert [(one.trial_id, one.status) for one in trials_of(world, job_id)] == [
            ("t0000", "stopped"),
            ("t0001", "stopped"),
            ("t0002", "running"),
        ]
        types = [event.type for event in told_events(world, job_id)]
        assert (types.count("trial_started"), types.count("trial_ended")) == (3, 2)
        world.report(job_id, "r2", trials=[ended(2, status="succeeded")])
        with world.store.read() as conn:
            assert count_trials(conn, job_id)["succeeded"] == 1

    def test_progress_is_the_share_of_the_trials_that_have_ended(self, world: World) -> None:
        job_id = start(world)
        trials = [ended(0, best_metric=0.5), ended(1, status="failed", best_metric=0.99), told(2, best_metric=0.8)]
        world.report(job_id, sweep=SWEEP, trials=trials)
        progress = world.job(job_id).progress or {}
        assert progress["fraction"] == pytest.approx(2 / 27)
        assert progress["trials"] == {"ended": 2, "running": 1, "planned": 27}
        assert (progress["best_trial"], progress["best_metric"]) == ("t0002", 0.8)

    def test_the_result_goes_into_the_rows_and_the_job_keeps_the_rest(self, world: World) -> None:
        job_id = start(world)
        trials = told_trials(9)
        world.report(job_id, status="running", trials=trials[:4])
        result = {"model_path": "s3://b/m", "sweep": sweep_result(trials)}
        end = {"status": "succeeded", "reason": "completed", "message": None, "result": result, "error": None}
        world.report(job_id, end=end)
        job = world.job(job_id)
        assert job.status is JobStatus.SUCCEEDED
        kept = (job.result or {})["sweep"]
        assert set(kept) == {
            "metric",
            "mode",
            "algorithm",
            "scheduler",
            "best_trial",
            "seconds",
            "gpu_hours",
            "cpu_hours",
        }
        assert (job.result or {})["model_path"] == "s3://b/m"
        assert [one.history for one in trials_of(world, job_id)] == [one["history"] for one in trials]
        with world.store.read() as conn:
            sweep = find_sweep(conn, job_id)
        assert sweep is not None
        assert (sweep.metric, sweep.mode) == ("validation/accuracy", "max")
        assert len([event for event in told_events(world, job_id) if event.type == "trial_ended"]) == 9

    @pytest.mark.parametrize("mode", ["now", "keep_best"])
    def test_a_cancelled_sweep_leaves_no_trial_open(self, world: World, mode: str) -> None:
        job_id = start(world)
        world.report(job_id, status="running", trials=[ended(0), told(1), told(2, status="pending")])
        world.cancel(job_id, mode)
        assert world.report(job_id)["stop"] == mode
        world.report(job_id, end={"status": "cancelled", "reason": "cancelled", "message": "m"})
        assert [one.status for one in trials_of(world, job_id)] == ["stopped", "cancelled", "cancelled"]

    def test_a_runner_that_never_comes_back_leaves_no_trial_open(self, world: World) -> None:
        job_id = start(world)
        world.report(job_id, status="running", trials=[told(1)])
        world.cancel(job_id)
        world.now += 3600
        world.tick()
        assert world.job(job_id).status is JobStatus.CANCELLED
        with world.store.read() as conn:
            assert get_trial(conn, job_id, "t0001").status == "cancelled"


def test_the_progress_of_a_sweep_is_that_of_its_trials_and_no_runners(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, world: World
) -> None:
    from astraml_ray.control import run_job
    from astraml_ray.control.run_secrets import RunSecrets

    def one_of_two_trials(inputs: Any, folder: Any, watcher: Any, settings: Any, **places: Any) -> dict[str, Any]:
        watcher.on_event({"event": "trial", "message": "", "trial": ended(0)})
        watcher.on_event({"step": 1, "epoch": 1.0, "sweep/best": 0.5, "time": START})
        return {"status": "succeeded", "reason": "completed"}

    monkeypatch.setattr(run_job, "run_sweep", one_of_two_trials)
    document = {"dataset": "s3://b/d", "model": "tiny-bert", "sweep": {"parameters": {"seed": {"choice": [1, 2]}}}}
    spec = parse_spec(document)
    secrets = RunSecrets(spec, "runner", "astraml", lambda *_: pytest.fail("it names no secret"))
    outbox = Outbox()
    order = {"stop": None, "attempts": 0, "failures": [], "run_path": str(tmp_path), "spec": spec.canonical()}
    run = run_job.RunJob(order, local_cores=1, outbox=outbox, secrets=secrets)
    monkeypatch.setattr(run, "_inputs", lambda: SimpleNamespace(spec=spec))
    run.run()
    report = outbox.next_report()
    assert (report["status"], report["end"]["status"]) == ("running", "succeeded")
    assert "sweep/best" in report["windows"]

    job_id = start(world)
    told_more = {name: value for name, value in report.items() if name not in ("seq", "end")}
    world.report(job_id, sweep={**SWEEP, "trials": 2}, **told_more)
    # The best value so far, told by itself, leaves it as it is.
    world.report(job_id, **{**told_more, "trials": []})
    progress = world.job(job_id).progress or {}
    assert (progress["fraction"], progress["trials"]["ended"]) == (0.5, 1)


@pytest.mark.parametrize(
    ("sweep", "wanted"),
    [
        (None, 1),
        ({"parameters": {"seed": {"choice": [1, 2, 3]}}}, 3),
        ({"parameters": {"seed": {"choice": [1, 2, 3]}, "task": {"choice": ["auto"]}}, "trials": 2}, 2),
        ({"parameters": {"seed": {"int_uniform": [1, 6]}}, "max_concurrent": 4}, 4),
        ({"parameters": {"seed": {"choice": [1, 2, 3]}}, "trials": 50, "algorithm": "grid"}, 3),
        ({"parameters": {"seed": {"choice": [1, 2, 3]}}, "trials": 50}, 50),
        ({"what": "an earlier release took"}, 1),
    ],
)
def test_a_sweep_wants_no_more_places_than_it_has_trials(sweep: Any, wanted: int) -> None:
    assert trials_wanted({"sweep": sweep}) == wanted


def test_a_runner_tells_of_trials_by_themselves_and_of_the_sweeps_start_as_an_event() -> None:
    from astraml_ray.control.run_job import RunJob
    from astraml_ray.control.run_secrets import RunSecrets

    spec = parse_spec({"dataset": "s3://b/d", "model": "tiny-bert"})
    secrets = RunSecrets(spec, "runner", "astraml", lambda *_: pytest.fail("it names no secret"))
    outbox = Outbox()
    order = {"stop": None, "attempts": 0, "failures": [], "run_path": "/nowhere", "spec": spec.canonical()}
    run = RunJob(order, local_cores=1, outbox=outbox, secrets=secrets)
    run._take_record({"event": "sweep_started", "message": "27 trials", "sweep": SWEEP})
    for step in (20, 40):
        run._take_record({"event": "trial", "message": f"step {step}", "trial": told(step=step)})
    report = outbox.next_report()
    assert [(event["type"], event["data"]) for event in report["events"]] == [("sweep_started", {"sweep": SWEEP})]
    assert (report["sweep"], report["status"]) == (SWEEP, "running")
    assert [one["step"] for one in report["trials"]] == [40]
