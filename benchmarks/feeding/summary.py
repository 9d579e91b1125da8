"""From the reports of all rounds to medians and ratios; pure functions."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["better_workers", "figures_of", "summary"]

OURS = ("astraml, ray", "astraml, local")
TIMES = ("first_batch_s", "first_epoch_s", "later_epoch_s")
Figures = dict[str, float]


def figures_of(report: dict[str, Any], conversion_s: float, text_bytes: float) -> Figures:
    """The figures of one arm in one round.

    Args:
        report: Of the process.
        conversion_s: Of writing the arm's own format, seconds; it counts for the first epoch.
        text_bytes: Of the texts of an epoch.
    """
    first, *rest = report["epochs"]
    # All later ones: the first of them may have come while the first epoch was still awaited.
    later = rest or [first]
    seconds = statistics.mean(one["seconds"] for one in later)
    return {
        "start_s": report["start_s"],
        "conversion_s": conversion_s,
        "first_batch_s": first["first_batch_s"],
        "first_epoch_s": conversion_s + first["seconds"],
        "later_epoch_s": seconds,
        "gap_s": statistics.median(one["first_batch_s"] for one in later),
        "rows_per_second": first["rows"] / seconds,
        "mb_per_second": text_bytes / seconds / 1e6,
        "waiting_share": report["waiting"]["share"] if "waiting" in report else 0.0,
        "peak_mb": report["peak_mb"],
    }


def better_workers(trials: dict[int, dict[str, Any]]) -> int:
    """The number of workers whose epochs took least; the smallest where none worked."""
    worked = {count: sum(one["seconds"] for one in of["epochs"]) for count, of in trials.items() if "epochs" in of}
    return min(worked, key=worked.__getitem__) if worked else min(trials)


def summary(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians of every arm, the limits, and how many times as long a peer takes as each of ours, round by round.

    Args:
        rounds: Of each, `figures` by arm and `limits` as limits.limits gives them. An arm that failed in a round has
            none there, and its medians are of the other rounds: `rounds` tells how many.
    """
    worked = {arm: [one for one in rounds if arm in one["figures"]] for of in rounds for arm in of["figures"]}
    names = list(next(iter(rounds[0]["figures"].values())))
    limits = {
        name: _rounded(one["limits"]["rows_per_second"][name] for one in rounds)
        for name in rounds[0]["limits"]["rows_per_second"]
    }
    return {
        "rounds": {arm: len(of) for arm, of in worked.items()},
        "medians": {arm: {name: _median(of, arm, name) for name in names} for arm, of in worked.items()},
        "limits_rows_per_second": limits,
        "share_of_the_lowest_limit": {
            arm: _rounded(one["figures"][arm]["rows_per_second"] / _lowest(one) for one in of)
            for arm, of in worked.items()
        },
        "times_as_long_as": {ours: _ratios(worked, ours) for ours in OURS if ours in worked},
    }


def _ratios(worked: Mapping[str, Sequence[dict[str, Any]]], ours: str) -> dict[str, dict[str, float]]:
    """By time and peer, the peer's to ours, in the rounds that have both."""
    both = {arm: [one for one in of if ours in one["figures"]] for arm, of in worked.items() if arm != ours}
    return {
        name: {
            arm: _rounded(one["figures"][arm][name] / one["figures"][ours][name] for one in of)
            for arm, of in both.items()
            if of
        }
        for name in TIMES
    }


def _lowest(one: dict[str, Any]) -> float:
    return float(min(one["limits"]["rows_per_second"].values()))


def _median(rounds: Sequence[dict[str, Any]], arm: str, name: str) -> float:
    return _rounded(one["figures"][arm][name] for one in rounds)


def _rounded(values: Iterable[float]) -> float:
    return float(f"{statistics.median(values):.4g}")
