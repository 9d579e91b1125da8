"""Job specs: strict, frozen, and free of Ray and torch."""

from astraml_ray.spec.dataset import Columns, DatasetSpec
from astraml_ray.spec.hyperparams import EarlyStopping, Hyperparams, Interval
from astraml_ray.spec.job import JobSpec
from astraml_ray.spec.model import ModelSpec

__all__ = ["Columns", "DatasetSpec", "EarlyStopping", "Hyperparams", "Interval", "JobSpec", "ModelSpec"]
