"""Quotas: what may start, what waits, what can never start."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astraml_ray.access.denials import QuotaExceededError, QuotaExhaustedError
from astraml_ray.access.quotas import WEEK_S, Quota, Usage, decide, decide_all, gpu_hours, require_submit, usage_of
from astraml_ray.store.access import GpuTime
from tests.access.conftest import NOW

HOUR = 3600.0


def spent(gpus: float, start: float, end: float | None, job: str = "j") -> GpuTime:
    return GpuTime(job, 1, "p1", gpus, start, end)


def test_without_bounds_everything_starts() -> None:
    assert decide(None, Usage(1000, 1000), gpus=1000, now=NOW).decision == "admit"
    assert decide(Quota("p1"), Usage(1000, 1000), gpus=1000, now=NOW).decision == "admit"


@pytest.mark.parametrize(
    ("usage", "gpus", "decision", "word"),
    [
        (Usage(0, 0), 4, "admit", None),
        (Usage(0, 0), 5, "never", "may have 4 GPUs at once; the job wants 5"),
        (Usage(3, 1), 1, "admit", None),
        (Usage(3, 1), 2, "wait", "has 3 of its 4 GPUs at once"),
        (Usage(0, 2), 0, "wait", "runs 2 of its 2 jobs"),
        (Usage(4, 1), 0, "admit", None),
    ],
)
def test_gpus_and_jobs_at_once(usage: Usage, gpus: int, decision: str, word: str | None) -> None:
    verdict = decide(Quota("p1", gpus_at_once=4, jobs_at_once=2), usage, gpus=gpus, now=NOW)
    assert verdict.decision == decision
    if word:
        assert word in str(verdict.message)
        assert "project p1" in str(verdict.message)


def test_gpu_hours_are_those_of_the_last_seven_days() -> None:
    times = [
        spent(2, NOW - 10 * 86400, NOW - 8 * 86400),  # too old
        spent(2, NOW - WEEK_S - HOUR, NOW - WEEK_S + HOUR),  # half of it
        spent(4, NOW - 2 * HOUR, NOW - HOUR),
        spent(1, NOW - HOUR, None),
        spent(0, NOW - HOUR, None),
    ]
    assert gpu_hours(times, now=NOW) == pytest.approx(2 + 4 + 1)


def test_a_used_up_week_waits_until_hours_are_back() -> None:
    quota = Quota("p1", gpu_hours_per_week=10)
    times = [spent(10, NOW - 3 * 86400, NOW - 3 * 86400 + HOUR)]
    verdict = decide(quota, Usage(0, 0, times), gpus=1, now=NOW)
    assert verdict.decision == "wait"
    assert verdict.retry_at is not None
    # The first of those hours leaves the window four days from now.
    assert verdict.retry_at == pytest.approx(NOW + 4 * 86400, abs=2)
    assert gpu_hours(times, now=verdict.retry_at + 1) < 10
    assert decide(quota, Usage(0, 0, times), gpus=0, now=NOW).decision == "admit"
    assert decide(Quota("p1", gpu_hours_per_week=10.1), Usage(0, 0, times), gpus=1, now=NOW).decision == "admit"


@pytest.mark.parametrize(
    ("quota", "gpus", "decision"),
    [
        (Quota("p1", jobs_at_once=0), 0, "never"),
        (Quota("p1", gpus_at_once=0), 1, "never"),
        (Quota("p1", gpus_at_once=0), 0, "admit"),
        (Quota("p1", gpu_hours_per_week=0), 1, "never"),
        (Quota("p1", gpu_hours_per_week=0), 0, "admit"),
    ],
)
def test_nothing_at_all_is_a_quota_too(quota: Quota, gpus: int, decision: str) -> None:
    assert decide(quota, Usage(), gpus=gpus, now=NOW).decision == decision


def test_the_hardest_of_several_quotas_counts() -> None:
    wide, full = Quota("*", gpus_at_once=100), Quota("p1", gpus_at_once=4)
    verdict = decide_all([(wide, Usage(10, 1)), (full, Usage(4, 1))], gpus=1, now=NOW)
    assert (verdict.decision, verdict.retry_at) == ("wait", None)
    verdict = decide_all([(wide, Usage(100, 1)), (full, Usage(0, 0))], gpus=5, now=NOW)
    assert verdict.decision == "never"
    verdict = decide_all([(wide, Usage(100, 1)), (full, Usage(0, 0))], gpus=1, now=NOW)
    assert "the organisation" in str(verdict.message)
    assert decide_all([(wide, Usage()), (None, Usage())], gpus=1, now=NOW).decision == "admit"


def test_refusals() -> None:
    never = decide(Quota("p1", gpus_at_once=1), Usage(), gpus=2, now=NOW)
    with pytest.raises(QuotaExceededError) as exceeded:
        require_submit(never, now=NOW)
    assert exceeded.value.http_status == 403
    wait = decide(Quota("p1", jobs_at_once=1), Usage(0, 1), gpus=0, now=NOW)
    require_submit(wait, now=NOW)
    with pytest.raises(QuotaExhaustedError) as exhausted:
        require_submit(wait, now=NOW, may_wait=False)
    assert exhausted.value.http_status == 429
    require_submit(decide(None, Usage(), gpus=1, now=NOW), now=NOW, may_wait=False)


def test_usage_is_what_is_held_now() -> None:
    usage = usage_of([spent(2, NOW - 10, None, "a"), spent(0, NOW - 10, None, "b"), spent(4, NOW - 10, NOW - 5, "c")])
    assert (usage.gpus, usage.jobs, len(usage.times)) == (2, 2, 3)


_times = st.lists(
    st.builds(
        lambda gpus, start, length, runs: spent(gpus, NOW - start, None if runs else NOW - start + length),
        st.integers(0, 8),
        st.floats(0, 2 * WEEK_S),
        st.floats(0, WEEK_S),
        st.booleans(),
    ).filter(lambda time: time.finished_at is None or time.finished_at <= NOW),
    max_size=8,
)


@given(_times, st.floats(0.1, 500))
def test_when_hours_are_back_a_job_may_start(times: list[GpuTime], bound: float) -> None:
    quota = Quota("p1", gpu_hours_per_week=bound)
    verdict = decide(quota, Usage(0, 0, times), gpus=1, now=NOW)
    if verdict.decision == "admit":
        assert gpu_hours(times, now=NOW) < bound
        return
    assert verdict.retry_at is not None
    assert NOW <= verdict.retry_at <= NOW + WEEK_S
    ended = [GpuTime(t.job_id, 1, "p1", t.gpus, t.started_at, t.finished_at or NOW) for t in times]
    assert decide(quota, Usage(0, 0, ended), gpus=1, now=verdict.retry_at).decision == "admit"
