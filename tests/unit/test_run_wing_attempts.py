"""run_attempts from attempt to attempt. The attempts are scripted; what is decided, told and written is real."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from astraml_ray.errors import (
    AstraError,
    DataError,
    InfrastructureError,
    MemoryExhaustedError,
    RepeatedFailureError,
    RunStopped,
)
from astraml_ray.settings import load_settings
from astraml_ray.spec.loading import parse_spec
from astraml_ray.spec.placement import Placement
from astraml_ray.training import runner
from astraml_ray.training.checkpoint import FolderCheckpoints, Progress
from astraml_ray.training.failures import AttemptFailure
from astraml_ray.training.preparation import RunInputs, prepare
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.training.runner import Watcher, run_attempts
from astraml_ray.training.stop import Stop
from tests.conftest import write_dataset

PLACEMENT = Placement(workers=2, gpus_per_worker=0, cpus_per_worker=1.0, threads=1)
DONE = {"reason": "completed", "steps": 78, "best_step": 70, "epochs_completed": 3, "metrics": {"validation/loss": 0.1}}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> RunInputs:
    data = write_dataset(tmp_path_factory.mktemp("attempts") / "d", rows=50)
    return prepare(parse_spec({"dataset": str(data), "model": "tiny-bert"}), load_settings())[0]


class Played:
    """A run whose attempts end as the script says: with an error, or an outcome."""

    def __init__(self, folder: Path, inputs: RunInputs, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = RunFolder(str(folder / "run"))
        self.inputs = inputs
        self.stop = Stop()
        self.events: list[dict[str, Any]] = []
        self.attempts: list[tuple[int, int]] = []
        self._patch = monkeypatch

    def run(
        self, *script: dict[str, Any] | AstraError, reach: tuple[tuple[int, int], ...] = (), **more: Any
    ) -> dict[str, Any]:
        """Plays attempts; `reach` has the checkpoint and the last step of each."""
        ends, reached = iter(script), iter(reach)
        played = self

        class Attempt:
            forced = False

            def __init__(self, *arguments: Any, start: int, divisor: int, **rest: Any) -> None:
                played.attempts.append((start, divisor))
                self.last_step: int | None = None

            def run(self) -> dict[str, Any]:
                saved, self.last_step = next(reached, (0, None))
                if saved:
                    played.save(saved)
                end = next(ends)
                if isinstance(end, AstraError):
                    raise end
                return end

        self._patch.setattr(runner, "Attempt", Attempt)
        self._patch.setattr(runner, "remove_orphans", lambda: 0)
        self._patch.setattr(Stop, "wait", lambda stop, timeout: stop.is_set())
        watcher = Watcher(self.take, self.stop)
        return run_attempts(self.inputs, self.folder, PLACEMENT, watcher, **more)

    def save(self, step: int) -> None:
        store = FolderCheckpoints(self.folder, keep=2)
        store.save(Progress(step), {"model.safetensors": b"weights"})
        store.wait()

    def take(self, record: dict[str, Any]) -> None:
        self.events.append(json.loads(json.dumps(record)))

    def names(self) -> list[str]:
        return [event["event"] for event in self.events]


@pytest.fixture
def played(tmp_path: Path, inputs: RunInputs, monkeypatch: pytest.MonkeyPatch) -> Played:
    return Played(tmp_path, inputs, monkeypatch)


def lost(rank: int | None = None) -> InfrastructureError:
    error = InfrastructureError("worker 1 failed: its process was killed")
    error.rank = rank
    return error


def test_a_run_that_is_over_answers_and_does_nothing(played: Played) -> None:
    first = played.run(DONE)
    assert (first["status"], first["attempts"], first["micro_batch_divisor"]) == ("succeeded", 1, 1)
    assert json.loads(played.folder.read("result.json")) == first
    assert json.loads(played.folder.read("receipt.json"))["micro_batch_divisor"] == 1
    played.events.clear()
    assert played.run() == first
    assert played.events == []


def test_a_failure_is_told_and_the_next_attempt_goes_on_from_the_checkpoint(played: Played) -> None:
    result = played.run(lost(rank=1), DONE, reach=((20, 22),))
    assert result["attempts"] == 2
    assert played.attempts == [(0, 1), (20, 1)]
    started, failed, again = played.events
    assert (started["event"], started["attempt"], started["step"], started["divisor"]) == ("attempt_started", 1, 0, 1)
    assert started["message"] == "attempt 1 starts at the beginning"
    assert failed["event"] == "attempt_failed"
    assert (failed["attempt"], failed["step"], failed["failed_step"], failed["next"]) == (1, 20, 22, "retry")
    assert {k: failed["error"][k] for k in ("code", "class", "rank", "retryable")} == {
        "code": "infrastructure",
        "class": "infrastructure",
        "rank": 1,
        "retryable": True,
    }
    assert "going on from step 20" in failed["message"]
    assert 0.75 <= failed["delay_s"] <= 1.25
    assert (again["attempt"], again["step"]) == (2, 20)


def test_memory_that_ran_out_is_answered_by_a_larger_divisor(played: Played) -> None:
    exhausted = MemoryExhaustedError("step 1 did not fit into memory", param="/hyperparams/batch_size")
    result = played.run(exhausted, exhausted, lost(), DONE, reach=((0, 1), (0, 1), (10, 12)))
    assert played.attempts == [(0, 1), (0, 2), (0, 4), (10, 4)]
    assert (result["micro_batch_divisor"], result["attempts"]) == (4, 4)
    assert result["effective_batch_size"] == 32
    failed = [event for event in played.events if event["event"] == "attempt_failed"]
    assert [event["divisor"] for event in failed] == [2, 4, 4]
    assert "micro-batch 32 → 16 rows, accumulation 1 → 2; the effective batch stays 32" in failed[0]["message"]
    assert failed[0]["error"]["class"] == "memory"


def test_what_the_user_must_mend_ends_the_run_at_once(played: Played) -> None:
    with pytest.raises(DataError, match="is damaged"):
        played.run(DataError("is damaged"))
    assert played.events[-1]["next"] == "give_up"
    assert not played.folder.exists("result.json")


def test_the_same_failure_at_the_same_step_ends_the_run(played: Played) -> None:
    played.save(10)
    with pytest.raises(RepeatedFailureError, match="twice at step 25") as caught:
        played.run(
            lost(rank=1), lost(rank=1), DONE, reach=((20, 25), (20, 25)), history=[AttemptFailure("data", "x", 10)]
        )
    assert caught.value.rank == 1
    assert caught.value.code == "repeated_failure"
    assert played.names() == ["attempt_started", "attempt_failed"] * 2
    assert [event["attempt"] for event in played.events] == [2, 2, 3, 3]


def test_earlier_failures_count_after_a_restart_of_the_runner(played: Played) -> None:
    before = [AttemptFailure("infrastructure", "a", 0), AttemptFailure("infrastructure", "b", 0)]
    before += [AttemptFailure("out_of_memory", "m", 0), AttemptFailure("infrastructure", "c", 0)]
    with pytest.raises(InfrastructureError, match="4 failures in a row"):
        played.run(lost(), DONE, history=before)
    assert played.attempts == [(0, 2)]


def test_a_stop_before_the_first_attempt_starts_none(played: Played) -> None:
    played.save(20)
    played.stop.request("now")
    with pytest.raises(RunStopped, match="saved at step 20") as caught:
        played.run(DONE)
    assert (caught.value.step, played.events) == (20, [])


def test_a_stop_between_two_attempts_is_no_failure(played: Played) -> None:
    played.take = lambda record: played.stop.request("now")  # type: ignore[method-assign]
    with pytest.raises(RunStopped, match="saved at step 20"):
        played.run(lost(), DONE, reach=((20, 22),))
    with pytest.raises(RunStopped):
        played.run(*[lost()] * 9, history=[AttemptFailure("infrastructure", "x", 20)] * 9)


def test_keeping_the_best_while_failing_tries_again_at_once(played: Played) -> None:
    played.stop.request("keep_best")
    result = played.run(lost(), {**DONE, "reason": "stopped_keep_best", "steps": 21}, reach=((20, 22),))
    assert (result["status"], result["reason"]) == ("cancelled", "stopped_keep_best")
    assert result["model_path"] == played.folder.path("model")
    assert json.loads(played.folder.read("result.json")) == result


def test_a_stopped_attempt_says_where_it_saved(played: Played) -> None:
    with pytest.raises(RunStopped, match="stopped and saved at step 33") as caught:
        played.run({"reason": "stopped", "steps": 33})
    assert (caught.value.step, caught.value.param) == (33, played.folder.uri)
    assert math.isclose(Watcher(print, Stop()).grace_s, 8.0)
