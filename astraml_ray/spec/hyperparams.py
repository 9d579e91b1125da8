"""How a model is trained. The defaults of the reference request are fixed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from astraml_ray.spec.base import SpecModel

__all__ = ["EarlyStopping", "Hyperparams", "Interval", "lower_is_better", "parse_interval"]

_INTERVAL = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(epoch|epochs|step|steps)\s*$")


@dataclass(frozen=True)
class Interval:
    """How often something happens, in epochs or in optimizer steps."""

    count: float
    unit: Literal["epochs", "steps"]

    def in_steps(self, steps_per_epoch: int) -> int:
        """At least 1 optimizer step."""
        steps = self.count * steps_per_epoch if self.unit == "epochs" else self.count
        return max(1, round(steps))


def parse_interval(text: str) -> Interval:
    """Reads "0.25 epochs" or "50 steps".

    Raises:
        ValueError: The text is neither, or names nothing above zero.
    """
    match = _INTERVAL.match(text)
    if not match or float(match[1]) <= 0:
        raise ValueError('write it as "50 steps" or "0.25 epochs", above zero')
    unit: Literal["epochs", "steps"] = "epochs" if match[2].startswith("epoch") else "steps"
    if unit == "steps" and float(match[1]) != int(float(match[1])):
        raise ValueError("steps are whole numbers")
    return Interval(float(match[1]), unit)


def _check_interval(text: str) -> str:
    parse_interval(text)
    return text


IntervalText = Annotated[str, AfterValidator(_check_interval)]


def lower_is_better(metric: str, mode: Literal["auto", "min", "max"]) -> bool:
    """Which way a metric is better: `auto` is min for losses, errors and perplexity, max for everything else."""
    return metric.endswith(("loss", "perplexity", "mae", "rmse")) if mode == "auto" else mode == "min"


class EarlyStopping(SpecModel):
    """Stops the run when the monitored value no longer improves. It counts evaluations, not epochs."""

    patience: int = Field(default=5, ge=1, le=10_000)
    """Evaluations without improvement before the run stops."""
    monitor: str = Field(default="validation/loss", pattern=r"^validation/[a-z0-9_]+$")
    """The value watched; it also picks the best model."""
    mode: Literal["auto", "min", "max"] = "auto"
    """Which way is better; `auto` is min for losses, errors and perplexity, max for everything else."""
    min_delta: float = Field(default=0.0, ge=0)
    """A change smaller than this is no improvement."""
    restore_best: bool = True
    """Publish the best model; false publishes the last one."""

    @property
    def lower_is_better(self) -> bool:
        """The direction, with `auto` resolved."""
        return lower_is_better(self.monitor, self.mode)


class Hyperparams(SpecModel):
    """Hyperparameters of a run."""

    batch_size: int = Field(default=32, ge=1, le=1_000_000)
    """Rows of one micro-step over all workers: global, whatever their number."""
    lr: float = Field(default=3e-5, gt=0, le=100)
    """Peak learning rate of AdamW."""
    epochs: int = Field(default=5, ge=1, le=100_000)
    max_steps: int | None = Field(default=None, ge=1)
    """Ends the run after so many optimizer steps, if the epochs have not ended it before."""
    early_stopping: EarlyStopping | None = EarlyStopping()
    """null turns it off; the best model by validation loss is published all the same."""
    lr_scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    """Decay over the run's real number of optimizer steps, after the warm-up."""
    warmup_steps: int | float = Field(default=0, ge=0)
    """Optimizer steps of linear warm-up; below 1, a share of the run's steps."""
    gradient_accumulation_steps: int = Field(default=1, ge=1, le=1_000_000)
    """Micro-batches of one optimizer step: k of b rows equal one of k·b."""
    weight_decay: float = Field(default=0.01, ge=0, le=10)
    """Of matrices only; biases and norms are left alone."""
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    adam_beta2: float = Field(default=0.999, ge=0, lt=1)
    adam_epsilon: float = Field(default=1e-8, gt=0, lt=1)
    max_grad_norm: float | None = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm; null leaves them."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """`auto` is bf16 where the GPU has it, fp32 elsewhere."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Overrides every dropout rate of the model's configuration."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of each class's target that is spread over all classes, in training; scores know nothing of it."""
    image_size: int | None = Field(default=None, ge=8, le=4096)
    """Pixels of a side that an image model takes; left out, the model's own."""
    max_length: int | None = Field(default=None, ge=4, le=1_000_000)
    """Tokens of a row at most; left out, the model's context, at most 512."""
    mask_probability: float = Field(default=0.15, gt=0, lt=1)
    """Share of the tokens to predict in masked-lm."""
    eval_every: IntervalText = "0.25 epochs"
    """How often the validation set is scored (and a checkpoint written)."""

    def eval_interval(self) -> Interval:
        """`eval_every`, parsed."""
        return parse_interval(self.eval_every)
