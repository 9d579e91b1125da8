"""Checkpoints: weights, optimiser, schedule, early stopping, position. Complete once their manifest is there."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import safetensors.torch
import torch

from astraml_ray.errors import StorageError
from astraml_ray.training.early_stopping import Patience
from astraml_ray.training.run_folder import RunFolder

__all__ = [
    "OPTIMIZER",
    "WEIGHTS",
    "CheckpointStore",
    "FolderCheckpoints",
    "MemoryCheckpoints",
    "Progress",
    "checkpoint_folder",
    "load_weights",
    "restore",
    "snapshot",
    "weights_of",
]

_LOG = logging.getLogger(__name__)
_MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
OPTIMIZER = "optimizer.pt"


@dataclass(frozen=True)
class Progress:
    """How far a run is. The position in the data and the random state follow from `step`.

    Attributes:
        step: Optimizer steps done.
        scored: The step of the last evaluation.
        patience: Early stopping's state.
        best_metrics: Validation metrics of the best model.
        train_loss: Mean loss of the training targets between the last two evaluations.
        interval: Sum of the losses since the last evaluation, and number of their targets.
    """

    step: int = 0
    scored: int = 0
    patience: Patience = field(default_factory=Patience)
    best_metrics: dict[str, float] = field(default_factory=dict)
    train_loss: float | None = None
    interval: tuple[float, float] = (0.0, 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Progress:
        """The reverse of to_dict."""
        interval = tuple(data.get("interval", (0.0, 0.0)))
        return cls(**{**data, "patience": Patience(**data["patience"]), "interval": interval})


class CheckpointStore(Protocol):
    """Where the loop keeps its checkpoints."""

    def save(self, progress: Progress, files: dict[str, bytes]) -> None:
        """Keeps a checkpoint; may return before it is written."""

    def latest(self) -> tuple[Progress, dict[str, bytes]] | None:
        """The newest complete checkpoint."""

    def wait(self) -> None:
        """Returns once everything is written; raises what failed."""


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters (tied ones once) and persistent buffers by name."""
    persistent = model.state_dict().keys()
    buffers = {name: tensor for name, tensor in model.named_buffers() if name in persistent}
    return {name: tensor.detach() for name, tensor in [*model.named_parameters(), *buffers.items()]}


def snapshot(model: torch.nn.Module, optimizer: Any, scheduler: Any, scaler: Any) -> dict[str, bytes]:
    """The training state as files, copied out of the live tensors."""
    buffer = io.BytesIO()
    state = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict(), "scaler": scaler.state_dict()}
    torch.save(state, buffer)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in weights_of(model).items()}
    return {WEIGHTS: safetensors.torch.save(tensors), OPTIMIZER: buffer.getvalue()}


def restore(files: dict[str, bytes], model: torch.nn.Module, optimizer: Any, scheduler: Any, scaler: Any) -> None:
    """Puts a snapshot back into live objects."""
    load_weights(files[WEIGHTS], model)
    state = torch.load(io.BytesIO(files[OPTIMIZER]), weights_only=True, map_location="cpu")
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    scaler.load_state_dict(state["scaler"])


@torch.no_grad()
def load_weights(data: bytes, model: torch.nn.Module) -> None:
    """Copies saved weights into a model of the same shape."""
    saved = safetensors.torch.load(data)
    for name, tensor in weights_of(model).items():
        tensor.copy_(saved[name])


class FolderCheckpoints:
    """Checkpoints in a run's folder, written by a thread, the manifest last; the newest and the best are kept."""

    def __init__(self, folder: RunFolder, *, keep: int) -> None:
        self._folder = folder
        self._keep = keep
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save(self, progress: Progress, files: dict[str, bytes]) -> None:
        """Starts writing a checkpoint, after the one before it is written.

        Raises:
            StorageError: The one before could not be written.
        """
        self.wait()
        self._pending = self._pool.submit(self._write, progress, files)

    def wait(self) -> None:
        """Waits for the writer."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def _write(self, progress: Progress, files: dict[str, bytes]) -> None:
        place = checkpoint_folder(progress.step)
        listing = {}
        for name, data in files.items():
            self._folder.write(f"{place}/{name}", data)
            listing[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        manifest = {"progress": progress.to_dict(), "files": listing}
        self._folder.write(f"{place}/{_MANIFEST}", json.dumps(manifest, indent=1).encode())
        size = sum(len(data) for data in files.values())
        _LOG.info("step %d: checkpoint saved, %.1f MB", progress.step, size / 1e6)
        self._prune(progress)

    def _prune(self, progress: Progress) -> None:
        steps = self.steps()
        kept = {*steps[-self._keep :], progress.patience.best_step}
        for step in steps:
            if step not in kept:
                self._folder.remove(checkpoint_folder(step))

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there, whole or not."""
        return sorted(int(n.removeprefix("step-")) for n in self._folder.names("checkpoints") if n.startswith("step-"))

    def manifest(self, step: int) -> dict[str, Any] | None:
        """The manifest of a checkpoint, or None while it is not complete."""
        try:
            document: dict[str, Any] = json.loads(self._folder.read(f"{checkpoint_folder(step)}/{_MANIFEST}"))
        except (StorageError, ValueError):
            return None
        return document

    def complete_steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        return [step for step in self.steps() if self.manifest(step)]

    def load(self, step: int) -> tuple[Progress, dict[str, bytes]] | None:
        """A checkpoint, checked against its manifest; None if it is damaged or not there."""
        manifest = self.manifest(step)
        if manifest is None:
            return None
        files = {}
        for name, expected in manifest["files"].items():
            try:
                files[name] = self._folder.read(f"{checkpoint_folder(step)}/{name}")
            except StorageError:
                return None
            if hashlib.sha256(files[name]).hexdigest() != expected["sha256"]:
                return None
        return Progress.from_dict(manifest["progress"]), files

    def weights(self, step: int) -> bytes | None:
        """The weights of a complete checkpoint, without the optimizer's state; None if they are damaged or gone."""
        manifest = self.manifest(step)
        if manifest is None:
            return None
        try:
            data = self._folder.read(f"{checkpoint_folder(step)}/{WEIGHTS}")
        except StorageError:
            return None
        return data if hashlib.sha256(data).hexdigest() == manifest["files"][WEIGHTS]["sha256"] else None

    def latest(self) -> tuple[Progress, dict[str, bytes]] | None:
        """The newest one that is whole."""
        loaded = (self.load(step) for step in reversed(self.steps()))
        return next((checkpoint for checkpoint in loaded if checkpoint), None)

    def is_whole(self, step: int) -> bool:
        """Whether a checkpoint is there and undamaged; its files are read in pieces."""
        manifest = self.manifest(step)
        return manifest is not None and all(
            self._hash(f"{checkpoint_folder(step)}/{name}") == expected["sha256"]
            for name, expected in manifest["files"].items()
        )

    def _hash(self, name: str) -> str | None:
        digest = hashlib.sha256()
        try:
            for piece in self._folder.pieces(name):
                digest.update(piece)
        except StorageError:
            return None
        return digest.hexdigest()

    def progress_of(self, step: int) -> Progress | None:
        """How far a complete checkpoint is, without reading its weights."""
        manifest = self.manifest(step)
        return Progress.from_dict(manifest["progress"]) if manifest else None

    def latest_progress(self) -> Progress:
        """How far the newest whole checkpoint is, without holding its weights."""
        found = (self.progress_of(step) for step in reversed(self.steps()) if self.is_whole(step))
        return next((progress for progress in found if progress), Progress())


class MemoryCheckpoints:
    """Checkpoints in memory: for tests, and for runs that need none."""

    def __init__(self) -> None:
        self.saved: list[tuple[Progress, dict[str, bytes]]] = []

    def save(self, progress: Progress, files: dict[str, bytes]) -> None:
        """Keeps it."""
        self.saved.append((progress, files))

    def latest(self) -> tuple[Progress, dict[str, bytes]] | None:
        """The last one kept."""
        return self.saved[-1] if self.saved else None

    def wait(self) -> None:
        """Nothing is pending."""


def checkpoint_folder(step: int) -> str:
    """Where a checkpoint lies in a run's folder."""
    return f"checkpoints/step-{step:09d}"
