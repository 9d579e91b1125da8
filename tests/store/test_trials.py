"""Trials: a row each, written again and again; in pages of two orders, counted, added up, closed with their job."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from astraml_ray.errors import TrialNotFoundError
from astraml_ray.spec.states import JobStatus
from astraml_ray.store.engine import Store
from astraml_ray.store.jobs import change_status
from astraml_ray.store.trials import (
    TRIAL_STATUSES,
    Cost,
    SweepRecord,
    TrialRecord,
    TrialSort,
    best_trial,
    close_trials,
    cost_of,
    count_trials,
    find_sweep,
    find_trial,
    get_trial,
    list_trials,
    save_sweep,
    save_trial,
    sort_key,
)
from tests.store.conftest import NOW


def trial(job_id: str, number: int, **given: Any) -> TrialRecord:
    values: dict[str, Any] = {"status": "running", "parameters": {"hyperparams.lr": 10.0**-number}, "history": []}
    return TrialRecord(job_id, f"t{number:04}", number, **{**values, **given})


def fill(store: Store, job_id: str, values: list[float | None], *, mode: str | None, **given: Any) -> None:
    with store.write() as conn:
        for number, value in enumerate(values):
            save_trial(conn, trial(job_id, number, best_metric=value, **given), mode=mode)


def paged(store: Store, job_id: str, sort: TrialSort, size: int, **given: Any) -> list[str]:
    found: list[str] = []
    after = None
    while True:
        with store.read() as conn:
            page = list_trials(conn, job_id, sort=sort, after=after, limit=size, **given)
        found += [one.trial_id for one in page]
        if len(page) < size:
            return found
        after = sort_key(page[-1], sort)


def test_a_trial_comes_back_as_it_was_and_has_one_row(store: Store, job_id: str) -> None:
    whole = trial(
        job_id,
        3,
        status="stopped",
        parameters={"hyperparams.lr": 3e-4, "model.name": "bert-base", "hyperparams.early_stopping": {"patience": 2}},
        metric=0.71,
        best_metric=0.73,
        best_step=80,
        step=120,
        epoch=1.5,
        rung=1,
        reason="asha_rung_1: 0.71 is worse than the 0.80 that rung 1 asks for",
        error={"code": "numeric"},
        run_path="s3://b/runs/x/t0003",
        parent="t0001",
        started_at=NOW,
        ended_at=NOW + 60,
        seconds=60.5,
        gpu_seconds=60.5,
        cpu_seconds=121.0,
        history=[[40, 0.5], [80, 0.73], [120, 0.71]],
    )
    with store.write() as conn:
        save_trial(conn, trial(job_id, 3), mode="max")
        save_trial(conn, whole, mode="max")
    with store.read() as conn:
        assert get_trial(conn, job_id, "t0003") == TrialRecord(**{**vars(whole), "score": -0.73})
        assert len(list_trials(conn, job_id, limit=10)) == 1
        assert find_trial(conn, job_id, "t0004") is None
        with pytest.raises(TrialNotFoundError, match="t0004"):
            get_trial(conn, job_id, "t0004")


def test_what_no_database_takes_is_stored_as_null(store: Store, job_id: str) -> None:
    odd = {"metric": math.nan, "best_metric": math.inf, "history": [[1, math.nan]], "reason": "half \ud800 and \0"}
    with store.write() as conn:
        save_trial(conn, trial(job_id, 0, **odd, parameters={"name": "\0"}), mode="min")
    with store.read() as conn:
        found = get_trial(conn, job_id, "t0000")
        assert best_trial(conn, job_id) is None
    assert (found.metric, found.best_metric, found.history) == (None, None, [[1, None]])
    assert found.parameters == {"name": "\ufffd"}
    assert "\0" not in str(found.reason)


@pytest.mark.parametrize("size", [1, 3, 7, 100])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_pages_hold_every_trial_once_in_both_orders(store: Store, job_id: str, mode: str, size: int) -> None:
    chance = random.Random(size)
    values = [chance.choice([None, 0.5, -0.25, chance.random()]) for _ in range(23)]
    fill(store, job_id, values, mode=mode)

    def rank(number: int) -> tuple[bool, float, int]:
        value = values[number]
        return (value is None, 0.0 if value is None else value if mode == "min" else -value, number)

    assert paged(store, job_id, "number", size) == [f"t{number:04}" for number in range(23)]
    assert paged(store, job_id, "metric", size) == [f"t{number:04}" for number in sorted(range(23), key=rank)]


def test_a_page_of_some_states_and_without_histories(store: Store, job_id: str) -> None:
    fill(store, job_id, [0.1, 0.2, 0.3], mode="min", history=[[1, 0.5]])
    with store.write() as conn:
        save_trial(conn, trial(job_id, 1, status="failed"), mode="min")
    assert paged(store, job_id, "number", 1, status=["running"]) == ["t0000", "t0002"]
    assert paged(store, job_id, "metric", 5, status=["failed", "pending"]) == ["t0001"]
    with store.read() as conn:
        assert list_trials(conn, job_id, limit=1)[0].history == [[1, 0.5]]
        assert list(list_trials(conn, job_id, limit=1, with_history=False)[0].history) == []


def test_the_best_one_is_of_the_sweeps_mode_and_has_not_failed(store: Store, job_id: str) -> None:
    fill(store, job_id, [None, 0.9, 0.1, 0.9], mode=None)
    with store.write() as conn:
        assert best_trial(conn, job_id).trial_id == "t0002"  # type: ignore[union-attr]
        # What it is after came later than its trials.
        save_sweep(conn, SweepRecord(job_id, "validation/accuracy", "max", 27, "tpe", "asha"))
        assert best_trial(conn, job_id).trial_id == "t0001"  # type: ignore[union-attr]
        save_trial(conn, trial(job_id, 1, status="failed", best_metric=0.9), mode="max")
        assert best_trial(conn, job_id).trial_id == "t0003"  # type: ignore[union-attr]
        assert find_sweep(conn, job_id) == SweepRecord(job_id, "validation/accuracy", "max", 27, "tpe", "asha")
        assert find_sweep(conn, "none") is None


def test_counts_and_costs_are_of_one_job(store: Store, make_job: Callable[..., str]) -> None:
    mine, other = make_job(), make_job()
    fill(store, other, [0.5], mode="min", seconds=1e6)
    with store.read() as conn:
        assert count_trials(conn, mine) == dict.fromkeys(TRIAL_STATUSES, 0)
        assert cost_of(conn, mine) == Cost(0.0, 0.0, 0.0)
    for number, status in enumerate(["pending", "running", "stopped", "stopped"]):
        with store.write() as conn:
            record = trial(mine, number, status=status, seconds=10.0, gpu_seconds=2.5, cpu_seconds=20.0)
            save_trial(conn, record, mode="min")
    with store.read() as conn:
        assert count_trials(conn, mine) == {
            **dict.fromkeys(TRIAL_STATUSES, 0),
            "pending": 1,
            "running": 1,
            "stopped": 2,
        }
        assert cost_of(conn, mine) == Cost(40.0, 10.0, 80.0)


def test_a_jobs_end_closes_its_trials(store: Store, make_job: Callable[..., str]) -> None:
    mine, other = make_job(), make_job()
    for job_id in (mine, other):
        fill(store, job_id, [0.5, 0.6], mode="min", started_at=NOW)
    with store.write() as conn:
        save_trial(conn, trial(mine, 1, status="succeeded", best_metric=0.6, ended_at=NOW + 1), mode="min")
        change_status(conn, mine, JobStatus.CANCELLED, reason="cancelled", message="by ana", now=NOW + 9)
    with store.read() as conn:
        ended = list_trials(conn, mine, limit=5)
        assert [(t.status, t.reason, t.ended_at) for t in ended] == [
            ("cancelled", "by ana", NOW + 9),
            ("succeeded", None, NOW + 1),
        ]
        assert count_trials(conn, other)["running"] == 2
    with store.write() as conn:
        close_trials(conn, mine, reason="again", now=NOW + 99)
        assert list_trials(conn, mine, limit=5) == ended
