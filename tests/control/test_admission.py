"""Admission: who starts, who waits and why, and that nobody starves. Pure."""

from __future__ import annotations

import random
from typing import Any

import pytest

from astraml_ray.control.admission import Capacity, Hold, Start, Waiting, admit, demand_of
from astraml_ray.spec.job import Resources


def capacity(
    cpus: float = 8, gpus: float = 0, *, free_cpus: float | None = None, free_gpus: float | None = None
) -> Capacity:
    return Capacity(
        cpus, gpus, cpus if free_cpus is None else free_cpus, gpus if free_gpus is None else free_gpus, local_cores=None
    )


def job(
    name: str,
    *,
    priority: int = 0,
    queued_at: float = 0.0,
    not_before: float | None = None,
    trials: int = 1,
    **asked: Any,
) -> Waiting:
    return Waiting(name, Resources(**{"gpus": 0, **asked}), priority, queued_at, not_before, trials=trials)


def started(decisions: list[Start | Hold]) -> list[str]:
    return [decision.job_id for decision in decisions if isinstance(decision, Start)]


def hold_of(decisions: list[Start | Hold], name: str) -> Hold:
    return next(d for d in decisions if isinstance(d, Hold) and d.job_id == name)


def test_priority_goes_before_age_and_age_before_the_rest() -> None:
    queue = [job("young", queued_at=5.0), job("old", queued_at=1.0), job("urgent", priority=3, queued_at=9.0)]
    assert started(admit(queue, capacity(4), now=10.0)) == ["urgent", "old"]


def test_a_gpu_that_the_cluster_does_not_have_is_told_with_what_would_start() -> None:
    hold = hold_of(admit([job("a", gpus=1)], capacity(4), now=0.0), "a")
    assert hold.message == "needs 1 GPU; the cluster has 0"
    assert hold.would_start_with == {"resources.gpus": 0}


def test_taken_gpus_are_told_and_fewer_would_start() -> None:
    hold = hold_of(admit([job("a", gpus=4)], capacity(16, 4, free_gpus=2), now=0.0), "a")
    assert "needs 4 GPUs; 2 of 4 are free" in hold.message
    assert hold.would_start_with == {"resources.gpus": 2}


def test_fewer_workers_would_start() -> None:
    hold = hold_of(admit([job("a", workers=6, cpus_per_worker=1.0)], capacity(8, free_cpus=4), now=0.0), "a")
    assert hold.would_start_with == {"resources.workers": 3}


def test_what_never_fits_is_in_nobody_s_way() -> None:
    queue = [job("never", gpus=8, queued_at=0.0), job("small", queued_at=1.0)]
    assert started(admit(queue, capacity(4), now=1e6)) == ["small"]


def test_a_job_in_backoff_waits_and_others_do_not() -> None:
    queue = [job("again", not_before=100.0), job("small", queued_at=1.0)]
    decisions = admit(queue, capacity(4), now=50.0)
    assert started(decisions) == ["small"]
    assert "tried again at 00:01:40 UTC" in hold_of(decisions, "again").message
    assert started(admit(queue, capacity(4), now=101.0)) == ["again", "small"]


def test_small_jobs_overtake_a_big_one_first_and_then_leave_it_room() -> None:
    big = job("big", workers=6, cpus_per_worker=1.0, queued_at=0.0)
    small = job("small", queued_at=1.0)
    early = admit([big, small], capacity(8, free_cpus=4), now=60.0)
    assert started(early) == ["small"]
    late = admit([big, small], capacity(8, free_cpus=4), now=700.0)
    assert started(late) == []
    assert "held for big" in hold_of(late, "small").message
    # Not for ever: what the big one waits for may run for weeks.
    assert started(admit([big, small], capacity(8, free_cpus=4), now=600.0 + 1800.0 + 60.0)) == ["small"]


def test_a_reservation_holds_only_what_is_lacking() -> None:
    big = job("big", gpus=4, queued_at=0.0)
    on_cpus = job("cpu", queued_at=1.0)
    decisions = admit([big, on_cpus], capacity(64, 4, free_gpus=1), now=700.0)
    assert started(decisions) == ["cpu"]
    on_gpu = job("gpu", gpus=1, queued_at=1.0)
    assert started(admit([big, on_gpu], capacity(64, 4, free_gpus=1), now=700.0)) == []


def trials_at_once(decisions: list[Start | Hold]) -> dict[str, int]:
    return {decision.job_id: decision.trials for decision in decisions if isinstance(decision, Start)}


def test_a_sweep_has_as_many_trials_at_once_as_there_is_room_for() -> None:
    """Each takes a CPU for its worker, and all together one for the data where it is left."""
    assert trials_at_once(admit([job("s", trials=3)], capacity(16), now=0.0)) == {"s": 3}
    assert trials_at_once(admit([job("s", trials=100)], capacity(16), now=0.0)) == {"s": 16}
    assert trials_at_once(admit([job("s", gpus=2, trials=100)], capacity(64, 8, free_gpus=7), now=0.0)) == {"s": 3}
    assert trials_at_once(admit([job("s", trials=100)], capacity(2), now=0.0)) == {"s": 2}


def test_a_sweep_leaves_the_others_of_the_queue_what_they_need() -> None:
    queue = [job("s", priority=9, trials=100), job("a", queued_at=1.0), job("t", queued_at=2.0, trials=100)]
    assert trials_at_once(admit(queue, capacity(16), now=10.0)) == {"s": 11, "a": 1, "t": 1}
    # And what is held back for one that has waited long is not for more trials.
    late = [job("big", gpus=4, queued_at=0.0), job("s", gpus=1, queued_at=5.0, trials=4)]
    held = admit(late, capacity(64, 4, free_gpus=3), now=700.0)
    assert trials_at_once(held) == {}


@pytest.mark.parametrize("seed", range(40))
def test_what_starts_together_fits_together(seed: int) -> None:
    rng = random.Random(seed)
    cluster = capacity(rng.randint(2, 40), rng.randint(0, 8))
    queue = [_random_job(rng, i) for i in range(rng.randint(1, 20))]
    decisions = admit(queue, cluster, now=6000.0)
    assert sorted(d.job_id for d in decisions) == sorted(w.job_id for w in queue)
    demands = [demand_of(d.placement, cluster.cpus, d.trials) for d in decisions if isinstance(d, Start)]
    assert sum(d.cpus for d in demands) <= cluster.cpus + 1e-6
    assert sum(d.gpus for d in demands) <= cluster.gpus
    for decision in decisions:
        if isinstance(decision, Hold) and decision.would_start_with:
            _the_alternative_would_start(decision, queue, cluster)


def _random_job(rng: random.Random, index: int) -> Waiting:
    asked: dict[str, Any] = {"gpus": rng.choice([1, 2, 4])} if rng.random() < 0.4 else {"workers": rng.randint(1, 6)}
    trials = rng.choice([1, 1, 3, 100])
    return job(f"j{index}", priority=rng.randint(-1, 1), queued_at=rng.uniform(0, 5000), trials=trials, **asked)


def _the_alternative_would_start(hold: Hold, queue: list[Waiting], cluster: Capacity) -> None:
    """Alone on the cluster, the changed job starts."""
    asked = next(w for w in queue if w.job_id == hold.job_id).resources
    assert hold.would_start_with is not None
    changes = {path.removeprefix("resources."): value for path, value in hold.would_start_with.items()}
    # Those after it took some of what was free when it was told, but it fits the cluster.
    whole = capacity(cluster.cpus, cluster.gpus)
    again = Waiting("again", asked.model_copy(update=changes), 0, 0.0)
    assert started(admit([again], whole, now=0.0)) == ["again"]
