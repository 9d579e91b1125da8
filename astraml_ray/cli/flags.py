"""The flags of a spec: one table, so that every verb that takes a spec has the same names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

__all__ = ["collect_flags", "label_option", "parse_labels", "set_option", "spec_options"]

_F = TypeVar("_F", bound=Callable[..., Any])


_FLAGS: tuple[tuple[str, str, Any, str], ...] = (
    ("--project", "project_id", str, "Project."),
    ("--name", "name", str, "A name for people; the run's id begins with it."),
    ("--dataset", "dataset", str, "Prefix, folder or file: s3://bucket/key, file:///path or a path."),
    ("--model", "model", str, "Alias (`astraml models`), hub id, folder or s3:// prefix."),
    ("--task", "task", str, "(text|token|image)-classification, text-regression, causal-lm, masked-lm or auto."),
    ("--gpus", "resources.gpus", int, "GPUs, one worker each; 0 trains on CPUs."),
    ("--workers", "resources.workers", int, "Workers, with --gpus 0."),
    ("--batch-size", "hyperparams.batch_size", int, "Rows of a micro-step over all workers."),
    ("--epochs", "hyperparams.epochs", int, "Epochs."),
    ("--lr", "hyperparams.lr", float, "Peak learning rate."),
    ("--seed", "seed", int, "Of row order, augmentation, dropout and random weights."),
    ("--priority", "priority", int, "In the service's queue: higher goes first."),
)


def spec_options(command: _F) -> _F:
    """Adds -f, --set and the flags of the table to a command."""
    command = label_option("For people and filters; may be repeated.")(command)
    for flag, path, kind, text in reversed(_FLAGS):
        command = click.option(flag, _parameter(path), type=kind, default=None, help=text)(command)
    command = set_option(command)
    return click.option("-f", "--file", "file", default=None, metavar="SPEC", help="A YAML or JSON spec.")(command)


def set_option(command: _F) -> _F:
    """Adds --set."""
    return click.option(
        "--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Any field: --set hyperparams.warmup_steps=0.1"
    )(command)


def label_option(text: str) -> Callable[[_F], _F]:
    """Adds --label, as often as wanted."""
    return click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help=text)


def parse_labels(given: Iterable[str]) -> dict[str, str]:
    """The pairs of --label."""
    found = {}
    for label in given:
        key, equals, value = label.partition("=")
        if not key or not equals:
            raise click.UsageError(f"--label {label}: write it as key=value")
        found[key] = value
    return found


def collect_flags(values: dict[str, Any]) -> dict[str, Any]:
    """The flags that were given, by the path of their field. A label is a field of its own, beside those of a file."""
    found = {path: values[_parameter(path)] for _, path, _, _ in _FLAGS if values[_parameter(path)] is not None}
    for key, value in parse_labels(values["labels"]).items():
        if "." in key:
            raise click.UsageError(f"--label {key}: a key with a dot can be set in a spec file only")
        found[f"labels.{key}"] = value
    return found


def _parameter(path: str) -> str:
    return "spec_" + path.replace(".", "_")
