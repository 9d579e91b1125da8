"""Warnings about settings that cannot work, each naming its field. Pure."""

from __future__ import annotations

import math

from astraml_ray.data.bad_data.tolerance import counted_reasons
from astraml_ray.data.manifest import Manifest
from astraml_ray.errors import Problem
from astraml_ray.spec.dataset import BadRowPolicy
from astraml_ray.spec.job import JobSpec
from astraml_ray.training.timetable import Timetable

__all__ = ["advise", "left_out_warnings"]


def advise(spec: JobSpec, *, train_rows: int, validation_rows: int, truncated_share: float = 0.0) -> list[Problem]:
    """What the user should know before the run begins.

    Args:
        spec: The job.
        train_rows: Training rows of an epoch.
        validation_rows: Validation rows.
        truncated_share: Share of a sample of the rows that is longer than the context.
    """
    hyper = spec.hyperparams
    timetable = Timetable.of(hyper, train_rows)
    total = timetable.total_steps
    found: list[Problem] = []

    def warn(param: str, message: str, hint: str) -> None:
        found.append(Problem(param, message, hint))

    evaluations = math.ceil(total / hyper.eval_interval().in_steps(timetable.steps_per_epoch))
    if hyper.early_stopping and hyper.early_stopping.patience >= evaluations:
        warn(
            "/hyperparams/early_stopping/patience",
            f"patience {hyper.early_stopping.patience} can never fire: the run has {evaluations} evaluations",
            "lower it, or lower hyperparams.eval_every",
        )
    warmup = timetable.warmup_steps(hyper.warmup_steps)
    if warmup >= total:
        warn(
            "/hyperparams/warmup_steps",
            f"the warm-up of {warmup} steps is no shorter than the run of {total} steps",
            "lower it: the learning rate never reaches its peak for long",
        )
    if hyper.batch_size > train_rows:
        warn(
            "/hyperparams/batch_size",
            f"{hyper.batch_size} is more than the {train_rows} training rows",
            "every step sees the whole dataset; lower it",
        )
    if truncated_share:
        effect = "becomes several sequences" if spec.task in ("causal-lm", "masked-lm") else "is cut off"
        warn(
            "/hyperparams/max_length",
            f"{truncated_share:.1%} of a sample of the rows are longer than the context; what is beyond {effect}",
            "raise it if the model allows, or shorten the texts",
        )
    if validation_rows < 30:
        warn(
            "/dataset/validation_fraction",
            f"the validation set has {validation_rows} rows: its scores mean little",
            "give dataset.validation, or raise the fraction",
        )
    return found


def left_out_warnings(manifest: Manifest, policy: BadRowPolicy) -> list[Problem]:
    """What is told of the rows that are left out."""
    hint = (
        "the run's quarantine.jsonl has them" if policy == "quarantine" else "dataset.on_bad_row=quarantine keeps them"
    )
    return [
        Problem(
            "/dataset/on_bad_row",
            f"{left.count:,} of {left.rows:,} rows of {name} are left out ({counted_reasons(left.reasons)}); the "
            f"first: {left.first[0]}",
            hint,
        )
        for name, left in manifest.left_out.items()
    ]
