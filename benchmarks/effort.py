"""How much a benchmark of the service measures."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["QUICK", "Effort"]


@dataclass(frozen=True)
class Effort:
    """The defaults are those of a full run.

    Attributes:
        rounds: Of submissions.
        seconds: Of each load in a round, after a lead of one more.
        clients: At once; each count is a load of its own.
        one_key: Requests with one key.
        sizes: Jobs of the two tables whose pages are compared.
        repeats: Of each page.
        steps: Of the job whose log is followed.
        finished: Jobs that have ended, for memory and ticks; a tenth as many are queued.
        tick_s: For how long a controller ticks until its memory is looked at.
        ticks: That are timed.
    """

    rounds: int = 3
    seconds: float = 2.5
    clients: tuple[int, ...] = (1, 16, 64)
    one_key: int = 1_000
    sizes: tuple[int, int] = (1_000, 1_000_000)
    repeats: int = 200
    steps: int = 400
    finished: int = 10_000
    tick_s: float = 30.0
    ticks: int = 100


QUICK = Effort(
    rounds=1,
    seconds=1.0,
    clients=(1, 64),
    one_key=200,
    sizes=(1_000, 10_000),
    repeats=10,
    steps=40,
    finished=1_000,
    tick_s=3.0,
    ticks=20,
)
"""A smoke run."""
