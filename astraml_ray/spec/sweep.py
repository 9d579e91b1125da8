"""Sweeps: which fields of a job vary over its trials, and how trials are chosen and stopped."""

from __future__ import annotations

import math
import random
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, StringConstraints, field_validator, model_validator

from astraml_ray.spec.base import Duration, SpecModel, seconds_of

__all__ = ["MAX_TRIALS", "MAX_VALUES", "Budget", "Distribution", "Sweep"]

MAX_TRIALS = 2000
MAX_VALUES = 400
"""Values of all parameters together: each is checked before anything runs."""
_MOST_POINTS = 2**62
_LARGEST = 2**53
ParameterPath = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)*$", max_length=200)]
Range = Annotated[list[float], Field(min_length=2, max_length=2)]


class Distribution(SpecModel):
    """Where the values of one field come from: exactly one of these."""

    choice: list[JsonValue] | None = Field(default=None, min_length=1, max_length=200)
    """One of these values, each as likely."""
    uniform: Range | None = None
    """A number between two."""
    log_uniform: Range | None = None
    """A number between two, uniform in its logarithm."""
    int_uniform: Annotated[list[int], Field(min_length=2, max_length=3)] | None = None
    """A whole number from the first to the second, in steps of the third, or of 1."""

    @model_validator(mode="after")
    def _one_of_them(self) -> Distribution:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"takes exactly one of {', '.join(type(self).model_fields)}; got {len(given)}")
        name, values = given[0], getattr(self, given[0])
        if name == "choice":
            if any(values.index(value) != place for place, value in enumerate(values)):
                raise ValueError("`choice` has a value twice")
            return self
        if not values[0] < values[1]:
            raise ValueError(f"`{name}` is [low, high], and low must be below high")
        if name == "log_uniform" and values[0] <= 0:
            raise ValueError("`log_uniform` needs numbers above zero")
        if name == "int_uniform" and len(values) == 3 and values[2] < 1:
            raise ValueError("the step of `int_uniform` must be at least 1")
        if name == "int_uniform" and max(map(abs, values)) > _LARGEST:
            raise ValueError("the numbers of `int_uniform` must be within 2**53 of zero: floats hold no larger ones")
        return self

    @property
    def whole(self) -> range | None:
        """The numbers of `int_uniform`."""
        if self.int_uniform is None:
            return None
        low, high, step = (*self.int_uniform, 1)[:3]
        return range(low, high + 1, step)

    def values(self) -> list[Any] | None:
        """Every value, if there is a list of them."""
        if self.choice is not None:
            return list(self.choice)
        whole = self.whole
        return None if whole is None or len(whole) > MAX_TRIALS else list(whole)

    def at(self, share: float) -> Any:
        """The value at a share of the way through, from 0 to below 1; whole numbers and choices are as likely each."""
        if self.choice is not None:
            return self.choice[int(share * len(self.choice))]
        if (whole := self.whole) is not None:
            return whole[min(len(whole) - 1, int(share * len(whole)))]
        if self.uniform is not None:
            return self.uniform[0] + share * (self.uniform[1] - self.uniform[0])
        assert self.log_uniform is not None
        least, most = self.log_uniform
        return min(most, max(least, least * math.exp(share * math.log(most / least))))

    def probes(self) -> list[Any]:
        """Values that tell whether all are valid: every choice, or both ends and some between, not all whole."""
        if self.choice is not None:
            return list(self.choice)
        if (whole := self.whole) is not None:
            return [whole[0], whole[-1]] if len(whole) > 1 else [whole[0]]
        least, most = self.uniform or self.log_uniform or (0.0, 0.0)
        return [least, self.at(0.381966), self.at(0.618034), most]


class Budget(SpecModel):
    """What a sweep may use. Once it is used up, running trials are stopped, and the best model so far is published."""

    gpu_hours: float | None = Field(default=None, gt=0)
    """Over all trials."""
    time: Duration | None = None
    """From the sweep's start to its end, without the time that it was not running."""
    cost: float | None = Field(default=None, gt=0)
    """In any currency; needs `price_per_gpu_hour`."""
    price_per_gpu_hour: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _has_a_price(self) -> Budget:
        if self.cost is not None and self.price_per_gpu_hour is None:
            raise ValueError("`cost` needs `price_per_gpu_hour`: nobody else knows what an hour costs")
        if self.gpu_hours is None and self.time is None and self.cost is None:
            raise ValueError("set `gpu_hours`, `time` or `cost`; or leave the budget out")
        return self

    def used_up(self, *, gpu_hours: float, seconds: float) -> bool:
        """Whether any of its parts is."""
        return (
            (self.gpu_hours is not None and gpu_hours >= self.gpu_hours)
            or (self.time is not None and seconds >= seconds_of(self.time))
            or (self.cost is not None and gpu_hours * (self.price_per_gpu_hour or 0.0) >= self.cost)
        )


class Sweep(SpecModel):
    """Makes a job many trials of it, which differ in some fields; the best trial's model is the job's."""

    parameters: dict[ParameterPath, Distribution] = Field(min_length=1, max_length=32)
    """By the path of a field of this spec, such as `hyperparams.lr`: where its values come from."""
    metric: str | None = Field(default=None, pattern=r"^validation/[a-z0-9_]+$")
    """What trials are compared by; left out, what early stopping watches, or `validation/loss`."""
    mode: Literal["auto", "min", "max"] = "auto"
    """Which way is better; `auto` is min for losses, errors and perplexity, max for everything else."""
    algorithm: Literal["random", "grid", "optuna"] | None = None
    """Left out, `grid` if every parameter has a list of values and `trials` is left out too, else `random`."""
    scheduler: Literal["asha", "hyperband", "median", "pbt", "none"] = "asha"
    """Which trials are stopped before their end; `pbt` lets the weak go on from the weights of the strong."""
    trials: int | None = Field(default=None, ge=1, le=MAX_TRIALS)
    """How many; a grid may leave it out."""
    max_concurrent: int | None = Field(default=None, ge=1, le=1000)
    """Trials at a time, at most; left out, as many as the cluster has room for."""
    budget: Budget | None = None
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Sets which values are tried. Every trial trains with the job's own `seed`, unless that is a parameter."""
    reduction_factor: int = Field(default=4, ge=2, le=100)
    """asha, hyperband: of the trials that reach a rung, one in so many goes on."""
    grace: int = Field(default=1, ge=1, le=10_000)
    """asha, hyperband, median: evaluations that every trial has."""
    perturb_every: int = Field(default=1, ge=1, le=10_000)
    """pbt: evaluations between two looks at whom to copy."""

    @field_validator("parameters")
    @classmethod
    def _no_path_in_another(cls, parameters: dict[str, Distribution]) -> dict[str, Distribution]:
        for path in parameters:
            inside = [other for other in parameters if other.startswith(f"{path}.")]
            if inside:
                raise ValueError(f"{inside[0]} is a part of {path}: only one of them can vary")
        return parameters

    @field_validator("parameters")
    @classmethod
    def _few_enough_to_check(cls, parameters: dict[str, Distribution]) -> dict[str, Distribution]:
        values = sum(len(found.probes()) for found in parameters.values())
        if values > MAX_VALUES:
            raise ValueError(f"the parameters list {values} values, over {MAX_VALUES}: give ranges, or fewer of them")
        return parameters

    @model_validator(mode="after")
    def _countable(self) -> Sweep:
        if self.kind == "grid":
            endless = [path for path, found in self.parameters.items() if found.values() is None]
            if endless:
                raise ValueError(f"a grid needs lists of values; {endless[0]} has none: give it a `choice`")
            if self.grid_size > _MOST_POINTS:
                raise ValueError("the grid has over 2**62 points: give fewer values, or use `algorithm: random`")
            if self.trials is None and self.grid_size > MAX_TRIALS:
                raise ValueError(f"the grid has {self.grid_size} points, over {MAX_TRIALS}: set `trials`")
        elif self.trials is None:
            raise ValueError(f"`trials` is required: a {self.kind} search has no end of its own")
        return self

    @property
    def kind(self) -> Literal["random", "grid", "optuna"]:
        """The algorithm, resolved."""
        if self.algorithm is not None:
            return self.algorithm
        listed = all(found.values() is not None for found in self.parameters.values())
        return "grid" if listed and self.trials is None else "random"

    @property
    def grid_size(self) -> int:
        """Points of the grid."""
        return math.prod(len(found.values() or ()) for found in self.parameters.values())

    @property
    def count(self) -> int:
        """How many trials there are."""
        if self.kind == "grid":
            return min(self.grid_size, self.trials or self.grid_size)
        assert self.trials is not None
        return self.trials

    @property
    def most_at_once(self) -> int:
        """Trials at a time, on a cluster that has room for all of them."""
        return min(self.count, self.max_concurrent or self.count)

    def point(self, number: int) -> dict[str, Any]:
        """The parameters of trial `number` (from 0) of a grid or a random search: a function of that alone.

        A grid whose trials are compared with those before them is walked in a mixed order: in the order of its lists,
        each trial may well be the best so far, and none would be stopped.
        """
        if self.kind == "grid":
            if self.scheduler != "none":
                number = self.keyed("grid").sample(range(self.grid_size), self.count)[number]
            point = {}
            # As an odometer counts: the last one changes with every number.
            for path, found in reversed(self.parameters.items()):
                values = found.values() or []
                number, place = divmod(number, len(values))
                point[path] = values[place]
            return dict(reversed(point.items()))
        return {path: found.at(self.keyed(number, path).random()) for path, found in self.parameters.items()}

    def keyed(self, *key: int | str) -> random.Random:
        """Random numbers that follow from the seed and a key alone."""
        return random.Random("/".join(map(str, (self.seed, *key))))
