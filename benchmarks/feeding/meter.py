"""Consumes a feed and says when what came."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from feeding.case import Case

__all__ = ["Batches", "measure"]

Batches = Iterator[tuple[Any, Any]]
"""Pairs of token ids (rows, length), 0 where there is none, and classes (rows,)."""


def measure(case: Case, epochs: Iterable[Batches]) -> dict[str, Any]:
    """Takes every epoch as fast as it comes, and of a last one some batches with a step after each.

    Returns:
        `epochs`: of each, `first_batch_s` (from the end of the one before; of the first from now), `seconds` (from
        there to its last batch), `rows` and `tokens`. `waiting`: see _paced.
    """
    report: dict[str, Any] = {"epochs": []}
    since = time.perf_counter()
    for number, batches in enumerate(epochs):
        if number == case.epochs:
            report["waiting"] = _paced(case, batches, since)
            break
        report["epochs"].append(_free(batches, since))
        since = time.perf_counter()
    return report


def _free(batches: Batches, since: float) -> dict[str, Any]:
    first, rows, tokens = 0.0, 0, 0
    for ids, classes in batches:
        first = first or time.perf_counter() - since
        rows += len(classes)
        tokens += int((ids != 0).sum())
    return {"first_batch_s": first, "seconds": time.perf_counter() - since, "rows": rows, "tokens": tokens}


def _paced(case: Case, batches: Batches, since: float) -> dict[str, Any]:
    """The share of the time that a consumer waits: it sleeps for each step, as one whose device computes."""
    next(batches)
    first, waited, steps = time.perf_counter() - since, 0.0, 0
    began = time.perf_counter()
    while steps < case.steps:
        time.sleep(case.step_s)
        asked = time.perf_counter()
        if next(batches, None) is None:
            break
        waited += time.perf_counter() - asked
        steps += 1
    whole = time.perf_counter() - began
    return {"first_batch_s": first, "steps": steps, "step_s": case.step_s, "waited_s": waited, "share": waited / whole}
