"""A run's progress: a live line on a terminal, plain lines elsewhere. Always on stderr."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from astraml_ray.training.progress import ProgressTracker

__all__ = ["ProgressView", "progress_line"]

_PLAIN_EVERY_S = 5.0


class ProgressView:
    """Shows records as they come."""

    def __init__(self, tracker: ProgressTracker) -> None:
        self._tracker = tracker
        self._shown = 0.0
        self._live: Progress | None = None
        self._task: TaskID | None = None
        self._console = Console(stderr=True)
        if self._console.is_terminal:
            self._start()

    def _start(self) -> None:
        self._live = Progress(
            BarColumn(24), TextColumn("{task.description}"), TimeElapsedColumn(), console=self._console
        )
        self._task = self._live.add_task("starting the workers", total=self._tracker.snapshot()["total_steps"])
        self._live.start()

    def show(self, record: dict[str, Any]) -> None:
        """Takes a record or an event."""
        if "event" in record:
            # That an attempt starts is told by the failure before it, or is plain to see.
            if record["event"] != "attempt_started":
                self._print(record["message"])
            return
        now = time.monotonic()
        self._tracker.add(record, now)
        found = self._tracker.snapshot()
        line = progress_line(found)
        if "validation/loss" in record:
            scores = {k: v for k, v in record.items() if k.startswith("validation/")}
            told = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
            self._print(f"step {found['step']}/{found['total_steps']}  {told}")
        elif self._live is None and now - self._shown > _PLAIN_EVERY_S:
            self._shown = now
            self._print(line)
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=found["step"], description=line)

    def _print(self, text: str) -> None:
        if self._live is not None:
            self._console.print(text, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the live line."""
        if self._live is not None:
            self._live.stop()


def progress_line(progress: dict[str, Any]) -> str:
    """A ProgressTracker's snapshot in one line."""
    metrics = progress["metrics"]
    return (
        f"step {progress['step']}/{progress['total_steps']}  epoch {progress['epoch']:.2f}  "
        f"loss {metrics.get('train/loss', float('nan')):.4f}  {metrics.get('train/rows_per_second', 0.0):.0f} rows/s  "
        f"{_left(progress)}"
    )


def _left(progress: dict[str, Any]) -> str:
    if progress["eta_s"] is None:
        return ""
    soonest, latest = progress["eta_s"]
    if soonest >= latest:
        return f"{_span(latest)} left"
    waiting = progress["early_stopping"]
    return f"{_span(soonest)} to {_span(latest)} left, patience {waiting['waited']}/{waiting['patience']}"


def _span(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
