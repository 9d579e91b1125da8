"""What each task needs: its transformers class, its objective, the metrics it has. A new task is a new entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification

from astraml_ray.training.objectives.classification import CLASS_METRICS, TextClassification
from astraml_ray.training.objectives.language import LANGUAGE_METRICS, LanguageModel
from astraml_ray.training.objectives.objective import Objective

__all__ = ["TASKS", "TaskKind", "objective_of"]


@dataclass(frozen=True)
class TaskKind:
    """A task.

    Attributes:
        model: transformers' Auto class.
        objective: Makes the objective of (number of classes, padding id; 0 where there is none).
        metrics: What an evaluation gives.
    """

    model: Any
    objective: Callable[[int, int], Objective]
    metrics: tuple[str, ...]


TASKS: dict[str, TaskKind] = {
    "text-classification": TaskKind(AutoModelForSequenceClassification, TextClassification, CLASS_METRICS),
    "causal-lm": TaskKind(AutoModelForCausalLM, lambda _, pad: LanguageModel(pad, causal=True), LANGUAGE_METRICS),
    "masked-lm": TaskKind(AutoModelForMaskedLM, lambda _, pad: LanguageModel(pad, causal=False), LANGUAGE_METRICS),
}
"""By name."""


def objective_of(task: str, classes: int, pad_id: int) -> Objective:
    """The objective of a resolved task."""
    return TASKS[task].objective(classes, pad_id)
