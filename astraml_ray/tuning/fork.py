"""A new sweep that goes on where another one stopped."""

from __future__ import annotations

import json

from astraml_ray.training.fork import continue_from
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.tuning.director import SWEEP_FILE, trial_folder

__all__ = ["continue_sweep"]


def continue_sweep(parent: RunFolder, folder: RunFolder) -> None:
    """Copies a sweep with its trials, as continue_from copies a run; killed and called again, it completes the copy.

    Raises:
        StorageError: The parent is no sweep, or a folder cannot be read or written.
    """
    for trial in json.loads(parent.read(SWEEP_FILE))["trials"]:
        theirs = trial_folder(parent, trial["number"])
        if theirs.exists("inputs.json"):
            continue_from(theirs, trial_folder(folder, trial["number"]))
    if not folder.exists("inputs.json"):
        folder.copy_from(parent, SWEEP_FILE)
    continue_from(parent, folder)
