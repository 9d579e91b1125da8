"""A sweep is taken up again when somebody asks for it: in its own folder, or as a new one."""

from __future__ import annotations

from typing import Any

from astraml_ray.training.fork import continue_from
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.tuning.director import trial_folder
from astraml_ray.tuning.inheritance import INHERITED
from astraml_ray.tuning.journal import read_sweep, write_sweep

__all__ = ["continue_sweep", "retry_failed"]


def continue_sweep(parent: RunFolder, folder: RunFolder) -> None:
    """Copies a sweep with its trials, as continue_from copies a run; killed and called again, it completes the copy.

    Trials that failed are to be tried again.

    Raises:
        StorageError: The parent is no sweep, or a folder cannot be read or written.
    """
    state = read_sweep(parent)
    for trial in state["trials"]:
        theirs, ours = trial_folder(parent, trial["number"]), trial_folder(folder, trial["number"])
        if theirs.exists("inputs.json") and not ours.exists("inputs.json"):
            if theirs.exists(INHERITED):
                ours.copy_from(theirs, INHERITED)
            continue_from(theirs, ours)
    if not folder.exists("inputs.json"):
        _try_again(state)
        write_sweep(folder, state)
    continue_from(parent, folder)


def retry_failed(folder: RunFolder) -> None:
    """Lets the failed trials of a sweep that is not over be tried again, each from its last checkpoint.

    Raises:
        StorageError: The folder is no sweep, or cannot be read or written.
    """
    state = read_sweep(folder)
    if _try_again(state):
        write_sweep(folder, state)


def _try_again(state: dict[str, Any]) -> bool:
    failed = [trial for trial in state["trials"] if trial["status"] == "failed"]
    for trial in failed:
        trial |= {"status": "pending", "reason": None, "error": None, "ended_at": None}
    return bool(failed)
