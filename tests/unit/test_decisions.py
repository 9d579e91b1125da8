"""The pure decisions: batching, placement, retries, early stopping, warnings."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest

from astraml_ray import errors
from astraml_ray.cli import run
from astraml_ray.errors import (
    AstraError,
    DataError,
    InfrastructureError,
    MemoryExhaustedError,
    Problem,
    ResourcesError,
    SpecError,
)
from astraml_ray.settings import load_settings
from astraml_ray.spec import EarlyStopping
from astraml_ray.spec.job import Resources
from astraml_ray.spec.loading import parse_spec
from astraml_ray.spec.placement import place
from astraml_ray.training.advice import advise
from astraml_ray.training.batching import cut_by_length
from astraml_ray.training.early_stopping import Patience
from astraml_ray.training.failures import AttemptFailure, Decision, classify, decide, divisor_after, error_class


def cost(lengths: np.ndarray, groups: list[np.ndarray], overhead: int) -> int:
    return sum(len(g) * int(lengths[g].max()) + overhead for g in groups)


def brute_force(lengths: np.ndarray, overhead: int) -> int:
    order = np.argsort(-lengths)
    best = None
    for count in range(len(order)):
        for cuts in itertools.combinations(range(1, len(order)), count):
            groups = np.split(order, cuts)
            best = min(best or 10**9, cost(lengths, groups, overhead))
    return best or 0


@pytest.mark.parametrize(("seed", "overhead"), itertools.product(range(8), [0, 5, 50, 10_000]))
def test_cutting_by_length_is_optimal_and_keeps_every_row(seed: int, overhead: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 40, 9)
    groups = cut_by_length(lengths, overhead, 100)
    assert sorted(np.concatenate(groups).tolist()) == list(range(9))
    assert cost(lengths, groups, overhead) == brute_force(lengths, overhead)


def test_cutting_respects_the_largest_group() -> None:
    lengths = np.full(100, 7)
    groups = cut_by_length(lengths, 0, 32)
    assert max(len(g) for g in groups) <= 32
    assert sum(len(g) for g in groups) == 100


@pytest.mark.parametrize(
    ("resources", "cpus", "gpus", "expected"),
    [
        ({"gpus": 0}, 4, 0, (1, 0, 1.0)),
        ({}, 4, 0, (1, 0, 1.0)),
        ({}, 16, 2, (1, 1, 1.0)),
        ({"workers": 2}, 16, 2, (2, 1, 1.0)),
        ({"workers": 3}, 16, 2, (3, 0, 1.0)),
        ({"gpus": 2}, 16, 2, (2, 1, 1.0)),
        ({"gpus": 0, "workers": 2}, 2, 0, (2, 0, 0.5)),
        ({"gpus": 0, "workers": 2}, 1, 0, (2, 0, 0.25)),
        ({"gpus": 0, "workers": 3}, 64, 0, (3, 0, 1.0)),
        ({"gpus": 0, "cpus_per_worker": 4}, 8, 0, (1, 0, 4.0)),
    ],
)
def test_placement_leaves_room_for_the_data(
    resources: dict[str, int], cpus: float, gpus: float, expected: tuple[int, int, float]
) -> None:
    found = place(Resources(**resources), cpus=cpus, gpus=gpus, local_cores=None)  # type: ignore[arg-type]
    assert (found.workers, found.gpus_per_worker, found.cpus_per_worker) == expected


def test_what_does_not_fit_says_what_would() -> None:
    with pytest.raises(ResourcesError, match=r"needs 1 GPU; the cluster has 0") as caught:
        place(Resources(gpus=1), cpus=4, gpus=0, local_cores=None)
    assert "resources.gpus=0" in (caught.value.hint or "")
    with pytest.raises(ResourcesError, match="more than the cluster's 4 CPUs"):
        place(Resources(gpus=0, workers=2, cpus_per_worker=2), cpus=4, gpus=0, local_cores=None)


def test_threads_follow_the_cores_of_a_local_run() -> None:
    assert place(Resources(gpus=0, workers=2), cpus=10, gpus=0, local_cores=8).threads == 4
    assert place(Resources(gpus=0, threads_per_worker=3), cpus=10, gpus=0, local_cores=8).threads == 3


class _Wrapped(Exception):
    def __init__(self, failures: dict[int, Exception]) -> None:
        super().__init__("training failed")
        self.worker_failures = failures


def test_the_most_telling_error_of_all_workers_wins() -> None:
    broken, damaged = RuntimeError("gloo: connection closed by peer"), DataError("is damaged", param="s3://b/k")
    assert classify(_Wrapped({0: broken, 1: damaged})) is damaged
    assert classify(_Wrapped({0: InfrastructureError("x"), 1: damaged})) is damaged
    assert isinstance(classify(_Wrapped({0: broken})), InfrastructureError)
    died = RuntimeError("The actor died: (1) The process is killed by SIGKILL by OOM killer due to high memory usage.")
    assert isinstance(classify(_Wrapped({0: died})), InfrastructureError)
    low = RuntimeError("Task was killed due to the node running low on memory.")
    assert isinstance(classify(_Wrapped({0: low, 1: broken})), MemoryExhaustedError)
    unknown = classify(_Wrapped({0: KeyError("who knows")}))
    assert type(unknown) is AstraError
    assert not unknown.retryable


class WorkerHealthCheckFailedError(Exception):
    """Named as Ray names a worker that was killed."""


class ActorDiedError(Exception):
    """Named as Ray names an actor that was killed."""


def told(rank: int, error: Exception) -> dict[str, object]:
    code = error.code if isinstance(error, AstraError) else None
    return {"rank": rank, "at": 0.0, "error": {"code": code, "message": str(error)}}


def test_the_worker_that_failed_first_is_named() -> None:
    lost, damaged = RuntimeError("gloo: connection closed by peer"), DataError("is damaged")
    # Rank 2 failed, and the others for want of it: told in that order.
    first = classify(_Wrapped({0: lost, 2: damaged}), [told(2, damaged), told(0, lost)], world_size=4)
    assert (first, first.rank, first.as_dict()["rank"]) == (damaged, 2, 2)
    both = classify(
        _Wrapped({0: DataError("a"), 1: DataError("b")}), [told(1, damaged), told(0, damaged)], world_size=2
    )
    assert both.rank == 1
    # Rank 1 was killed: it said nothing, and rank 0 only lost its connection.
    killed = WorkerHealthCheckFailedError("A worker health check failed. The actor is dead: its process has died.")
    error = classify(_Wrapped({0: lost, 1: killed}), [told(0, lost)], world_size=2)
    assert (type(error), error.rank) == (InfrastructureError, 1)
    assert error.message == "worker 1 failed: its process was killed, or crashed"
    needed = ActorDiedError("The actor is dead because its worker process has died. And so on.")
    told_so = classify(_Wrapped({1: needed}), [told(1, needed)], world_size=2)
    assert told_so.message == "worker 1 failed: a process that it needs was killed, or crashed"
    assert classify(needed).message == "the run's controller failed: its process was killed, or crashed"
    # Ray had not noticed yet, but only one has said nothing.
    assert classify(_Wrapped({0: lost}), [told(0, lost)], world_size=2).rank == 1
    assert classify(_Wrapped({0: lost}), [told(0, lost)], world_size=4).rank is None
    assert classify(_Wrapped({3: KeyError("x")}), [told(3, KeyError("x"))], world_size=4).rank == 3
    assert classify(RuntimeError("actor died")).rank is None
    assert pickle.loads(pickle.dumps(error)).rank == 1


def test_memory_that_ran_out_is_told_however_it_is_said() -> None:
    for said in (
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: 12"),
        OSError("Cannot allocate memory"),
    ):
        assert isinstance(classify(_Wrapped({0: said})), MemoryExhaustedError)


def after(error: AstraError, *failures: tuple[int, int | None] | AttemptFailure, **settings: int) -> Decision:
    """The decision after failures, each of a checkpoint's step and the last step reported."""
    history = [f if isinstance(f, AttemptFailure) else AttemptFailure(error.code, error.message, *f) for f in failures]
    return decide(error, history, **{"max_retries": 3, "micro_rows": 32, **settings})


def test_retries_back_off_and_count_failures_without_progress() -> None:
    lost = InfrastructureError("a worker died")
    decisions = [after(lost, *[(7, None)] * n) for n in (1, 2, 3, 4)]
    assert [d.delay_s for d in decisions] == [1.0, 2.0, 4.0, 0.0]
    assert [d.retry for d in decisions] == [True, True, True, False]
    assert "going on from step 7 in 1 s" in decisions[0].message
    assert "4 failures in a row without progress beyond step 7: a worker died" in decisions[3].message
    assert after(lost, (1, 3), (2, 4), (3, 5), (4, 6), (5, 7), max_retries=1).delay_s == 1.0
    assert after(lost, *[(7, None)] * 40, max_retries=100).delay_s == 60.0
    for user in (DataError("bad"), ResourcesError("small"), AstraError("ours"), errors.NumericError("nan")):
        decision = after(user, (0, 3))
        assert (decision.retry, decision.reason) == (False, user.code)


def test_the_pause_varies_so_that_many_do_not_return_together() -> None:
    history = [AttemptFailure("infrastructure", "x", 0)] * 3
    pauses = [
        decide(InfrastructureError("x"), history, max_retries=9, micro_rows=1, jitter=j).delay_s
        for j in (0.0, 0.5, 1.0)
    ]
    assert pauses == [3.0, 4.0, 5.0]


def test_the_same_failure_twice_at_a_step_that_was_worked_for_is_the_last() -> None:
    lost = InfrastructureError("worker 1 failed: actor 7097f732c7f9cd died at 10:31")
    again = AttemptFailure("infrastructure", "worker 1 failed: actor a9e0c0ffee11 died at 10:32", 20, 44)
    twice = after(lost, again, (20, 44))
    assert (twice.retry, twice.reason) == (False, "repeated_failure")
    assert "twice at step 44" in twice.message
    assert after(lost, again, (20, 45)).retry
    assert after(lost, AttemptFailure("infrastructure", "the storage failed", 20, 44), (20, 44)).retry
    assert after(lost, AttemptFailure("out_of_memory", again.message, 20, 44), (20, 44)).retry
    # Where the attempt began and reported nothing new, nothing was worked for: max_retries is for that.
    assert after(lost, AttemptFailure("infrastructure", again.message, 44, 44), (44, 44)).retry
    assert after(lost, (0, None), (0, None)).retry


def test_memory_that_ran_out_halves_the_micro_batch_down_to_one_row() -> None:
    exhausted = MemoryExhaustedError("step 3 did not fit into memory", param="/hyperparams/batch_size")
    first = after(exhausted, (0, 2), max_retries=0)
    assert (first.retry, first.delay_s, first.divisor) == (True, 0.0, 2)
    assert "micro-batch 32 → 16 rows, accumulation 1 → 2; the effective batch stays 32" in first.message
    second = after(exhausted, (0, 2), (0, 2), max_retries=0, accumulation=4)
    assert second.divisor == 4
    assert "micro-batch 16 → 8 rows, accumulation 8 → 16; the effective batch stays 128" in second.message
    tries = 0
    while after(exhausted, *[(0, 2)] * (tries + 1)).retry:
        tries += 1
    assert tries == 5  # 16, 8, 4, 2, 1
    last = after(exhausted, *[(0, 2)] * 6)
    assert (last.divisor, last.reason) == (32, "out_of_memory")
    assert "a single row" in last.message
    # Three workers have 4, 3 and 3 of 10 rows: halved twice, each has one at a time.
    assert [after(exhausted, *[(0, 2)] * n, micro_rows=10, workers=3).retry for n in (1, 2, 3)] == [True, True, False]


def test_what_is_too_big_by_itself_is_not_tried_again() -> None:
    assert not after(MemoryExhaustedError("the model did not fit", param="/model"), (0, None)).retry


def test_the_divisor_follows_from_the_history_and_stays_after_other_failures() -> None:
    exhausted = AttemptFailure("out_of_memory", "m", 0, 1)
    lost = AttemptFailure("infrastructure", "x", 5, 9)
    assert [divisor_after([exhausted] * n) for n in range(4)] == [1, 2, 4, 8]
    assert divisor_after([exhausted, lost, exhausted]) == 4
    decision = decide(InfrastructureError("x"), [exhausted, lost], max_retries=1, micro_rows=32)
    assert (decision.retry, decision.divisor) == (True, 2)
    # A smaller micro-batch was an answer: it does not use up the retries.
    at_start = AttemptFailure("infrastructure", "x", 0)
    assert decide(InfrastructureError("x"), [exhausted, exhausted, at_start], max_retries=1, micro_rows=32).retry


def test_errors_have_a_class_that_says_whose_fault_they_are() -> None:
    kinds = [errors.SpecError([]), DataError("d"), ResourcesError("r"), errors.StorageError("s"), AstraError("?")]
    assert [error_class(kind) for kind in kinds] == ["request", "data", "infrastructure", "storage", "internal"]


@pytest.mark.parametrize("name", [n for n in errors.__all__ if n.endswith(("Error", "Stopped"))])
def test_errors_cross_process_boundaries_whole(name: str) -> None:
    kind = getattr(errors, name)
    error = (
        kind([Problem("/a", "is wrong", "mend it")]) if kind is SpecError else kind("what", param="where", hint="do")
    )
    error.rank = 3
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is kind
    assert str(twin) == str(error)
    assert twin.as_dict() == error.as_dict()


def test_patience_by_mode_delta_and_nan() -> None:
    down, up = EarlyStopping(patience=2, min_delta=0.1), EarlyStopping(monitor="validation/accuracy", patience=2)
    state = Patience().after(1.0, 1, down).after(0.95, 2, down).after(0.8, 3, down)
    assert (state.best, state.best_step, state.waited) == (0.8, 3, 0)
    assert state.after(float("nan"), 4, down).waited == 1
    assert Patience().after(0.5, 1, up).after(0.6, 2, up).best == 0.6
    assert Patience(0.5, 1, 2).exhausted(down)
    assert not Patience(0.5, 1, 99).exhausted(None)


@pytest.mark.parametrize(
    ("fields", "train_rows", "pointer"),
    [
        (
            {"hyperparams": {"epochs": 1, "early_stopping": {"patience": 4}}},
            1000,
            "/hyperparams/early_stopping/patience",
        ),
        ({"hyperparams": {"epochs": 5, "eval_every": "1 epochs"}}, 1000, "/hyperparams/early_stopping/patience"),
        ({"hyperparams": {"warmup_steps": 10_000}}, 1000, "/hyperparams/warmup_steps"),
        ({"hyperparams": {"batch_size": 2000}}, 1000, "/hyperparams/batch_size"),
    ],
)
def test_settings_that_cannot_work_are_named(fields: dict[str, object], train_rows: int, pointer: str) -> None:
    spec = parse_spec({"dataset": "d", "model": "m", **fields})
    assert pointer in [w.param for w in advise(spec, train_rows=train_rows, validation_rows=100)]


def test_a_schedule_is_told_to_be_for_the_service_where_a_spec_is_run_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "stop_on_signals", lambda stop: None)
    monkeypatch.setattr(run, "apply_ray_environment", lambda: None)
    spec = parse_spec({"dataset": str(tmp_path / "none"), "model": "tiny-bert", "schedule": {"cron": "0 * * * *"}})
    with pytest.raises(DataError):
        run.train_spec(spec, str(tmp_path), load_settings())
    assert "/schedule is for the service" in capsys.readouterr().err
    unscheduled = advise(spec, train_rows=5000, validation_rows=100)
    assert unscheduled == []


def test_rows_longer_than_the_context_are_told() -> None:
    spec = parse_spec({"dataset": "d", "model": "m"})
    (warning,) = advise(spec, train_rows=5000, validation_rows=100, truncated_share=0.25)
    assert warning.param == "/hyperparams/max_length"
    assert "25.0%" in warning.message


def test_the_reference_settings_give_no_warning() -> None:
    spec = parse_spec({"dataset": "d", "model": "m"})
    assert advise(spec, train_rows=5000, validation_rows=100) == []
