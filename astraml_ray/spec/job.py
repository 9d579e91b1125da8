"""JobSpec, version v2.1: what is submitted, and what `astraml run` runs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

from astraml_ray.spec.augmentation import Augmentations
from astraml_ray.spec.base import Duration, SpecModel
from astraml_ray.spec.dataset import DatasetSpec, dataset_from_input
from astraml_ray.spec.hyperparams import Hyperparams, IntervalText
from astraml_ray.spec.model import ModelSpec, model_from_input
from astraml_ray.spec.sampling import Sampling
from astraml_ray.spec.schedule import Schedule
from astraml_ray.spec.secrets import Environment
from astraml_ray.spec.sweep import Sweep

__all__ = ["CheckpointPolicy", "JobSpec", "Limits", "Resources", "Schedule", "Task"]

Task = Literal[
    "auto",
    "text-classification",
    "text-regression",
    "token-classification",
    "image-classification",
    "causal-lm",
    "masked-lm",
]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
LabelKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$")]
LabelValue = Annotated[str, StringConstraints(max_length=128, pattern=r"^[^\x00-\x1f]*$")]


class Resources(SpecModel):
    """What a run takes of the cluster."""

    gpus: int | Literal["auto"] = "auto"
    """GPUs, one worker each; 0 trains on CPUs; `auto` is one if the cluster has a GPU, else none."""
    workers: int | None = Field(default=None, ge=1, le=4096)
    """Workers; left out, one per GPU, or one."""
    cpus_per_worker: float | None = Field(default=None, gt=0)
    """CPUs that each worker asks Ray for; left out, one, or less on a cluster too small for that."""
    threads_per_worker: int | None = Field(default=None, ge=1)
    """torch threads of each worker. A resumed run is bit-identical at the same number."""

    @field_validator("gpus")
    @classmethod
    def _not_negative(cls, gpus: int | str) -> int | str:
        if isinstance(gpus, int) and not 0 <= gpus <= 4096:
            raise ValueError("must be from 0 to 4096")
        return gpus

    @model_validator(mode="after")
    def _one_gpu_each(self) -> Resources:
        if isinstance(self.gpus, int) and self.gpus > 0 and self.workers not in (None, self.gpus):
            raise ValueError(f"`workers` must equal `gpus` ({self.gpus}): a worker has one GPU; leave it out")
        return self


class CheckpointPolicy(SpecModel):
    """Checkpoints are written at every evaluation, and here more often if that is too seldom."""

    every: IntervalText | None = None
    """For instance "100 steps": the most work that a killed worker can cost."""
    keep: int = Field(default=2, ge=1, le=1000)
    """Newest checkpoints kept; the best one is kept besides."""


class Limits(SpecModel):
    """Bounds of a job. Durations are written "90s", "30m", "2h" or "7d"."""

    max_retries: int = Field(default=3, ge=0, le=100)
    """How often in a row, without progress, a failure of the infrastructure is tried again from the last checkpoint."""
    max_duration: Duration | None = None
    """Longest time from the first start to the end; then the run is saved, and fails with `deadline_exceeded`."""
    queue_timeout: Duration | None = None
    """Longest time in the queue before the first start; then the job fails with `queue_timeout`."""


class JobSpec(SpecModel):
    """A training job."""

    api_version: Literal["v2.1"] = "v2.1"
    project_id: Name = "default"
    name: Name | None = None
    """A name for people; the run's id begins with it."""
    dataset: Annotated[DatasetSpec, BeforeValidator(dataset_from_input, json_schema_input_type=str | DatasetSpec)]
    model: Annotated[ModelSpec, BeforeValidator(model_from_input, json_schema_input_type=str | ModelSpec)]
    task: Task = "auto"
    """`auto` goes by the columns: image-classification with images, token-classification with lists of words,
    text-classification with a label column, else what the model was made for."""
    hyperparams: Hyperparams = Hyperparams()
    augmentation: Augmentations = ()
    """Of the training rows: `none`, `light`, `medium`, `strong`, or a list."""
    augmentation_on: Literal["auto", "stream", "device"] = "auto"
    """Where images are augmented: in the data tasks (`stream`), or by each worker on its device. `auto` is the GPU
    where workers have one. Texts are augmented in the data tasks."""
    sampling: Sampling = "natural"
    """How often the classes occur in training: `natural`, `balanced`, or `{weights: {CLASS: share}}`. An epoch keeps
    its number of rows, and validation is untouched."""
    resources: Resources = Resources()
    checkpoint: CheckpointPolicy = CheckpointPolicy()
    limits: Limits = Limits()
    schedule: Schedule | None = None
    sweep: Sweep | None = None
    """Makes the job many trials, which differ in some fields."""
    env: Environment = Field(default={})
    """Variables of the training workers: `NAME: text`, or `NAME: {secret: SECRET}`."""
    labels: dict[LabelKey, LabelValue] = Field(default={}, max_length=64)
    """For people and filters: `GET /v2.1/jobs?label=team=vision`."""
    priority: int = Field(default=0, ge=-1000, le=1000)
    """In the service's queue; higher goes first, then the older job."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Sets the order of rows, the augmentation, dropout and random weights."""
