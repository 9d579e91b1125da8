"""A sweep's state in its folder: whole now and then, and in between what has changed, so that no write grows with it.

`sweep.json` is the whole, under a name of its own; `changes/NAME/` holds, in small files, what came after it. A bucket
cannot append to a file, so the newest of them is written again until it is full.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from astraml_ray.training.run_folder import RunFolder
from astraml_ray.tuning.ledger import Evaluation, Ledger, Trial

__all__ = ["SWEEP_FILE", "Journal", "read_sweep", "write_sweep"]

SWEEP_FILE = "sweep.json"
_CHANGES = "changes"
_PER_FILE = 32


def read_sweep(folder: RunFolder) -> dict[str, Any]:
    """A sweep's state, as Ledger.to_dict gave it, with its `document`.

    Raises:
        StorageError: The folder is no sweep, or cannot be read.
    """
    state: dict[str, Any] = json.loads(folder.read(SWEEP_FILE))
    place = f"{_CHANGES}/{state.get('whole', 0)}"
    for name in folder.names(place):
        if not name.startswith("."):
            for change in json.loads(folder.read(f"{place}/{name}")):
                _apply(state, change)
    return state


def write_sweep(folder: RunFolder, state: Mapping[str, Any]) -> str:
    """Writes a state whole; what was written of changes before it is counted no more.

    Returns:
        The whole's name. No two have the same: of two processes at one sweep, such as one that was thought dead, the
        changes of one are never taken for the other's.

    Raises:
        StorageError: The folder cannot be written.
    """
    name = uuid.uuid4().hex[:12]
    _write(folder, SWEEP_FILE, {**state, "version": 1, "whole": name})
    folder.remove(f"{_CHANGES}/{state.get('whole', 0)}")
    return name


class Journal:
    """Keeps the state of a sweep that goes on. It takes room and time in proportion to what happens."""

    def __init__(self, folder: RunFolder, state: Mapping[str, Any]) -> None:
        """
        Args:
            folder: Of the sweep.
            state: As read_sweep gave it; what it holds need not be written again.
        """
        self._folder = folder
        self._document = state.get("document", {})
        self._whole = state.get("whole", 0)
        # The changes of the present whole are another process's: the first write is a whole one.
        self._is_open = False
        self._file: list[dict[str, Any]] = []
        self._files = self._count = 0

    def save(self, ledger: Ledger) -> None:
        """Writes everything."""
        state = {"document": self._document, "whole": self._whole, **ledger.to_dict()}
        self._whole = write_sweep(self._folder, state)
        self._is_open, self._file, self._files, self._count = True, [], 0, 0

    def add(self, ledger: Ledger, trial: Trial, found: Evaluation | None = None) -> None:
        """Writes that a trial has changed, by an evaluation if one is given."""
        if not self._is_open or self._count >= max(_PER_FILE, ledger.size):
            self.save(ledger)
            return
        if len(self._file) == _PER_FILE:
            self._file = []
            self._files += 1
        self._file.append({"seconds": ledger.seconds, "trial": trial.to_dict(), "result": found and found.to_list()})
        self._count += 1
        _write(self._folder, f"{_CHANGES}/{self._whole}/{self._files:06d}.json", self._file)


def _apply(state: dict[str, Any], change: Mapping[str, Any]) -> None:
    number = change["trial"]["number"]
    state["trials"][number : number + 1] = [change["trial"]]
    state["seconds"] = change["seconds"]
    if change["result"] is not None:
        state["results"].append(change["result"])


def _write(folder: RunFolder, name: str, data: Any) -> None:
    folder.write(name, json.dumps(data, separators=(",", ":")).encode())
