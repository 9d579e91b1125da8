"""A trial goes on from another's checkpoint, with hyperparameters of its own."""

from __future__ import annotations

import io
import json
import time
from typing import Any

import torch

from astraml_ray.errors import StorageError
from astraml_ray.spec.hyperparams import Hyperparams
from astraml_ray.training.checkpoint import OPTIMIZER, FolderCheckpoints, Progress, checkpoint_folder
from astraml_ray.training.run_folder import RunFolder

__all__ = ["INHERITED", "inherit"]

INHERITED = "inherited.json"
"""Tells which copy a trial has made; one that comes without it makes its last copy again."""
_RECORDS = "metrics.jsonl"
_WAIT_S = 60.0
"""For the donor's checkpoint of the step: it may still be on its way to a bucket. After that, an older one will do."""
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
    if folder.exists(INHERITED) and json.loads(folder.read(INHERITED)) == mark:
        return
    theirs, ours = FolderCheckpoints(donor, keep=1), FolderCheckpoints(folder, keep=1000)
    found = _newest(theirs, mark["step"])
    if not found:
        raise StorageError("has no whole checkpoint to go on from", param=donor.uri)
    for step in ours.steps():
        folder.remove(checkpoint_folder(step))
    for progress, files in found:
        ours.save(progress, {**files, OPTIMIZER: _adjusted(files[OPTIMIZER], hyper)})
    ours.wait()
    if donor.exists(_RECORDS):
        # The checkpoint's past is the donor's; what was told of other weights would pass for it.
        folder.copy_from(donor, _RECORDS)
    folder.write(INHERITED, json.dumps(mark).encode())


def _newest(theirs: FolderCheckpoints, step: int) -> list[tuple[Progress, dict[str, bytes]]]:
    """The newest checkpoint, of a step or later, after the best one as it knows it; none if there is none."""
    until = time.monotonic() + _WAIT_S
    while True:
        is_late = time.monotonic() >= until
        if is_late or any(there >= step for there in theirs.complete_steps()):
            newest = theirs.latest()
            best = newest[0].patience.best_step if newest else None
            kept = theirs.load(best) if newest and best not in (None, newest[0].step) else None
            whole = newest and (best in (None, newest[0].step) or kept)
            if newest and whole and (newest[0].step >= step or is_late):
                return [kept, newest] if kept else [newest]
        if is_late:
            return []
        time.sleep(_PAUSE_S)  # the donor is writing, or has pruned it meanwhile: then there is a newer one


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
