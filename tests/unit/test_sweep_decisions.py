"""Whom a sweep starts, stops and copies; and that it decides as before once it is told again what it had been told."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.schedulers import AsyncHyperBandScheduler

from astraml_ray.data.masking import Masker
from astraml_ray.errors import NumericError
from astraml_ray.spec.loading import parse_spec
from astraml_ray.spec.sweep import Distribution, Sweep
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.tuning.director import Director
from astraml_ray.tuning.journal import SWEEP_FILE, Journal, read_sweep
from astraml_ray.tuning.ledger import Ledger
from astraml_ray.tuning.places import arrange
from astraml_ray.tuning.population import Population, perturbed
from astraml_ray.tuning.pruning import Verdict, _Standing, make_pruner
from astraml_ray.tuning.space import Told, parameters_of
from astraml_ray.tuning.trials import Course, Goal, goal_of, watching

GOAL = Goal("validation/loss", lower=True)
WHOLE = 16
COURSE = Course(WHOLE, 10)


def sweep_of(**fields: Any) -> Sweep:
    parameters = {"hyperparams.lr": {"log_uniform": [1e-5, 1e-2]}}
    document = {"dataset": "d", "model": "m", "sweep": {"parameters": parameters, "trials": 12, **fields}}
    found = parse_spec(document).sweep
    assert found is not None
    return found


def decisions(sweep: Sweep, results: Iterable[tuple[int, int, float | None]], *, goal: Goal = GOAL) -> list[Verdict]:
    pruner = make_pruner(sweep, goal, WHOLE)
    return [pruner.decide(*result) for result in results]


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, int, float | None]]:
    """Evaluations of some trials as they come in: of each in order, among each other in any order."""
    trials = draw(st.integers(1, 8))
    left = dict.fromkeys(range(trials), 0)
    results = []
    value = st.one_of(st.none(), st.floats(0.01, 10.0))
    for number in draw(st.lists(st.integers(0, trials - 1), max_size=60)):
        left[number] += 1
        results.append((number, left[number], draw(value)))
    return results


@settings(max_examples=60, deadline=None)
@given(histories(), st.sampled_from(["asha", "hyperband", "median", "none"]), st.floats(0, 1), st.booleans())
def test_a_restored_pruner_decides_as_the_undisturbed_one(
    results: list[tuple[int, int, float | None]], scheduler: str, share: float, lower: bool
) -> None:
    sweep = sweep_of(scheduler=scheduler, reduction_factor=2)
    goal = Goal("validation/x", lower)
    undisturbed = decisions(sweep, results, goal=goal)
    cut = int(share * len(results))
    restored = make_pruner(sweep, goal, WHOLE)
    for number, evaluation, value in results[:cut]:
        restored.decide(number, evaluation, value)
    assert [restored.decide(*result) for result in results[cut:]] == undisturbed[cut:]


@settings(max_examples=40, deadline=None)
@given(histories())
def test_asha_is_ray_tunes_own(results: list[tuple[int, int, float | None]]) -> None:
    rule = AsyncHyperBandScheduler(
        time_attr="t", metric="v", mode="min", max_t=WHOLE, grace_period=1, reduction_factor=3, stop_last_trials=False
    )
    expected, added = [], set()
    for number, evaluation, value in results:
        trial = _Standing(f"t{number:04d}")
        if number not in added:
            added.add(number)
            rule.on_trial_add(None, trial)
        answer = rule.on_trial_result(None, trial, {"t": evaluation, "v": 1e300 if value is None else value})
        expected.append(answer == "STOP")
    assert [verdict.stop for verdict in decisions(sweep_of(reduction_factor=3), results)] == expected


def test_a_stopped_trial_says_at_which_rung_and_what_it_asked_for() -> None:
    found = decisions(sweep_of(reduction_factor=2), [(0, 1, 0.5), (1, 1, 0.9), (2, 1, 0.4), (2, 2, 0.3), (0, 2, 0.45)])
    assert [(v.stop, v.rung) for v in found] == [(False, 1), (True, 1), (False, 1), (False, 2), (True, 2)]
    assert found[1].reason == "asha_rung_1: 0.9 is worse than the 0.5 that rung 1 asks for"
    assert found[4].reason == "asha_rung_2: 0.45 is worse than the 0.3 that rung 2 asks for"
    higher = decisions(
        sweep_of(reduction_factor=2), [(0, 1, 0.8), (1, 1, 0.7)], goal=Goal("validation/accuracy", False)
    )
    assert higher[1].reason == "asha_rung_1: 0.7 is worse than the 0.8 that rung 1 asks for"
    median = [(n, e, float(n)) for e in (1, 2) for n in range(5)]
    reasons = [v.reason for v in decisions(sweep_of(scheduler="median"), median) if v.stop]
    assert reasons[0] == "median: its best, 3, is worse than 1, the median of the others so far"


def test_hyperband_gives_some_trials_a_later_first_rung() -> None:
    bad_last = [(number, 1, float(number)) for number in range(40)]
    found = decisions(sweep_of(scheduler="hyperband", reduction_factor=2, trials=40), bad_last)
    spared = [number for number, verdict in enumerate(found) if verdict.rung is None]
    assert 8 < len(spared) < 32
    assert not any(found[number].stop for number in spared)
    assert sum(verdict.stop for verdict in found) > 5


def test_optuna_suggests_the_same_for_the_same_past_and_learns_from_it() -> None:
    sweep = sweep_of(algorithm="optuna", trials=40)
    told: list[Told] = []
    for number in range(30):
        parameters = parameters_of(sweep, number, told)
        assert parameters == parameters_of(sweep, number, list(told))
        told.append(Told(parameters, -abs(parameters["hyperparams.lr"] - 3e-3), True))
    rates = [trial.parameters["hyperparams.lr"] for trial in told]
    near = [abs(rate - 3e-3) < 1.5e-3 for rate in rates]
    assert sum(near[15:]) > sum(near[:15])
    running = [*told, Told({"hyperparams.lr": 1e-3}, None, False)]
    assert 1e-5 <= parameters_of(sweep, 31, running)["hyperparams.lr"] <= 1e-2
    choices = {"augmentation": {"choice": [[], [{"type": "random_swap"}]]}, "seed": {"int_uniform": [0, 9, 4]}}
    mixed = sweep_of(algorithm="optuna", parameters=choices)
    first = parameters_of(mixed, 0, [])
    again = parameters_of(mixed, 1, [Told(first, 1.0, True)])
    assert again["augmentation"] in choices["augmentation"]["choice"]
    assert again["seed"] in (0, 4, 8)


def test_a_population_copies_the_strong_and_changes_a_little() -> None:
    sweep = sweep_of(scheduler="pbt")
    population = Population(sweep, GOAL)
    parameters = {number: {"hyperparams.lr": 10.0**-number} for number in range(2, 6)}
    for number in parameters:
        population.tell(number, float(number))
    assert population.look(2, 1, parameters) is None
    exploit = population.look(5, 1, parameters)
    assert exploit is not None
    assert exploit.donor == 2
    assert exploit == population.look(5, 1, parameters)
    assert exploit.parameters["hyperparams.lr"] != parameters[2]["hyperparams.lr"]
    assert exploit.reason == "pbt: 5 is among the worst, 2 of t0002 among the best"
    (found,) = sweep.parameters.values()
    assert perturbed(found, 1e-3, 0.9, 0.1) == pytest.approx(0.8e-3)
    assert perturbed(found, 1e-2, 0.9, 0.9) == 1e-2
    assert perturbed(found, 1e-2, 0.1, 0.5) == found.at(0.5)
    whole = Distribution(int_uniform=[3, 31, 7])
    tried = [perturbed(whole, value, 0.9, share) for value in (3, 17, 31) for share in (0.1, 0.9)]
    assert tried == [3, 3, 17, 17, 24, 31]


def director_of(sweep: Sweep, folder: Path, events: list[dict[str, Any]], *, concurrent: int = 3) -> Director:
    place, state = RunFolder(str(folder)), dict[str, Any]()
    ledger = Ledger(GOAL, cpus=1.0, gpus=0.5)
    if place.exists(SWEEP_FILE):
        state = read_sweep(place)
        ledger.restore(state)
    return Director(
        sweep,
        ledger,
        Journal(place, state),
        place,
        events.append,
        evaluations=WHOLE,
        concurrent=concurrent,
        masker=Masker({"token": "correct-horse"}),
    )


class Pretended:
    """Trials that train in no time: the loss follows from the rate and the step. Killed at any evaluation."""

    def __init__(self, sweep: Sweep, folder: Path, *, seed: int) -> None:
        self.sweep, self.folder = sweep, folder
        self.draw = random.Random(seed)
        self.running: dict[int, int] = {}
        self.saved: dict[int, int] = {}

    def run(self, *, kill_after: int | None = None) -> Director:
        """Until the end, or until so many evaluations have been answered."""
        director, answered = director_of(self.sweep, self.folder, []), 0
        self.running = {}
        while not director.is_over:
            while (number := director.next_trial()) is not None:
                director.started(number)
                self.running[number] = self.saved.get(number, 0)
            number = self.draw.choice(sorted(self.running))
            self.running[number] += 10
            step = self.saved[number] = self.running[number]
            loss = abs(director.ledger.trials[number].parameters["hyperparams.lr"] - 1e-3) + 1.0 / step
            if answered == kill_after:
                # The checkpoint is there, the answer is not: the evaluation comes again.
                self.saved[number] -= 10
                return director
            answered += 1
            if director.evaluated(number, step, step / 10, {"validation/loss": loss}, COURSE) == "stop":
                del self.running[number]
            elif step == WHOLE * 10:
                director.finished(number, "completed", step)
                del self.running[number]
        return director


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median"])
@pytest.mark.parametrize("kill_after", [1, 7, 20])
def test_a_killed_sweep_goes_on_and_neither_repeats_nor_loses_a_result(
    tmp_path: Path, scheduler: str, kill_after: int
) -> None:
    sweep = sweep_of(scheduler=scheduler, reduction_factor=2, trials=9)
    pretended = Pretended(sweep, tmp_path, seed=kill_after)
    before = pretended.run(kill_after=kill_after).ledger.to_dict()
    ended = {t["number"]: t for t in before["trials"] if t["status"] in ("succeeded", "stopped")}
    ledger = pretended.run().ledger
    assert [t.number for t in ledger.trials] == list(range(9))
    assert [t.parameters for t in ledger.trials] == [sweep.point(number) for number in range(9)]
    assert ledger.to_dict()["results"][: len(before["results"])] == before["results"]
    assert len({(found.number, found.step) for found in ledger.results}) == len(ledger.results)
    for number, trial in ended.items():
        assert ledger.to_dict()["trials"][number] == trial
    # One undisturbed pruner, told all evaluations in their order, stops the same trials at the same rungs.
    pruner = make_pruner(sweep, GOAL, WHOLE)
    stopped = {}
    for found in ledger.results:
        verdict = pruner.decide(found.number, found.evaluation, found.value)
        if verdict.stop and found.evaluation < WHOLE:
            stopped[found.number] = verdict.reason
    assert stopped == {t.number: t.reason for t in ledger.trials if t.status == "stopped"}


def test_an_evaluation_that_comes_again_is_not_judged_again(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    director = director_of(sweep_of(reduction_factor=2), tmp_path, events)
    first, second = director.next_trial(), director.next_trial()
    assert (first, second) == (0, 1)
    for number in (0, 1):
        director.started(number)
    assert director.evaluated(0, 10, 1.0, {"validation/loss": 0.5}, COURSE) == "continue"
    assert director.evaluated(0, 10, 1.0, {"validation/loss": 0.4}, COURSE) == "continue"
    assert director.ledger.trials[0].metric == 0.5
    assert director.evaluated(1, 10, 1.0, {"validation/loss": float("inf")}, COURSE) == "stop"
    told = [event["trial"] for event in events][-1]
    assert (told["status"], told["rung"], told["metric"], told["history"]) == ("stopped", 1, None, [[10, None]])
    assert told["reason"] == "asha_rung_1: nothing finite is worse than the 0.5 that rung 1 asks for"
    assert told["gpu_seconds"] == pytest.approx(told["seconds"] / 2, abs=0.001)
    assert set(told) == {
        *("trial_id", "number", "status", "parameters", "metric", "best_metric", "best_step", "step", "epoch", "rung"),
        *("reason", "error", "run_path", "started_at", "ended_at", "seconds", "gpu_seconds", "cpu_seconds"),
        *("history", "parent"),
    }
    json.dumps(told, allow_nan=False)


def test_who_copies_has_the_values_of_the_copied_weights_and_the_best_never_copies(tmp_path: Path) -> None:
    director = director_of(sweep_of(scheduler="pbt", trials=4), tmp_path, [], concurrent=4)
    trials = director.ledger.trials
    for number in range(4):
        assert director.next_trial() == number
        director.started(number)

    def told(number: int, step: int, loss: float) -> str:
        return director.evaluated(number, step, step / 10, {"validation/loss": loss}, COURSE)

    assert [told(0, 10, 0.5), told(1, 10, 0.2), told(2, 10, 0.3)] == ["continue"] * 3
    # The worst now, and yet nobody has been better: its weights are the sweep's so far.
    assert told(1, 20, 0.9) == "continue"
    assert told(3, 10, 2.0) == "pause"
    assert (trials[3].parent, trials[3].best_metric, trials[3].best_step) == (2, 0.3, 10)
    assert director.ledger.best() is trials[1]
    # Whom another waits to copy keeps its weights until then, and nobody copies what is not there yet.
    assert told(2, 20, 3.0) == "pause"
    assert (trials[2].parent, trials[2].best_metric) == (None, 0.3)
    director.resume(3)
    director.resume(2)
    assert told(0, 20, 0.1) == "continue"
    assert told(3, 20, 0.4) == "continue"
    assert told(2, 30, 3.0) == "pause"
    assert (trials[2].parent, trials[2].best_metric, trials[2].best_step) == (0, 0.1, 20)
    director.resume(2)
    assert told(2, 40, 0.7) == "continue"
    assert director.ledger.best() is trials[0]
    again = director_of(sweep_of(scheduler="pbt", trials=4), tmp_path, []).ledger
    assert again.to_dict()["trials"][3]["copied"] == {"donor": 2, "step": 10, "count": 1}


def test_a_sweep_of_failures_is_hopeless_and_one_success_is_hope(tmp_path: Path) -> None:
    director = director_of(sweep_of(), tmp_path, [])
    error = NumericError("the loss is not finite", hint="lower lr").as_dict()
    for number in range(3):
        assert director.hopeless() is None
        assert director.next_trial() == number
        director.started(number)
        director.failed(number, error)
    found = director.hopeless()
    assert isinstance(found, NumericError)
    assert "all 3 trials that ended have failed; t0000: the loss is not finite" in str(found)
    assert director.next_trial() == 3
    director.started(3)
    director.finished(3, "completed", 160)
    assert director.hopeless() is None


def test_no_secret_of_a_trials_error_is_written_or_told(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    director = director_of(sweep_of(), tmp_path, events)
    for number in range(3):
        director.next_trial()
        director.started(number)
        error = NumericError("denied to correct-horse", param="s3://correct-horse@b", hint="ask").as_dict()
        director.failed(number, error)
    director.close(None)
    written = "".join(file.read_text() for file in tmp_path.rglob("*.json"))
    assert "denied to ***" in written
    for text in (written, json.dumps([*events, director.records()]), str(director.hopeless())):
        assert "correct-horse" not in text


def test_a_sweep_says_why_it_ends(tmp_path: Path) -> None:
    unbounded = director_of(sweep_of(trials=2), tmp_path / "a", [])
    assert unbounded.next_trial() == 0
    unbounded.started(0)
    assert unbounded.end_reason(None) is None
    assert (unbounded.end_reason("keep_best"), unbounded.end_reason("now")) == ("stopped_keep_best", "stopped")
    # Between two trials nothing runs that could be told to stop.
    unbounded.finished(0, "completed", 160)
    assert unbounded.end_reason("keep_best") == "stopped_keep_best"
    unbounded.next_trial()
    unbounded.started(1)
    unbounded.finished(1, "completed", 160)
    assert [unbounded.end_reason(mode) for mode in (None, "keep_best")] == ["completed"] * 2
    bounded = director_of(sweep_of(trials=1, budget={"time": "0.001s"}), tmp_path / "b", [])
    bounded.next_trial()
    bounded.started(0)
    time.sleep(0.002)
    assert bounded.end_reason(None) == "budget_used"
    bounded.close("budget_used")
    assert director_of(sweep_of(trials=1), tmp_path / "b", []).end_reason(None) == "budget_used"


def test_a_budget_and_the_order_of_places(tmp_path: Path) -> None:
    director = director_of(sweep_of(budget={"time": "0.001s"}), tmp_path, [], concurrent=2)
    assert [director.next_trial() for _ in range(3)] == [0, 1, None]
    director.started(0)
    director.evaluated(0, 10, 1.0, {"validation/loss": 0.5}, COURSE)
    assert director.used_up()
    assert director.end_reason(None) == "budget_used"
    director.close("budget_used")
    assert [(t.status, t.reason) for t in director.ledger.trials] == [("stopped", "budget_used")] * 2
    best = director.ledger.best()
    assert best is not None
    assert best.number == 0


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("cpus", [2.0, 4.0, 8.0])
@pytest.mark.parametrize("wanted", [None, 1, 50])
def test_places_always_fit_the_cluster(workers: int, cpus: float, wanted: int | None) -> None:
    spec = parse_spec({"dataset": "d", "model": "m", "resources": {"gpus": 0, "workers": workers}})
    for cores in (None, 2):
        placement, concurrent = arrange(
            sweep_of(max_concurrent=wanted), spec.resources, cpus=cpus, gpus=0.0, local_cores=cores
        )
        data = 0.25 if workers > 1 else 0.0
        assert concurrent >= 1
        assert placement.cpus_per_worker * workers * concurrent + data <= cpus
        assert wanted is None or concurrent <= wanted


def test_trials_watch_the_sweeps_metric() -> None:
    base = {"dataset": "d", "model": "m"}
    parameters = {"seed": {"choice": [1, 2]}}
    plain = parse_spec({**base, "sweep": {"parameters": parameters}})
    assert goal_of(plain) == GOAL
    by_accuracy = parse_spec({**base, "sweep": {"parameters": parameters, "metric": "validation/accuracy"}})
    assert goal_of(by_accuracy) == Goal("validation/accuracy", False)
    rule = watching(by_accuracy, goal_of(by_accuracy)).hyperparams.early_stopping
    assert rule is not None
    assert (rule.monitor, rule.mode, rule.patience) == ("validation/accuracy", "max", 5)
    never = {"early_stopping": None}
    without = parse_spec({**base, "hyperparams": never, "sweep": {"parameters": parameters}})
    assert watching(without, goal_of(without)).hyperparams.early_stopping is None
    watched = {"early_stopping": {"monitor": "validation/f1_macro"}}
    by_monitor = parse_spec({**base, "hyperparams": watched, "sweep": {"parameters": parameters}})
    assert goal_of(by_monitor) == Goal("validation/f1_macro", False)
