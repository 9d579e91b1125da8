"""Stopping, and how far a run is: both are read by others while it goes on."""

from __future__ import annotations

import json
import threading

import pytest

from astraml_ray.training.progress import ProgressTracker
from astraml_ray.training.stop import Stop


def tracker(**settings: int | None) -> ProgressTracker:
    base: dict[str, int | None] = {"steps_per_epoch": 50, "epochs": 4, "eval_steps": 10, "patience": 3}
    return ProgressTracker(total_steps=200, **{**base, **settings})  # type: ignore[arg-type]


def test_now_overrides_keep_best_and_never_the_other_way_round() -> None:
    stop = Stop()
    assert (stop.mode, stop.is_set(), stop.wait(0.01)) == (None, False, False)
    stop.request("keep_best")
    assert (stop.mode, stop.is_set(), stop.wait(5.0)) == ("keep_best", True, True)
    stop.set()
    assert stop.mode == "now"
    stop.request("keep_best")
    assert stop.mode == "now"


def test_a_stop_wakes_who_waits_for_it() -> None:
    stop, woken = Stop(), threading.Event()
    threading.Thread(target=lambda: stop.wait(60.0) and woken.set(), daemon=True).start()
    stop.request()
    assert woken.wait(30.0)


def test_nothing_is_known_before_the_second_record() -> None:
    run = tracker()
    assert run.snapshot() == {
        "step": 0,
        "total_steps": 200,
        "epoch": 0.0,
        "epochs": 4,
        "fraction": 0.0,
        "eta_s": None,
        "early_stopping": {"waited": 0, "patience": 3},
        "metrics": {},
    }
    run.add({"step": 1, "epoch": 0.02, "train/loss": 2.0}, 100.0)
    assert run.snapshot()["eta_s"] is None


def test_the_end_is_between_early_stopping_and_the_last_step() -> None:
    run = tracker()
    for step in range(1, 26):
        run.add({"step": step, "epoch": step / 50, "train/loss": 1.0 / step}, 100.0 + 2.0 * step)
    found = run.snapshot()
    assert (found["step"], found["epoch"], found["fraction"]) == (25, 0.5, 0.125)
    # Three evaluations without gain are at steps 30, 40 and 50.
    assert found["eta_s"] == [pytest.approx(50.0), pytest.approx(350.0)]
    run.add({"step": 30, "validation/loss": 0.5, "early_stopping/waited": 2}, 160.0)
    found = run.snapshot()
    assert found["early_stopping"] == {"waited": 2, "patience": 3}
    assert found["eta_s"] == [pytest.approx(20.0), pytest.approx(340.0)]
    assert found["metrics"] == {"train/loss": 0.04, "validation/loss": 0.5}
    assert json.loads(json.dumps(found)) == found


def test_without_early_stopping_there_is_one_end() -> None:
    run = tracker(patience=None)
    run.add({"step": 10}, 0.0)
    run.add({"step": 20}, 10.0)
    assert run.snapshot()["eta_s"] == [180.0, 180.0]
    assert run.snapshot()["early_stopping"] is None
    run.add({"step": 200}, 190.0)
    assert (run.snapshot()["eta_s"], run.snapshot()["fraction"]) == ([0.0, 0.0], 1.0)


def test_the_time_between_two_attempts_does_not_count() -> None:
    run = tracker(patience=None)
    run.add({"step": 10}, 0.0)
    run.add({"step": 30}, 20.0)
    run.add({"event": "attempt_started", "step": 20, "message": "…"}, 500.0)
    assert run.snapshot()["step"] == 30
    run.add({"step": 21}, 1000.0)
    assert run.snapshot()["eta_s"] is None
    run.add({"step": 31}, 1005.0)
    assert run.snapshot()["eta_s"] == [pytest.approx(84.5), pytest.approx(84.5)]
