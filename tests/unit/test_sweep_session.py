"""A trial's training in one process: it waits to be judged, shares tokens, and takes over another's weights."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from astraml_ray.data.microbatches import local_blocks
from astraml_ray.errors import AstraError
from astraml_ray.settings import load_settings
from astraml_ray.spec.loading import parse_spec
from astraml_ray.training.checkpoint import FolderCheckpoints
from astraml_ray.training.preparation import RunInputs, store_inputs
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.training.worker import split_reader
from astraml_ray.tuning.director import trial_folder
from astraml_ray.tuning.fork import continue_sweep
from astraml_ray.tuning.inheritance import inherit
from astraml_ray.tuning.journal import read_sweep, write_sweep
from astraml_ray.tuning.ledger import Trial
from astraml_ray.tuning.session import Session, past_records
from astraml_ray.tuning.sweep import _publish, begin_sweep, prepare_sweep
from astraml_ray.tuning.trials import goal_of, trial_inputs
from tests.conftest import write_dataset

DOCUMENT: dict[str, Any] = {
    "model": "tiny-bert",
    "hyperparams": {"batch_size": 16, "epochs": 1, "eval_every": "4 steps", "max_length": 32},
    "resources": {"gpus": 0, "threads_per_worker": 1},
    "sweep": {"parameters": {"hyperparams.lr": {"choice": [1e-3, 5e-3]}}},
}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Trials of 13 steps."""
    data = write_dataset(tmp_path_factory.mktemp("session") / "d", rows=200, group=40)
    return {**DOCUMENT, "dataset": str(data)}


@pytest.fixture(scope="module")
def inputs(document: dict[str, Any]) -> RunInputs:
    return prepare_sweep(parse_spec(document), load_settings())[0]


def of_trial(inputs: RunInputs, document: dict[str, Any], **values: Any) -> RunInputs:
    spec = parse_spec(document)
    paths = {name.replace("__", "."): value for name, value in values.items()}
    found = trial_inputs(inputs, document, paths, goal_of(spec), load_settings())
    return replace(found, spec=found.spec.model_copy(update={"resources": inputs.spec.resources}))


def started(inputs: RunInputs, folder: RunFolder) -> Session:
    if not folder.exists("inputs.json"):
        store_inputs(inputs, folder)
    return Session(inputs, folder, "validation/loss", threads=1, ship=lambda lines: None)


def followed(session: Session, *, upto: int | None = None) -> Iterator[tuple[str, Any]]:
    """What a trial tells until its end, or until an evaluation."""
    while True:
        told = session.next(0.5)
        if told.kind == "progress":
            continue
        yield (told.kind, told.record.get("step") if told.kind == "evaluation" else told.record)
        if told.kind != "evaluation" or told.record["step"] == upto:
            return


def weights(folder: RunFolder, step: int) -> bytes:
    found = FolderCheckpoints(folder, keep=9).load(step)
    assert found is not None
    return found[1]["model.safetensors"]


def test_a_trial_waits_at_an_evaluation_and_goes_on_after_it_was_ended_there(
    inputs: RunInputs, document: dict[str, Any], tmp_path: Path
) -> None:
    trial = of_trial(inputs, document, hyperparams__lr=5e-3)
    whole = started(trial, RunFolder(str(tmp_path / "whole")))
    told = list(followed(whole))
    assert [what for what in told if what[0] == "evaluation"] == [("evaluation", step) for step in (4, 8, 12, 13)]
    assert (told[-1][0], told[-1][1]["reason"], told[-1][1]["steps"]) == ("finished", "completed", 13)
    whole.end()

    folder = RunFolder(str(tmp_path / "part"))
    part = started(trial, folder)
    assert list(followed(part, upto=8)) == [("evaluation", 4), ("evaluation", 8)]
    part.end()
    assert FolderCheckpoints(folder, keep=9).latest_progress().step == 8
    records = [json.loads(line) for line in folder.read("metrics.jsonl").splitlines()]
    assert max(record["step"] for record in records) == 8
    again = started(trial, folder)
    # What was told before is told again: whoever followed may have been killed before it wrote that down.
    assert [what[1] for what in followed(again, upto=13)] == [4, 8, 12, 13]
    again.end()
    assert weights(folder, 13) == weights(RunFolder(str(tmp_path / "whole")), 13)


def test_trials_share_tokens(inputs: RunInputs) -> None:
    once = replace(inputs, spec=parse_spec({**inputs.spec.canonical(), "hyperparams": {"epochs": 1}}))
    assert split_reader(once, "train", 1).keep is None
    shared = split_reader(once, "train", 1, shared=True)
    plain = replace(shared, keep=None)
    assert all(a.equals(b) for a, b in zip(local_blocks(shared), local_blocks(plain), strict=True))
    kept = shared.keep
    assert kept is not None
    assert list(kept.folder.glob("*.tokens"))
    drawn = replace(once, spec=parse_spec({**once.spec.canonical(), "augmentation": [{"type": "random_swap"}]}))
    assert split_reader(drawn, "train", 1, shared=True).keep is None


def test_what_a_value_changes_is_prepared_anew_and_the_rest_is_shared(
    inputs: RunInputs, document: dict[str, Any]
) -> None:
    rate = of_trial(inputs, document, hyperparams__lr=5e-3)
    assert (rate.spec.hyperparams.lr, rate.spec.sweep) == (5e-3, None)
    assert rate.manifest is inputs.manifest
    assert rate.tokenizer is inputs.tokenizer
    short = of_trial(inputs, document, hyperparams__max_length=16)
    assert (short.encoder.max_length, inputs.encoder.max_length) == (16, 32)
    assert short.manifest.splits is inputs.manifest.splits
    sweep = {"parameters": {"model.name": {"choice": ["tiny-bert", "./nowhere"]}}}
    with pytest.raises(AstraError, match=r"with model.name='./nowhere'") as caught:
        prepare_sweep(parse_spec({**document, "sweep": sweep}), load_settings())
    assert caught.value.param == "/sweep/parameters/model.name"


def test_a_trial_goes_on_from_anothers_weights_with_a_rate_of_its_own(
    inputs: RunInputs, document: dict[str, Any], tmp_path: Path
) -> None:
    strong, weak = of_trial(inputs, document, hyperparams__lr=5e-3), of_trial(inputs, document, hyperparams__lr=1e-3)
    donor, folder = RunFolder(str(tmp_path / "donor")), RunFolder(str(tmp_path / "weak"))
    for trial, place in ((strong, donor), (weak, folder)):
        session = started(trial, place)
        list(followed(session, upto=8))
        session.end()
    before = weights(folder, 8)
    mark = {"donor": 0, "step": 8, "count": 1}
    inherit(donor, folder, weak.spec.hyperparams, mark)
    assert weights(folder, 8) == weights(donor, 8) != before
    assert folder.read("metrics.jsonl") == donor.read("metrics.jsonl")
    expected = [record for record in past_records(donor) if "validation/loss" in record]
    assert [record for record in past_records(folder) if "validation/loss" in record] == expected
    session = started(weak, folder)
    list(followed(session, upto=12))
    session.end()
    records = [json.loads(line) for line in folder.read("metrics.jsonl").splitlines()]
    theirs = [json.loads(line) for line in donor.read("metrics.jsonl").splitlines()]
    rates = {r["step"]: r["train/learning_rate"] for r in records if "train/learning_rate" in r}
    others = {r["step"]: r["train/learning_rate"] for r in theirs if "train/learning_rate" in r}
    assert rates[8] == others[8] == pytest.approx(5e-3 * 0.5 * (1 + math.cos(math.pi * 8 / 13)))
    assert rates[12] == pytest.approx(1e-3 * 0.5 * (1 + math.cos(math.pi * 12 / 13)))
    after = weights(folder, 12)
    inherit(donor, folder, weak.spec.hyperparams, mark)
    assert weights(folder, 12) == after


def test_a_sweep_that_is_taken_up_as_a_new_one_copies_no_trial_twice(
    inputs: RunInputs, document: dict[str, Any], tmp_path: Path
) -> None:
    parent, child = RunFolder(str(tmp_path / "parent")), RunFolder(str(tmp_path / "child"))
    begin_sweep(parse_spec(document), inputs, parent)
    mark = {"donor": 0, "step": 8, "count": 1}
    trials = [Trial(0, {}, step=8, judged=8), Trial(1, {}, step=12, judged=12, copied=mark)]
    write_sweep(parent, {**read_sweep(parent), "trials": [trial.to_dict() for trial in trials]})
    donor, copier = (trial_folder(parent, number) for number in (0, 1))
    session = started(inputs, donor)
    list(followed(session, upto=8))
    session.end()
    store_inputs(inputs, copier)
    inherit(donor, copier, inputs.spec.hyperparams, mark)
    session = started(inputs, copier)
    list(followed(session, upto=12))
    session.end()

    continue_sweep(parent, child)
    ours = trial_folder(child, 1)
    inherit(trial_folder(child, 0), ours, inputs.spec.hyperparams, mark)
    assert weights(ours, 12) == weights(copier, 12)
    # A later copy of the child's own is made, and called again, the parent's mark does not come back over its.
    later = {**mark, "count": 2}
    inherit(trial_folder(child, 0), ours, inputs.spec.hyperparams, later)
    continue_sweep(parent, child)
    assert json.loads(ours.read("inherited.json")) == later


def test_a_donor_whose_first_checkpoint_is_still_being_written_is_waited_for(
    inputs: RunInputs, document: dict[str, Any], tmp_path: Path
) -> None:
    donor, folder = RunFolder(str(tmp_path / "donor")), RunFolder(str(tmp_path / "weak"))
    session = started(inputs, donor)
    list(followed(session, upto=4))
    session.end()
    store_inputs(inputs, folder)
    # As on its way to a bucket: the manifest comes last.
    manifest = "checkpoints/step-000000004/manifest.json"
    data = donor.read(manifest)
    (tmp_path / "donor" / manifest).unlink()
    written = threading.Timer(2.0, donor.write, [manifest, data])
    written.start()
    inherit(donor, folder, inputs.spec.hyperparams, {"donor": 0, "step": 4, "count": 1})
    written.join()
    assert weights(folder, 4) == weights(donor, 4)


class Read(RunFolder):
    """Knows which files were read whole."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.names_read: list[str] = []

    def read(self, name: str) -> bytes:
        self.names_read.append(name)
        return super().read(name)


def test_the_best_weights_are_published_without_reading_what_only_training_takes(
    inputs: RunInputs, document: dict[str, Any], tmp_path: Path
) -> None:
    trial, folder = of_trial(inputs, document, hyperparams__lr=5e-3), Read(str(tmp_path / "trial"))
    session = started(trial, folder)
    list(followed(session))
    session.end()
    progress = FolderCheckpoints(folder, keep=9).latest_progress()
    folder.names_read.clear()
    outcome = _publish(trial, folder, RunFolder(str(tmp_path / "sweep")), 1)
    assert [name for name in folder.names_read if name.endswith((".safetensors", ".pt"))] == [
        f"checkpoints/step-{progress.step:09d}/model.safetensors"
    ]
    assert (outcome["best_step"], outcome["steps"]) == (13, 13)
    published = safetensors.torch.load_file(tmp_path / "sweep" / "model" / "model.safetensors")
    assert "test/accuracy" in outcome["metrics"]
    best = safetensors.torch.load(weights(folder, 13))
    assert all(bool((best[name] == tensor).all()) for name, tensor in published.items())


def test_a_trial_that_fails_tells_why_and_leaves_the_place_usable(
    inputs: RunInputs, document: dict[str, Any], tmp_path: Path
) -> None:
    hyper = inputs.spec.hyperparams.model_copy(update={"lr": 1e6, "max_grad_norm": None, "weight_decay": 10.0})
    broken = replace(inputs, spec=inputs.spec.model_copy(update={"hyperparams": hyper, "sweep": None}))
    session = started(broken, RunFolder(str(tmp_path / "broken")))
    *_, (kind, error) = followed(session)
    session.end()
    assert (kind, error["code"]) == ("failed", "numeric")
    session = started(of_trial(inputs, document, hyperparams__lr=1e-3), RunFolder(str(tmp_path / "next")))
    assert next(followed(session)) == ("evaluation", 4)
    session.end()
