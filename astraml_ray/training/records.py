"""metrics.jsonl and TensorBoard events of a run; a resumed run keeps what its checkpoint had seen."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from astraml_ray.data.storage.objects import resolve
from astraml_ray.training.run_folder import RunFolder

__all__ = ["Recorder", "now"]

_FLUSH_S = 5.0
_METRICS = "metrics.jsonl"


def now() -> float:
    """Seconds since the epoch, to the millisecond."""
    return round(time.time(), 3)


class Recorder:
    """Writes records to the run's folder, every few seconds and before each checkpoint."""

    def __init__(self, folder: RunFolder, *, step: int) -> None:
        """Goes on after `step`; later records are of work that was lost."""
        self._folder = folder
        kept = self._kept(step)
        folder.write(_METRICS, kept)
        self._written = bytearray(kept if not folder.is_local else b"")
        self._pending: list[bytes] = []
        self._flushed = time.monotonic()
        self._events = Path(resolve(folder.path("tensorboard"))[1]) if folder.is_local else Path(tempfile.mkdtemp())
        self._board = SummaryWriter(str(self._events), purge_step=step + 1 if step else None)

    def _kept(self, step: int) -> bytes:
        if not self._folder.exists(_METRICS):
            return b""
        lines = self._folder.read(_METRICS).splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        return b"".join(line for line in whole if json.loads(line)["step"] <= step)

    def add(self, record: dict[str, Any]) -> None:
        """Takes one record; its `time` is now, unless it has one."""
        self._pending.append(json.dumps({**record, "time": record.get("time") or now()}).encode() + b"\n")
        for name, value in record.items():
            if "/" in name:
                self._board.add_scalar(name, value, record["step"])
        if time.monotonic() - self._flushed > _FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Writes what is pending."""
        data, self._pending = b"".join(self._pending), []
        self._flushed = time.monotonic()
        self._board.flush()
        if self._folder.is_local:
            self._folder.append(_METRICS, data)
            return
        self._written += data
        self._folder.write(_METRICS, bytes(self._written))
        self._folder.upload(self._events, "tensorboard")

    def close(self) -> None:
        """Writes the rest."""
        self._board.close()
        self.flush()
