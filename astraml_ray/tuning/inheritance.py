"""A trial goes on from another's checkpoint, with hyperparameters of its own."""

from __future__ import annotations

import io
import json
import time
from typing import Any

import torch

from astraml_ray.errors import StorageError
from astraml_ray.spec.hyperparams import Hyperparams
from astraml_ray.training.checkpoint import OPTIMIZER, FolderCheckpoints, checkpoint_folder
from astraml_ray.training.run_folder import RunFolder

__all__ = ["inherit"]

_MARK = "inherited.json"
_RECORDS = "metrics.jsonl"
_TRIES = 5
_PAUSE_S = 0.2


def inherit(donor: RunFolder, folder: RunFolder, hyper: Hyperparams, mark: dict[str, Any]) -> None:
    """Puts the donor's newest checkpoint, and its records, in the place of a trial's own; done already, does nothing.

    Args:
        donor: The run that is copied; it may be training.
        folder: The trial's run.
        hyper: What the trial goes on with: rates and decays that a checkpoint also holds.
        mark: Which copy this is, and the donor's `step`; written last, so that a killed one is made again.

    Raises:
        StorageError: The donor has no whole checkpoint.
    """
    if folder.exists(_MARK) and json.loads(folder.read(_MARK)) == mark:
        return
    theirs, ours = FolderCheckpoints(donor, keep=1), FolderCheckpoints(folder, keep=1000)
    for left in reversed(range(_TRIES)):
        newest = theirs.latest()
        best = newest[0].patience.best_step if newest else None
        kept = theirs.load(best) if newest and best not in (None, newest[0].step) else None
        whole = newest and (best in (None, newest[0].step) or kept)
        if newest and whole and (newest[0].step >= mark["step"] or not left):
            break  # otherwise the donor has pruned it meanwhile, or is writing: there is a newer one
        time.sleep(_PAUSE_S)
    else:
        raise StorageError("has no whole checkpoint to go on from", param=donor.uri)
    for step in ours.steps():
        folder.remove(checkpoint_folder(step))
    for found in filter(None, (kept, newest)):
        progress, files = found
        ours.save(progress, {**files, OPTIMIZER: _adjusted(files[OPTIMIZER], hyper)})
    ours.wait()
    if donor.exists(_RECORDS):
        # The checkpoint's past is the donor's; what was told of other weights would pass for it.
        folder.copy_from(donor, _RECORDS)
    folder.write(_MARK, json.dumps(mark).encode())


def _adjusted(data: bytes, hyper: Hyperparams) -> bytes:
    """An optimizer's state with other rates: its moments stay, and so does the schedule's place."""
    state = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    scheduler, groups = state["scheduler"], state["optimizer"]["param_groups"]
    for place, group in enumerate(groups):
        share = group["lr"] / group["initial_lr"] if group["initial_lr"] else 1.0
        group |= {"lr": hyper.lr * share, "initial_lr": hyper.lr, "eps": hyper.adam_epsilon}
        group["betas"] = (hyper.adam_beta1, hyper.adam_beta2)
        if place == 0:  # of matrices; biases and norms have none
            group["weight_decay"] = hyper.weight_decay
    scheduler["base_lrs"] = [hyper.lr] * len(groups)
    scheduler["_last_lr"] = [group["lr"] for group in groups]
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()
