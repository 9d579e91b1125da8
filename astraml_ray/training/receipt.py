"""What a run leaves as its account: result.json for programs, receipt.json to tell whether two runs are the same."""

from __future__ import annotations

import json
import platform
import time
from typing import Any

import numpy
import pyarrow
import ray
import tokenizers
import torch
import transformers

import astraml_ray
from astraml_ray.training.preparation import RunInputs
from astraml_ray.training.run_folder import RunFolder

__all__ = ["build_result", "read_result", "write_account"]

_RESULT = "result.json"


def build_result(
    inputs: RunInputs, folder: RunFolder, outcome: dict[str, Any], *, attempts: int, divisor: int
) -> dict[str, Any]:
    """The result object of `astraml run --output json`."""
    hyper = inputs.spec.hyperparams
    rows: dict[str, Any] = {f"{name}_rows": split.total_rows for name, split in inputs.manifest.splits.items()}
    if inputs.manifest.left_out:
        rows["rows_left_out"] = {name: left.reasons for name, left in inputs.manifest.left_out.items()}
    return {
        "status": "cancelled" if outcome["reason"] == "stopped_keep_best" else "succeeded",
        "reason": outcome["reason"],
        "run_id": folder.name,
        "run_path": folder.uri,
        "model_path": folder.path("model"),
        "task": inputs.spec.task,
        "steps": outcome["steps"],
        "best_step": outcome["best_step"],
        "epochs_completed": outcome["epochs_completed"],
        **rows,
        "effective_batch_size": hyper.batch_size * hyper.gradient_accumulation_steps,
        "workers": inputs.spec.resources.workers,
        "attempts": attempts,
        "micro_batch_divisor": divisor,
        "metrics": outcome["metrics"],
    }


def write_account(
    result: dict[str, Any], inputs: RunInputs, folder: RunFolder, outcome: dict[str, Any], *, started: float
) -> None:
    """Writes receipt.json, then result.json: with it, the run is over."""
    receipt = {
        "spec_sha256": inputs.spec.digest(),
        "manifest_sha256": inputs.manifest.digest(),
        "rows_left_out": {name: left.reasons for name, left in inputs.manifest.left_out.items()},
        "weights_sha256": outcome.get("weights_sha256"),
        "seed": inputs.spec.seed,
        "micro_batch_divisor": result["micro_batch_divisor"],
        "started_at": started,
        "finished_at": time.time(),
        "versions": {
            "astraml": astraml_ray.__version__,
            "python": platform.python_version(),
            "ray": ray.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
            "numpy": numpy.__version__,
            "pyarrow": pyarrow.__version__,
        },
    }
    folder.write("receipt.json", json.dumps(receipt, indent=1).encode())
    folder.write(_RESULT, json.dumps(result, indent=1).encode())


def read_result(folder: RunFolder) -> dict[str, Any] | None:
    """The result of a run that is over; None if it is not."""
    if not folder.exists(_RESULT):
        return None
    result: dict[str, Any] = json.loads(folder.read(_RESULT))
    return result
