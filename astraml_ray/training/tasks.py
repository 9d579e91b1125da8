"""What each task needs: its transformers class, its objective, the metrics it has. A new task is a new entry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from astraml_ray.data.encoding.images import ImageEncoder
from astraml_ray.errors import ModelError, Problem, SpecError
from astraml_ray.spec.augmentation import Augmentation, check_augmentations
from astraml_ray.spec.job import JobSpec
from astraml_ray.training.objectives.classification import CLASS_METRICS, TextClassification
from astraml_ray.training.objectives.images import IMAGE_METRICS, ImageClassification
from astraml_ray.training.objectives.language import LANGUAGE_METRICS, LanguageModel
from astraml_ray.training.objectives.objective import Objective
from astraml_ray.training.objectives.regression import REGRESSION_METRICS, TextRegression
from astraml_ray.training.objectives.tagging import TAG_METRICS, TokenClassification

__all__ = ["TASKS", "TaskKind", "check_for_task", "check_model", "objective_of"]


@dataclass(frozen=True)
class TaskKind:
    """A task.

    Attributes:
        model: transformers' Auto class.
        objective: Makes the objective of (classes or tags, padding id; 0 where there is none); None for images,
            whose objective is made of their encoder.
        metrics: What an evaluation gives.
    """

    model: Any
    objective: Callable[[Sequence[str], int], Objective] | None
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
    "image-classification": TaskKind(AutoModelForImageClassification, None, IMAGE_METRICS),
}
"""By name."""


def objective_of(
    task: str,
    classes: Sequence[str],
    pad_id: int = 0,
    *,
    images: ImageEncoder | None = None,
    augmentations: tuple[Augmentation, ...] = (),
    smoothing: float = 0.0,
) -> Objective:
    """The objective of a resolved task.

    Args:
        task: One of TASKS.
        classes: Classes or tags; none where there are none.
        pad_id: The padding token, of texts.
        images: The encoder, of images.
        augmentations: Of training rows, for those that are augmented on the device.
        smoothing: Of the classes' targets in training.
    """
    make = TASKS[task].objective
    if make is None:
        assert images is not None, "preparation makes an encoder of images for images"
        return ImageClassification(len(classes), images, augmentations, smoothing)
    objective = make(classes, pad_id)
    return replace(objective, smoothing=smoothing) if isinstance(objective, TextClassification) else objective


def check_model(config: Any, task: str) -> None:
    """Refuses a model of a kind that transformers has not for the task.

    Raises:
        ModelError: It names the tasks that there are for it.
    """
    if type(config) in TASKS[task].model._model_mapping:
        return
    fitting = [name for name, kind in TASKS.items() if type(config) in kind.model._model_mapping]
    raise ModelError(
        f"{config.model_type} models are not made for {task}",
        param="/model",
        hint=f"they are for {', '.join(fitting) or 'none of the tasks'}; `astraml models` lists others",
    )


def check_for_task(spec: JobSpec, task: str, *, pairs: bool) -> None:
    """Refuses settings that a task does not have.

    Raises:
        SpecError: Each with its field.
    """
    check_augmentations(spec.augmentation, task, pairs=pairs)
    problems = []
    if spec.hyperparams.label_smoothing and task not in ("text-classification", "image-classification"):
        problems.append(Problem("/hyperparams/label_smoothing", f"{task} has none", "leave it out"))
    if spec.hyperparams.image_size and task != "image-classification":
        problems.append(Problem("/hyperparams/image_size", f"{task} has no images", "leave it out"))
    if problems:
        raise SpecError(problems)
