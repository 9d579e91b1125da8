"""A run's progress: a live line on a terminal, plain lines elsewhere. Always on stderr."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

__all__ = ["ProgressView"]

_PLAIN_EVERY_S = 5.0


class ProgressView:
    """Shows records as they come.

    The ETA knows early stopping: it gives the soonest end, should nothing improve any more, and the latest.
    """

    def __init__(self, *, total_steps: int, eval_steps: int, patience: int | None) -> None:
        self._total = total_steps
        self._eval_steps = eval_steps
        self._patience = patience
        self._waited = 0
        self._first: tuple[int, float] | None = None
        self._shown = 0.0
        self._last: dict[str, Any] = {}
        self._live: Progress | None = None
        self._task: TaskID | None = None
        self._console = Console(stderr=True)
        if self._console.is_terminal:
            self._start()

    def _start(self) -> None:
        self._live = Progress(
            BarColumn(24), TextColumn("{task.description}"), TimeElapsedColumn(), console=self._console
        )
        self._task = self._live.add_task("starting the workers", total=self._total)
        self._live.start()

    def show(self, record: dict[str, Any]) -> None:
        """Takes a record or an event."""
        if "message" in record:
            self._print(record["message"])
            return
        now, step = time.monotonic(), record["step"]
        self._first = self._first or (step, now)
        self._waited = record.get("early_stopping/waited", self._waited)
        self._last |= record
        line = self._line(step, now)
        if "validation/loss" in record:
            scores = {k: v for k, v in record.items() if k.startswith("validation/")}
            self._print(f"step {step}/{self._total}  " + "  ".join(f"{k} {v:.4f}" for k, v in scores.items()))
        elif self._live is None and now - self._shown > _PLAIN_EVERY_S:
            self._shown = now
            self._print(line)
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=step, description=line)

    def _line(self, step: int, now: float) -> str:
        loss, rate = self._last.get("train/loss", float("nan")), self._last.get("train/rows_per_second", 0.0)
        return (
            f"step {step}/{self._total}  epoch {self._last.get('epoch', 0):.2f}  loss {loss:.4f}  "
            f"{rate:.0f} rows/s  {self._eta(step, now)}"
        )

    def _eta(self, step: int, now: float) -> str:
        if self._first is None or step <= self._first[0]:
            return ""
        per_step = (now - self._first[1]) / (step - self._first[0])
        latest = (self._total - step) * per_step
        if self._patience is None:
            return f"{_span(latest)} left"
        ahead = (self._patience - self._waited) * self._eval_steps - step % self._eval_steps
        soonest = min(latest, max(0, ahead) * per_step)
        if soonest >= latest:
            return f"{_span(latest)} left"
        return f"{_span(soonest)} to {_span(latest)} left, patience {self._waited}/{self._patience}"

    def _print(self, text: str) -> None:
        if self._live is not None:
            self._console.print(text, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the live line."""
        if self._live is not None:
            self._live.stop()


def _span(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
