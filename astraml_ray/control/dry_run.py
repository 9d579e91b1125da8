"""A dry run: all that a run does before its first step, and what that tells. Imports the run wing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from astraml_ray.control.run_secrets import check_endpoint
from astraml_ray.data.manifest import Manifest, Split
from astraml_ray.settings import load_settings
from astraml_ray.spec.loading import parse_spec
from astraml_ray.training.preparation import prepare
from astraml_ray.training.timetable import Timetable

__all__ = ["dry_run"]


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
    spec = parse_spec(document)
    if secrets is not None and spec.dataset.credentials is not None:
        check_endpoint(secrets(spec.dataset.credentials.secret))
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
            "columns": {"text": manifest.text, "label": manifest.label},
            "classes": list(manifest.labels),
            "digest": manifest.digest(),
        },
        "steps": {"per_epoch": timetable.steps_per_epoch, "total": total, "evaluations": evaluations},
        "warnings": [asdict(warning) for warning in warnings],
    }


def _split(manifest: Manifest, split: Split) -> dict[str, Any]:
    sources = sorted({fragment.source for fragment in split.fragments})
    return {
        "rows": split.total_rows,
        "objects": len(sources),
        "bytes": sum(manifest.objects[source].size for source in sources),
        "formats": sorted({manifest.formats[source] for source in sources}),
    }
