"""What the values of v1.x specs become in v2.1. Each raises ValueError for one that v2.1 cannot mean. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

__all__ = [
    "early_stopping_of",
    "init_of",
    "interval_of",
    "labels_of",
    "monitor_of",
    "norm_of",
    "number_of",
    "optimizer_of",
    "precision_if",
    "precision_of",
    "scheduler_of",
    "seconds_of",
    "share_of",
    "shuffle_of",
    "steps_of",
    "task_of",
    "whole_of",
]

_SCHEDULERS = {
    "cosine": "cosine",
    "cosine_with_warmup": "cosine",
    "cosine_annealing": "cosine",
    "cosineannealinglr": "cosine",
    "linear": "linear",
    "linear_with_warmup": "linear",
    "linear_decay": "linear",
    "constant": "constant",
    "constant_with_warmup": "constant",
    "none": "constant",
    "fixed": "constant",
}
_MONITORS = {"acc": "accuracy"}
_PRECISIONS = {
    "16": "fp16",
    "16-mixed": "fp16",
    "fp16": "fp16",
    "float16": "fp16",
    "half": "fp16",
    "bf16": "bf16",
    "bf16-mixed": "bf16",
    "bfloat16": "bf16",
    "32": "fp32",
    "32-true": "fp32",
    "fp32": "fp32",
    "float32": "fp32",
    "no": "fp32",
    "full": "fp32",
    "auto": "auto",
    "mixed": "auto",
}
_TASKS = {
    "classification": "text-classification",
    "sequence-classification": "text-classification",
    "text-classification": "text-classification",
    "clm": "causal-lm",
    "causal-lm": "causal-lm",
    "language-modeling": "causal-lm",
    "mlm": "masked-lm",
    "masked-lm": "masked-lm",
    "auto": "auto",
}
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")


def number_of(value: Any) -> Any:
    """A number, also one that was written as text."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        text = value.strip()
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    return value


def whole_of(value: Any) -> Any:
    """A whole number, also 5.0."""
    number = number_of(value)
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _table(names: Mapping[str, str], what: str) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        known = names.get(str(value).strip().lower().replace(" ", "_"))
        if known is None:
            raise ValueError(f"v2.1 has no such {what}; it has {', '.join(dict.fromkeys(names.values()))}")
        return known

    return convert


def task_of(value: Any) -> Any:
    """The task."""
    return _table(_TASKS, "task")(str(value).replace("_", "-"))


def scheduler_of(value: Any) -> Any:
    """The scheduler; none was a constant rate."""
    return "constant" if value is None or value is False else _table(_SCHEDULERS, "scheduler")(value)


def precision_of(value: Any) -> Any:
    """The precision, by its name or its bits."""
    return _table(_PRECISIONS, "precision")(value)


def precision_if(precision: str) -> Callable[[Any], Any]:
    """From a flag such as `fp16`."""

    def convert(value: Any) -> Any:
        if not isinstance(value, bool):
            raise ValueError("must be true or false")
        return precision if value else "fp32"

    return convert


def monitor_of(value: Any) -> Any:
    """The metric that early stopping watches."""
    if not isinstance(value, str):
        raise ValueError("must be the name of a metric, such as val_loss")
    name = re.sub(r"^(?:validation|valid|val|eval|dev)[/_]", "", value.strip().lower())
    return f"validation/{_MONITORS.get(name, name)}"


def early_stopping_of(value: Any) -> Any:
    """true, false, or the patience."""
    if value is None or value is False:
        return None
    if value is True:
        return {}
    return {"patience": whole_of(value)}


def share_of(value: Any) -> Any:
    number = number_of(value)
    if isinstance(number, (int, float)) and not isinstance(number, bool) and not 0 <= number < 1:
        raise ValueError("must be a share from 0 to 1")
    return number


def norm_of(value: Any) -> Any:
    """Zero was no clipping."""
    number = number_of(value)
    return None if number == 0 and not isinstance(number, bool) else number


def steps_of(value: Any) -> Any:
    """-1 was no bound."""
    number = whole_of(value)
    return None if number == -1 else number


def interval_of(value: Any) -> Any:
    """A whole number is steps, one between 0 and 1 a share of an epoch."""
    number = number_of(value)
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        return {"epoch": "1 epochs", "epochs": "1 epochs"}.get(str(value), value)
    return f"{number:g} epochs" if isinstance(number, float) and 0 < number <= 1 else f"{whole_of(number)} steps"


def seconds_of(value: Any) -> Any:
    """A number was seconds."""
    number = whole_of(value)
    return f"{number}s" if isinstance(number, (int, float)) and not isinstance(number, bool) else value


def init_of(value: Any) -> Any:
    """From `pretrained: true`."""
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return "pretrained" if value else "scratch"


def labels_of(value: Any) -> Any:
    """A list of tags becomes labels without values."""
    if isinstance(value, list) and all(isinstance(tag, str) for tag in value):
        return dict.fromkeys(value, "")
    return value


def optimizer_of(value: Any) -> Any:
    """Anything but a kind of Adam is refused."""
    if not isinstance(value, str) or not re.fullmatch(r"adam_?w?(?:_?(?:torch|hf|fused))*", value.strip().lower()):
        raise ValueError("v2.1 trains with AdamW alone")
    return None


def shuffle_of(value: Any) -> Any:
    """Anything but true is refused."""
    if value is not True:
        raise ValueError("v2.1 always shuffles, in an order that the seed fixes; leave it out")
    return None
