"""Dry runs, which do all that a run does before its first step, and looks at datasets. Imports the run wing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from astraml_ray.control.run_secrets import check_endpoint
from astraml_ray.data.formats import format_names, sources_of
from astraml_ray.data.inspection.inspect import inspect_dataset
from astraml_ray.data.inspection.preview import preview_dataset, within
from astraml_ray.data.manifest import Manifest, Split
from astraml_ray.settings import load_settings
from astraml_ray.spec import JobSpec
from astraml_ray.spec.loading import parse_spec
from astraml_ray.training.preparation import prepare
from astraml_ray.training.secrets import dataset_secret
from astraml_ray.training.timetable import Timetable

__all__ = ["dry_run", "inspect", "preview"]

_MOST_BYTES = 16 << 20
_MOST_CHARACTERS = 20_000


def dry_run(document: dict[str, Any], *, secrets: Callable[[str], str] | None = None) -> dict[str, Any]:
    """Reads the bucket and the model's files.

    Args:
        document: The spec.
        secrets: From a name to the value, of the dataset's credentials.

    Returns:
        `spec` (resolved), `dataset`, `steps` and `warnings`.

    Raises:
        AstraError: Why a run of this spec would fail.
    """
    spec = _readable(document, secrets)
    inputs, warnings = prepare(spec, load_settings(), secrets=secrets)
    hyper = inputs.spec.hyperparams
    timetable = Timetable.of(hyper, inputs.train_rows)
    total = timetable.total_steps
    evaluations = math.ceil(total / hyper.eval_interval().in_steps(timetable.steps_per_epoch))
    manifest = inputs.manifest
    return {
        "spec": inputs.spec.canonical(),
        "dataset": {
            "splits": {name: _split(manifest, split) for name, split in manifest.splits.items()},
            "columns": manifest.columns,
            "classes": list(manifest.labels),
            "left_out": {
                name: {"of": left.rows, "reasons": left.reasons, "first": list(left.first)}
                for name, left in manifest.left_out.items()
            },
            "digest": manifest.digest(),
        },
        "steps": {"per_epoch": timetable.steps_per_epoch, "total": total, "evaluations": evaluations},
        "warnings": [asdict(warning) for warning in warnings],
    }


def inspect(document: dict[str, Any], *, limit: int, secrets: Callable[[str], str] | None = None) -> dict[str, Any]:
    """Reads the dataset of a spec; see data.inspection.

    Args:
        document: The spec.
        limit: Rows of each split.
        secrets: From a name to the value, of the dataset's credentials.

    Raises:
        AstraError: Why it cannot be read.
    """
    spec = _readable(document, secrets)
    return inspect_dataset(spec.dataset, limit=limit, secret=dataset_secret(spec, secrets))


def preview(
    document: dict[str, Any], *, rows: int, draws: int, secrets: Callable[[str], str] | None = None
) -> dict[str, Any]:
    """What augmentation makes of the first training rows of a spec; see data.inspection.preview.

    Args:
        document: The spec.
        rows: How many, at most.
        draws: Of images: epochs to show of each row.
        secrets: From a name to the value, of the dataset's credentials.

    Raises:
        AstraError: Why there is nothing to show.
    """
    spec = _readable(document, secrets)
    secret = dataset_secret(spec, secrets)
    found = preview_dataset(spec, rows=rows, draws=draws, cache=load_settings().cache, secret=secret)
    return within(found, most_bytes=_MOST_BYTES, most_characters=_MOST_CHARACTERS)


def _readable(document: dict[str, Any], secrets: Callable[[str], str] | None) -> JobSpec:
    """A spec whose credentials lead to no address that must not be called."""
    spec = parse_spec(document)
    if secrets is not None and spec.dataset.credentials is not None:
        check_endpoint(secrets(spec.dataset.credentials.secret))
    return spec


def _split(manifest: Manifest, split: Split) -> dict[str, Any]:
    kinds = {part.source: manifest.formats[part.source] for part in split.fragments}
    objects = {info for part in split.fragments for info in sources_of(manifest.objects, part, kinds[part.source])}
    return {
        "rows": split.total_rows,
        "objects": sum(bool(info.etag) for info in objects),
        "bytes": sum(info.size for info in objects),
        "formats": format_names(kinds.values()),
    }
