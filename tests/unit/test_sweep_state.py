"""A sweep's state in its folder: never behind, never in the way, and taken up again by whoever asks for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from astraml_ray.cli.s3_server import S3Server
from astraml_ray.errors import DataError, MemoryExhaustedError, StorageError
from astraml_ray.training.memory import BATCH
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.tuning.fork import continue_sweep, retry_failed
from astraml_ray.tuning.journal import Journal, read_sweep, write_sweep
from astraml_ray.tuning.ledger import Evaluation, Ledger, Trial
from astraml_ray.tuning.session import within_memory
from astraml_ray.tuning.trials import Goal

GOAL = Goal("validation/loss", lower=True)


class Counting(RunFolder):
    """Counts what it is given, and keeps nothing."""

    written = 0
    largest_change = 0

    def write(self, name: str, data: bytes) -> None:
        self.written += len(data)
        if name.startswith("changes"):
            self.largest_change = max(self.largest_change, len(data))


class Killed(Exception):
    """In the middle of everything."""


class Fragile(RunFolder):
    """Dies at its n-th write or removal, before it or after it."""

    left = 0
    after = False

    def write(self, name: str, data: bytes) -> None:
        self._live(lambda: super(Fragile, self).write(name, data))

    def remove(self, folder: str) -> None:
        self._live(lambda: super(Fragile, self).remove(folder))

    def _live(self, work: Any) -> None:
        self.left -= 1
        if self.left or self.after:
            work()
        if not self.left:
            raise Killed


def ledger_of(state: dict[str, Any] | None = None) -> Ledger:
    ledger = Ledger(GOAL, cpus=1.0, gpus=0.0)
    if state is not None:
        ledger.restore(state)
    return ledger


def go_on(journal: Journal, ledger: Ledger, count: int) -> None:
    """So many evaluations more, of a new trial every tenth time."""
    for number in range(len(ledger.results), len(ledger.results) + count):
        if number % 10 == 0:
            ledger.trials.append(Trial(len(ledger.trials), {"hyperparams.lr": 0.1 * number}, status="running"))
            journal.add(ledger, ledger.trials[-1])
        trial = ledger.trials[-1]
        found = Evaluation(trial.number, 10 * (number % 10 + 1), number % 10 + 1, 1.0 / (number + 1))
        ledger.add(found, 0.5)
        journal.add(ledger, trial, found)


def plain(ledger: Ledger) -> dict[str, Any]:
    """Without the time."""
    state = ledger.to_dict()
    return {"trials": [{**t, "status": None} for t in state["trials"]], "results": state["results"]}


def test_twice_the_evaluations_take_twice_the_writing() -> None:
    spent = []
    for count in (2000, 4000):
        folder = Counting("/nowhere")
        folder.remove = lambda name: None  # type: ignore[method-assign]
        go_on(Journal(folder, {}), ledger_of(), count)
        spent.append(folder.written)
        assert folder.largest_change < 32_000
    assert spent[1] < 2.5 * spent[0]


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_write_it_has_lost_that_one_at_most(tmp_path: Path, after: bool) -> None:
    for left in range(1, 140, 13):
        place = str(tmp_path / str(left))
        write_sweep(RunFolder(place), {"document": {"a": 1}, **ledger_of().to_dict()})
        # A sitting before has left changes behind.
        before = ledger_of()
        go_on(Journal(RunFolder(place), read_sweep(RunFolder(place))), before, 5)
        folder, state = Fragile(place), read_sweep(RunFolder(place))
        ledger = ledger_of(state)
        assert plain(ledger) == plain(before)
        folder.left, folder.after = left, after
        with pytest.raises(Killed):
            go_on(Journal(folder, state), ledger, 200)
        found, whole = plain(ledger_of(read_sweep(RunFolder(place)))), plain(ledger)
        missing = len(whole["results"]) - len(found["results"])
        assert missing in (0, 1)
        assert found["results"] == whole["results"][: len(found["results"])]
        assert len(whole["trials"]) - len(found["trials"]) in (0, 1)
        assert read_sweep(RunFolder(place))["document"] == {"a": 1}


def test_a_process_that_was_thought_dead_mixes_nothing_into_the_state(tmp_path: Path) -> None:
    """Two at one folder, in turn: what is read is one's own story, of whoever wrote a whole last."""
    folder = RunFolder(str(tmp_path))
    old, new = ledger_of(), ledger_of()
    write_sweep(folder, {"document": {}, **old.to_dict()})
    state = read_sweep(folder)
    frozen, journal = Journal(folder, state), Journal(folder, state)
    go_on(frozen, old, 5)
    go_on(journal, new, 15)
    go_on(frozen, old, 7)
    assert plain(ledger_of(read_sweep(folder))) == plain(new)


def test_a_whole_state_leaves_no_changes_and_one_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    ledger, journal = ledger_of(), Journal(folder, {"document": {}})
    go_on(journal, ledger, 100)
    assert list((tmp_path / "changes").rglob("*.json"))
    journal.save(ledger)
    assert not list((tmp_path / "changes").rglob("*.json"))
    assert json.loads((tmp_path / "sweep.json").read_text())["results"] == ledger.to_dict()["results"]
    old = {"version": 1, "document": {}, **ledger.to_dict()}
    old["trials"] = [{**trial, "scores": {"validation/loss": 0.5}} for trial in old["trials"]]
    folder.write("sweep.json", json.dumps(old).encode())
    assert plain(ledger_of(read_sweep(folder))) == plain(ledger)


def test_a_bucket_keeps_it_as_a_disk_does(s3: S3Server) -> None:
    folder = RunFolder("s3://bucket/sweep-state")
    write_sweep(folder, {"document": {}, **ledger_of().to_dict()})
    wholes = {read_sweep(folder)["whole"]}
    ledger, journal = ledger_of(), Journal(folder, read_sweep(folder))
    for _ in range(4):
        go_on(journal, ledger, 20)
        assert plain(ledger_of(read_sweep(folder))) == plain(ledger)
        wholes.add(read_sweep(folder)["whole"])
    assert len(wholes) > 2
    assert len(folder.names("changes")) == 1


def failed_sweep(folder: RunFolder) -> None:
    error = {"code": "infrastructure", "message": "the bucket was away"}
    ledger = ledger_of()
    for number, status in enumerate(("failed", "succeeded", "failed")):
        ledger.trials.append(
            Trial(number, {}, status=status, step=7, reason="infrastructure", error=error, ended_at=1.0)
        )  # type: ignore[arg-type]
    write_sweep(folder, {"document": {}, **ledger.to_dict()})
    folder.write("inputs.json", b"{}")
    for name in ("manifest.json", "spec.yaml"):
        folder.write(name, b"{}")


def test_who_resumes_a_sweep_has_its_failed_trials_tried_again(tmp_path: Path) -> None:
    folder, child = RunFolder(str(tmp_path / "sweep")), RunFolder(str(tmp_path / "child"))
    failed_sweep(folder)
    continue_sweep(folder, child)
    retry_failed(folder)
    for place in (folder, child):
        trials = ledger_of(read_sweep(place)).trials
        assert [(t.status, t.error is None, t.ended_at) for t in trials] == [
            ("pending", True, None),
            ("succeeded", False, 1.0),
            ("pending", True, None),
        ]
        assert [t.step for t in trials] == [7, 7, 7]
    # The child has begun: it is not set back.
    state = read_sweep(child)
    state["trials"][0]["status"] = "failed"
    write_sweep(child, state)
    continue_sweep(folder, child)
    assert read_sweep(child)["trials"][0]["status"] == "failed"
    with pytest.raises(StorageError):
        retry_failed(RunFolder(str(tmp_path / "nowhere")))


def test_memory_that_runs_out_is_answered_by_smaller_pieces_and_nothing_else_is() -> None:
    tried: list[int] = []

    def work(divisor: int) -> str:
        tried.append(divisor)
        if divisor < 4:
            raise MemoryExhaustedError("too much", param=BATCH)
        return "done"

    assert within_memory(work, rows=16) == "done"
    assert tried == [1, 2, 4]
    with pytest.raises(MemoryExhaustedError):
        within_memory(work, rows=2)

    def broken(divisor: int) -> str:
        tried.append(divisor)
        raise DataError("no rows")

    tried.clear()
    with pytest.raises(DataError):
        within_memory(broken, rows=16)
    assert tried == [1]
