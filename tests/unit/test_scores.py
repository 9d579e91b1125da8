"""Metrics out of sums equal those of the usual libraries, however the rows are cut into batches."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score
from sklearn import metrics as reference

from astraml_ray.data.encoding.schema import IGNORED
from astraml_ray.training.batching import Batch
from astraml_ray.training.objectives.entities import tag_scheme
from astraml_ray.training.objectives.regression import TextRegression
from astraml_ray.training.objectives.tagging import TokenClassification

KINDS = ["PER", "LOC", "a-b"]
SCHEMES = {
    "IO": ["O", *(f"I-{kind}" for kind in KINDS)],
    "IOB": ["O", *(f"{p}-{kind}" for p in "BI" for kind in KINDS)],
    "IOBES": ["O", *(f"{p}-{kind}" for p in "BIES" for kind in KINDS)],
}


def logits_of(ids: torch.Tensor, classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(ids.clamp(min=0), classes).float() * 3


def tagging_batch(true: list[list[int]], predicted: list[list[int]], tags: int) -> tuple[Any, Batch]:
    """Words with other tokens between them, and padding."""
    width = max(map(len, true)) * 2 + 2
    labels = torch.full((len(true), width), IGNORED)
    guesses = torch.randint(0, tags, (len(true), width), generator=torch.Generator().manual_seed(0))
    for row, (right, guess) in enumerate(zip(true, predicted, strict=True)):
        labels[row, 1 : 2 * len(right) : 2] = torch.tensor(right, dtype=torch.int64)
        guesses[row, 1 : 2 * len(right) : 2] = torch.tensor(guess, dtype=torch.int64)
    logits = logits_of(guesses, tags)
    return (lambda **_: SimpleNamespace(logits=logits)), Batch({"input_ids": labels}, labels)


@pytest.mark.parametrize("name", SCHEMES)
def test_entities_are_those_of_seqeval(name: str) -> None:
    tags, rng = SCHEMES[name], random.Random(7)
    objective = TokenClassification(tags, 0)
    assert objective.scheme.types == tuple(sorted(KINDS))
    for _ in range(6):
        sums, everything = np.zeros(objective.sums), ([], [])
        for _ in range(3):
            true = [rng.choices(range(len(tags)), k=rng.randint(0, 12)) for _ in range(5)] + [[1, 0]]
            predicted = [[tag if rng.random() < 0.6 else rng.randrange(len(tags)) for tag in row] for row in true]
            model, batch = tagging_batch(true, predicted, len(tags))
            sums += objective.score(model, batch)
            for names, ids in zip(everything, (true, predicted), strict=True):
                names += [[tags[i] for i in row] for row in ids]
        found, (gold, guess) = objective.metrics(sums), everything
        assert found["f1"] == pytest.approx(f1_score(gold, guess), abs=1e-12)
        assert found["precision"] == pytest.approx(precision_score(gold, guess), abs=1e-12)
        assert found["recall"] == pytest.approx(recall_score(gold, guess), abs=1e-12)
        assert found["f1_macro"] == pytest.approx(f1_score(gold, guess, average="macro"), abs=1e-12)
        assert found["accuracy"] == pytest.approx(accuracy_score(gold, guess), abs=1e-12)


def test_bilou_reads_as_iobes() -> None:
    bilou, iobes = tag_scheme(["O", "B-x", "I-x", "L-x", "U-x"]), tag_scheme(["O", "B-x", "I-x", "E-x", "S-x"])
    assert bilou.prefixes.tolist() == iobes.prefixes.tolist()


def test_plain_tags_are_scored_word_by_word() -> None:
    tags, rng = ["ADJ", "NOUN", "O", "X-ray"], random.Random(1)
    objective = TokenClassification(tags, 0)
    true = [rng.choices(range(4), k=rng.randint(1, 9)) for _ in range(20)]
    predicted = [[tag if rng.random() < 0.5 else rng.randrange(4) for tag in row] for row in true]
    model, batch = tagging_batch(true, predicted, 4)
    found = objective.metrics(objective.score(model, batch))
    gold, guess = [t for row in true for t in row], [t for row in predicted for t in row]
    assert found["f1"] == pytest.approx(reference.accuracy_score(gold, guess)) == pytest.approx(found["accuracy"])
    assert found["f1_macro"] == pytest.approx(reference.f1_score(gold, guess, average="macro"))


def test_a_batch_without_words_scores_nothing() -> None:
    objective = TokenClassification(SCHEMES["IOB"], 0)
    batch = objective.empty_batch()
    model = lambda **_: SimpleNamespace(logits=logits_of(batch.labels, 7))  # noqa: E731
    assert objective.targets(batch) == 0
    assert not objective.score(model, batch).any()
    assert float(objective.loss_sum(model, batch)) == 0
    assert all(value == 0 for value in objective.metrics(np.zeros(objective.sums)).values())


@pytest.mark.parametrize(("mean", "spread"), [(0.0, 1.0), (3.0, 0.2), (-2000.0, 1.0), (1e5, 10.0)])
def test_regression_scores_are_the_usual_ones(mean: float, spread: float) -> None:
    rng = np.random.default_rng(0)
    labels = mean + spread * rng.standard_normal(700)
    predicted = labels + spread * 0.5 * rng.standard_normal(700)
    objective, sums = TextRegression(0), np.zeros(8)
    for part in np.array_split(np.arange(700), 11):
        logits = torch.tensor(predicted[part])[:, None]
        batch = Batch({"input_ids": logits}, torch.tensor(labels[part]))
        sums += objective.score(lambda logits=logits, **_: SimpleNamespace(logits=logits), batch)
    found = objective.metrics(sums)
    assert found["loss"] == pytest.approx(reference.mean_squared_error(labels, predicted), rel=1e-9)
    assert found["rmse"] == pytest.approx(reference.root_mean_squared_error(labels, predicted), rel=1e-9)
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(labels, predicted), rel=1e-9)
    assert found["r2"] == pytest.approx(reference.r2_score(labels, predicted), rel=1e-6)
    assert found["pearson"] == pytest.approx(pearsonr(labels, predicted)[0], rel=1e-6)


def test_correlation_of_a_constant_is_none_and_so_is_that_of_no_rows() -> None:
    objective = TextRegression(0)
    logits = torch.linspace(0, 1, 50, dtype=torch.float64)[:, None]
    batch = Batch({"input_ids": logits}, torch.full((50,), 0.1, dtype=torch.float64))
    found = objective.metrics(objective.score(lambda **_: SimpleNamespace(logits=logits), batch))
    assert (found["pearson"], found["r2"]) == (0.0, 0.0)
    assert all(value == 0 for value in objective.metrics(np.zeros(8)).values())
    empty = objective.empty_batch()
    one = torch.ones((1, 1), requires_grad=True)
    loss = objective.loss_sum(lambda **_: SimpleNamespace(logits=one), empty)
    loss.backward()  # type: ignore[no-untyped-call]
    assert (objective.targets(empty), loss.item(), float(one.grad.abs().sum())) == (0.0, 0.0, 0.0)  # type: ignore[union-attr]
