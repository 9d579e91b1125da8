"""Starting a Ray cluster for a run, on machines that are slow to do so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import ray

from astraml_ray.errors import InfrastructureError
from astraml_ray.settings import load_settings
from astraml_ray.training.cluster import cluster

LATE = "The current node timed out during startup. This could happen\nbecause"


class Slow:
    """Ray's start, which fails so many times."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.given: list[dict[str, Any]] = []

    def init(self, **given: Any) -> None:
        self.given.append(given)
        if len(self.given) <= self.failures:
            raise Exception(LATE)


@pytest.mark.parametrize(("failures", "starts"), [(0, 1), (1, 2)])
def test_a_cluster_that_is_late_is_started_once_more(
    monkeypatch: pytest.MonkeyPatch, failures: int, starts: int
) -> None:
    slow = Slow(failures)
    monkeypatch.setattr(ray, "init", slow.init)
    with cluster(replace(load_settings(), ray_address=None), 64) as cores:
        assert cores
    assert [given["num_cpus"] for given in slow.given] == [66] * starts


@pytest.mark.parametrize(
    ("address", "tries", "words"),
    [(None, 2, "Ray does not start: The current node"), ("10.0.0.1:6379", 1, "the Ray cluster 10.0.0.1:6379 does not")],
)
def test_what_does_not_come_up_is_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, address: str | None, tries: int, words: str
) -> None:
    slow = Slow(9)
    monkeypatch.setattr(ray, "init", slow.init)
    with (
        pytest.raises(InfrastructureError, match=words) as caught,
        cluster(replace(load_settings(), ray_address=address), 1),
    ):
        pass
    assert len(slow.given) == tries
    assert "RAY_ADDRESS" in (caught.value.hint or "")
    assert "\n" not in caught.value.message
