"""How often the classes occur in an epoch of training rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from astraml_ray.errors import Problem
from astraml_ray.spec.base import SpecModel

__all__ = ["ClassWeights", "Sampling", "sampling_problems", "shares_of"]

Weight = Annotated[float, Field(gt=0, le=1e6)]


class ClassWeights(SpecModel):
    """Shares of the classes."""

    weights: Annotated[dict[str, Weight], Field(min_length=1, max_length=10_000)]
    """A class's share of an epoch is its weight by the sum of all; a class that is not named has weight 1."""


def _form(value: Any) -> str:
    return "name" if isinstance(value, str) else "weights"


Sampling = Annotated[
    Annotated[Literal["natural", "balanced"], Tag("name")] | Annotated[ClassWeights, Tag("weights")],
    Discriminator(_form),
]
"""`natural` (each row once per epoch), `balanced` (as many rows of each class), or weights."""


def shares_of(sampling: Literal["balanced"] | ClassWeights, classes: Sequence[str]) -> list[float]:
    """Each class's share of an epoch; together 1."""
    weights = sampling.weights if isinstance(sampling, ClassWeights) else {}
    given = [weights.get(name, 1.0) for name in classes]
    return [weight / sum(given) for weight in given]


def sampling_problems(sampling: str | ClassWeights, task: str, classes: Sequence[str] | None) -> list[Problem]:
    """What is wrong with a sampling: rows that have no classes, and weights of classes that no training row has.

    Args:
        sampling: From the spec.
        task: The resolved one.
        classes: Of the training rows; None where each row has no single one.
    """
    if sampling == "natural":
        return []
    if classes is None:
        return [Problem("/sampling", f"{task} has no classes to sample by", "leave it out")]
    if not isinstance(sampling, ClassWeights):
        return []
    known = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
    return [
        Problem("/sampling/weights", f"no training row is of class {name!r}", f"the classes are {known}")
        for name in sorted(set(sampling.weights) - set(classes))
    ]
