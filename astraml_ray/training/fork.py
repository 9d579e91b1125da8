"""A new run that goes on where another one stopped: its inputs, its records, and the checkpoints that matter."""

from __future__ import annotations

from astraml_ray.errors import StorageError
from astraml_ray.training.checkpoint import FolderCheckpoints, checkpoint_folder
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.training.translation.place import TRANSLATIONS

__all__ = ["continue_from"]

_COMPLETE = "inputs.json"


def continue_from(parent: RunFolder, folder: RunFolder) -> None:
    """Copies into a run's folder what it needs to go on from the newest checkpoint of another, which stays as it is.

    `inputs.json` comes last: with it the copy is complete, and a second call does nothing. Killed in the middle and
    called again, it completes what is there. A parent without checkpoints gives a run that starts at the beginning.

    Raises:
        StorageError: The parent is no run, its checkpoints are all damaged, or a folder cannot be read or written.
    """
    if folder.exists(_COMPLETE):
        return
    if not parent.exists(_COMPLETE):
        raise StorageError("there is no run to go on from", param=parent.uri, hint="submit the job anew")
    _copy_checkpoints(parent, folder)
    for name in parent.names("inputs"):
        folder.copy_from(parent, f"inputs/{name}")
    for name in set(parent.names(TRANSLATIONS)).difference(folder.names(TRANSLATIONS)):
        folder.copy_from(parent, f"{TRANSLATIONS}/{name}")
    for name in ("metrics.jsonl", "quarantine.jsonl"):
        if parent.exists(name):
            folder.copy_from(parent, name)
    for name in ("manifest.json", "spec.yaml", _COMPLETE):
        folder.copy_from(parent, name)


def _copy_checkpoints(parent: RunFolder, folder: RunFolder) -> None:
    """The newest whole checkpoint, and the best one as it knows it: without that, the run could not end well."""
    theirs, ours = FolderCheckpoints(parent, keep=1), FolderCheckpoints(folder, keep=1)
    steps = theirs.complete_steps()
    for step in reversed(steps):
        progress = theirs.progress_of(step)
        best = progress.patience.best_step if progress else None
        wanted = [step] if best in (None, step) else [best, step]
        if all(_copy_checkpoint(theirs, ours, parent, folder, wanted_step) for wanted_step in wanted if wanted_step):
            for other in set(ours.steps()).difference(wanted):
                folder.remove(checkpoint_folder(other))
            return
    if steps:
        raise StorageError(
            "its checkpoints are damaged", param=parent.uri, hint="clone the job: that starts it at the beginning"
        )


def _copy_checkpoint(
    theirs: FolderCheckpoints, ours: FolderCheckpoints, parent: RunFolder, folder: RunFolder, step: int
) -> bool:
    """Copies one, its manifest last; tells whether it is whole."""
    if ours.is_whole(step):
        return True
    manifest = theirs.manifest(step)
    if manifest is None:
        return False
    place = checkpoint_folder(step)
    for name, expected in manifest["files"].items():
        try:
            if folder.copy_from(parent, f"{place}/{name}") != expected["sha256"]:
                return False
        except StorageError:
            if parent.exists(f"{place}/{name}"):
                raise
            return False
    folder.copy_from(parent, f"{place}/manifest.json")
    return True
