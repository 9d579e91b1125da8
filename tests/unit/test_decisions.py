"""The pure decisions: batching, placement, retries, early stopping, warnings."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest

from astraml_ray import errors
from astraml_ray.errors import (
    AstraError,
    DataError,
    InfrastructureError,
    MemoryExhaustedError,
    Problem,
    ResourcesError,
    SpecError,
)
from astraml_ray.spec import EarlyStopping
from astraml_ray.spec.job import Resources
from astraml_ray.spec.loading import parse_spec
from astraml_ray.training.advice import advise
from astraml_ray.training.batching import cut_by_length
from astraml_ray.training.early_stopping import Patience
from astraml_ray.training.failures import classify, retry_delay_s
from astraml_ray.training.placement import place


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


def test_retries_back_off_and_count_failures_without_progress() -> None:
    lost = InfrastructureError("a worker died")
    assert [retry_delay_s(lost, [7] * n, max_retries=3) for n in (1, 2, 3, 4)] == [1.0, 2.0, 4.0, None]
    assert retry_delay_s(lost, [1, 2, 3, 4, 5], max_retries=1) == 1.0
    assert retry_delay_s(DataError("bad"), [0], max_retries=3) is None
    assert retry_delay_s(ResourcesError("small"), [0], max_retries=3) is None


@pytest.mark.parametrize("name", [n for n in errors.__all__ if n.endswith(("Error", "Stopped"))])
def test_errors_cross_process_boundaries_whole(name: str) -> None:
    kind = getattr(errors, name)
    error = (
        kind([Problem("/a", "is wrong", "mend it")]) if kind is SpecError else kind("what", param="where", hint="do")
    )
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
        ({"schedule": {"cron": "0 * * * *"}}, 1000, "/schedule"),
    ],
)
def test_settings_that_cannot_work_are_named(fields: dict[str, object], train_rows: int, pointer: str) -> None:
    spec = parse_spec({"dataset": "d", "model": "m", **fields})
    assert pointer in [w.param for w in advise(spec, train_rows=train_rows, validation_rows=100)]


def test_rows_longer_than_the_context_are_told() -> None:
    spec = parse_spec({"dataset": "d", "model": "m"})
    (warning,) = advise(spec, train_rows=5000, validation_rows=100, truncated_share=0.25)
    assert warning.param == "/hyperparams/max_length"
    assert "25.0%" in warning.message


def test_the_reference_settings_give_no_warning() -> None:
    spec = parse_spec({"dataset": "d", "model": "m"})
    assert advise(spec, train_rows=5000, validation_rows=100) == []
