"""A trial's spec and inputs: the job's, with the trial's values in place."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from astraml_ray.data.manifest import Manifest
from astraml_ray.errors import AstraError
from astraml_ray.settings import Settings
from astraml_ray.spec import JobSpec
from astraml_ray.spec.documents import changed
from astraml_ray.spec.hyperparams import EarlyStopping
from astraml_ray.spec.loading import parse_spec
from astraml_ray.spec.sweep import Sweep
from astraml_ray.training.preparation import RunInputs, placed, prepare
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.training.timetable import Timetable

__all__ = [
    "Course",
    "Goal",
    "augmentations_in",
    "check_preparation",
    "course_of",
    "evaluations_of",
    "extremes",
    "goal_of",
    "seated",
    "trial_id",
    "trial_inputs",
    "watching",
]

_NEVER = 10_000
_UNREAD = frozenset(
    f"hyperparams.{name}"
    for name in (
        *("lr", "lr_scheduler", "warmup_steps", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"),
        *("batch_size", "gradient_accumulation_steps", "epochs", "max_steps", "max_grad_norm", "precision"),
        *("eval_every", "early_stopping.patience", "early_stopping.min_delta", "early_stopping.restore_best"),
    )
) | {"checkpoint.every", "checkpoint.keep"}
"""The fields that prepare does not look at. A trial with any other value of its own is prepared anew."""


@dataclass(frozen=True)
class Goal:
    """What trials are compared by.

    Attributes:
        metric: As `validation/loss`.
        lower: Whether lower is better.
    """

    metric: str
    lower: bool

    @property
    def mode(self) -> str:
        """`min` or `max`."""
        return "min" if self.lower else "max"

    def reward(self, value: float | None) -> float:
        """Higher is better; a value that is not finite is worse than any other."""
        if value is None or not math.isfinite(value):
            return -1e300
        return -value if self.lower else value


@dataclass(frozen=True)
class Course:
    """How long a trial's run is, in evaluations.

    Attributes:
        evaluations: Of the whole run.
        steps: Optimizer steps from one to the next.
    """

    evaluations: int
    steps: int

    def evaluation_at(self, step: int) -> int:
        """Which evaluation, from 1, the one at a step is."""
        return min(self.evaluations, math.ceil(step / self.steps))


def trial_id(number: int) -> str:
    """The name of a trial, and of its folder."""
    return f"t{number:04d}"


def goal_of(spec: JobSpec) -> Goal:
    """What the sweep of a spec compares by, every `auto` resolved."""
    sweep, rule = _sweep(spec), spec.hyperparams.early_stopping or EarlyStopping()
    metric = sweep.metric or rule.monitor
    mode = rule.mode if sweep.metric is None and sweep.mode == "auto" else sweep.mode
    return Goal(metric, EarlyStopping(monitor=metric, mode=mode).lower_is_better)


def watching(spec: JobSpec, goal: Goal) -> JobSpec:
    """A spec whose runs keep the best model by the goal, and are no sweep."""
    rule: EarlyStopping | None = spec.hyperparams.early_stopping
    wanted: dict[str, Any] = {"monitor": goal.metric, "mode": goal.mode}
    if rule is None:
        unchanged = goal == Goal("validation/loss", True)
        rule = None if unchanged else EarlyStopping(patience=_NEVER, **wanted)
    else:
        rule = rule.model_copy(update=wanted)
    hyper = spec.hyperparams.model_copy(update={"early_stopping": rule})
    return spec.model_copy(update={"hyperparams": hyper, "sweep": None})


def trial_inputs(
    inputs: RunInputs,
    document: Mapping[str, Any],
    values: Mapping[str, Any],
    goal: Goal,
    settings: Settings,
    *,
    folder: RunFolder | None = None,
) -> RunInputs:
    """The inputs of a trial; what its values do not change is the sweep's.

    Args:
        inputs: Of the sweep.
        document: The job as it was submitted, nothing resolved.
        values: Of the trial: path -> value.
        goal: Of the sweep.
        settings: Of this process.
        folder: Of the trial; one that has begun keeps its rows, whatever has come to the dataset since.

    Raises:
        AstraError: The values make no run; `check_preparation` finds that out beforehand.
    """
    plain = {key: value for key, value in document.items() if key != "sweep"}
    asked, before, base = parse_spec(changed(plain, values)), parse_spec(plain), inputs.spec
    spec = watching(asked, goal)
    # An earlier job may have had other secrets: this one's are given.
    dataset = spec.dataset.model_copy(update={"credentials": base.dataset.credentials})
    spec = spec.model_copy(update={"dataset": dataset, "resources": base.resources, "env": base.env})
    if any(_prepares(path) for path in values):
        manifest = inputs.manifest if _read(asked) == _read(before) else _begun_with(folder)
        if manifest is not None:
            manifest = replace(manifest, secret=inputs.manifest.secret)
        found = prepare(spec, settings, secrets=inputs.secrets, manifest=manifest)[0]
        # It goes to whoever reads rows, and they are given no more than what reading takes.
        manifest = replace(found.manifest, secret=inputs.manifest.secret)
        return replace(found, manifest=manifest, translations=inputs.translations)
    hyper = spec.hyperparams.model_copy(update={"max_length": base.hyperparams.max_length})
    return replace(inputs, spec=spec.model_copy(update={"task": base.task, "hyperparams": hyper}))


def seated(inputs: RunInputs) -> tuple[RunInputs, torch.device]:
    """The inputs of a trial of one worker as they are where it trains, and what it trains on."""
    gpus = inputs.spec.resources.gpus not in (0, "auto")
    return placed(inputs, gpus=gpus), torch.device("cuda", 0) if gpus else torch.device("cpu")


def check_preparation(inputs: RunInputs, document: Mapping[str, Any], goal: Goal, settings: Settings) -> None:
    """Prepares a trial for every value that needs a preparation of its own, and throws the result away.

    Raises:
        AstraError: One of them makes no run; its `param` is the parameter's.
    """
    for path, distribution in _sweep(inputs.spec).parameters.items():
        # Of a seed, one value is as good as another.
        for value in distribution.probes() if _prepares(path) and path != "seed" else ():
            try:
                trial_inputs(inputs, document, {path: value}, goal, settings)
            except AstraError as error:
                error.message = f"with {path}={value!r}: {error.message}"
                error.param = f"/sweep/parameters/{path}"
                raise


def course_of(inputs: RunInputs) -> Course:
    """How long a trial's run is."""
    timetable = Timetable.of(inputs.spec.hyperparams, inputs.train_rows)
    return Course(evaluations_of(inputs.spec, inputs.train_rows), _every(inputs.spec, timetable))


def evaluations_of(spec: JobSpec, rows: int) -> int:
    """How many evaluations a whole run has."""
    timetable = Timetable.of(spec.hyperparams, rows)
    return math.ceil(timetable.total_steps / _every(spec, timetable))


def augmentations_in(inputs: RunInputs, document: Mapping[str, Any]) -> list[Any]:
    """The augmentations that trials have: the job's, or every choice of theirs.

    Args:
        inputs: Of the sweep.
        document: The job as it was submitted.
    """
    choices = _sweep(inputs.spec).parameters.get("augmentation")
    if choices is None:
        return [inputs.spec.augmentation]
    plain = {key: value for key, value in document.items() if key != "sweep"}
    return [parse_spec(changed(plain, {"augmentation": value})).augmentation for value in choices.probes()]


def extremes(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """Values one at a time, for what must hold for all trials."""
    yield {}
    for path, distribution in sweep.parameters.items():
        for value in distribution.probes():
            yield {path: value}


def _every(spec: JobSpec, timetable: Timetable) -> int:
    return spec.hyperparams.eval_interval().in_steps(timetable.steps_per_epoch)


def _prepares(path: str) -> bool:
    return path not in _UNREAD


def _begun_with(folder: RunFolder | None) -> Manifest | None:
    """The rows of a trial that has begun."""
    if folder is None or not folder.exists("inputs.json"):
        return None
    return Manifest.from_json(folder.read("manifest.json").decode())


def _read(spec: JobSpec) -> tuple[Any, ...]:
    """What a manifest follows from."""
    return spec.dataset, spec.task, spec.sampling == "natural"


def _sweep(spec: JobSpec) -> Sweep:
    assert spec.sweep is not None
    return spec.sweep
