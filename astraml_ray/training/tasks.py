"""What each task needs: its transformers class, its objective, the metrics it has. A new task is a new entry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from astraml_ray.training.objectives.classification import CLASS_METRICS, TextClassification
from astraml_ray.training.objectives.language import LANGUAGE_METRICS, LanguageModel
from astraml_ray.training.objectives.objective import Objective
from astraml_ray.training.objectives.regression import REGRESSION_METRICS, TextRegression
from astraml_ray.training.objectives.tagging import TAG_METRICS, TokenClassification

__all__ = ["TASKS", "TaskKind", "objective_of"]


@dataclass(frozen=True)
class TaskKind:
    """A task.

    Attributes:
        model: transformers' Auto class.
        objective: Makes the objective of (classes or tags, padding id; 0 where there is none).
        metrics: What an evaluation gives.
    """

    model: Any
    objective: Callable[[Sequence[str], int], Objective]
    metrics: tuple[str, ...]


TASKS: dict[str, TaskKind] = {
    "text-classification": TaskKind(
        AutoModelForSequenceClassification,
        lambda classes, pad: TextClassification(len(classes), pad),
        CLASS_METRICS,
    ),
    "text-regression": TaskKind(
        AutoModelForSequenceClassification, lambda _, pad: TextRegression(pad), REGRESSION_METRICS
    ),
    "token-classification": TaskKind(AutoModelForTokenClassification, TokenClassification, TAG_METRICS),
    "causal-lm": TaskKind(AutoModelForCausalLM, lambda _, pad: LanguageModel(pad, causal=True), LANGUAGE_METRICS),
    "masked-lm": TaskKind(AutoModelForMaskedLM, lambda _, pad: LanguageModel(pad, causal=False), LANGUAGE_METRICS),
}
"""By name."""


def objective_of(task: str, classes: Sequence[str], pad_id: int) -> Objective:
    """The objective of a resolved task."""
    return TASKS[task].objective(classes, pad_id)
