"""From the reports of all rounds to medians and ratios; pure functions."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["better_workers", "figures_of", "summary"]

OURS = ("astraml, ray", "astraml, local")
Figures = dict[str, float]


def figures_of(report: dict[str, Any], conversion_s: float, text_bytes: float) -> Figures:
    """The figures of one arm in one round.

    Args:
        report: Of the process.
        conversion_s: Of writing the arm's own format, seconds; it counts for the first epoch.
        text_bytes: Of the texts of an epoch.
    """
    first, *later = report["epochs"]
    last = later[-1] if later else first
    return {
        "start_s": report["start_s"],
        "conversion_s": conversion_s,
        "first_batch_s": first["first_batch_s"],
        "first_epoch_s": conversion_s + first["seconds"],
        "later_epoch_s": last["seconds"],
        "gap_s": last["first_batch_s"],
        "rows_per_second": last["rows"] / last["seconds"],
        "mb_per_second": text_bytes / last["seconds"] / 1e6,
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
        rounds: Of each, `figures` by arm and `limits` as limits.limits gives them.
    """
    arms = [name for name in rounds[0]["figures"] if all(name in one["figures"] for one in rounds)]
    names = rounds[0]["figures"][arms[0]]
    limits = {
        name: _median(rounds, lambda one, name=name: one["limits"]["rows_per_second"][name])
        for name in rounds[0]["limits"]["rows_per_second"]
    }
    return {
        "medians": {
            arm: {name: _median(rounds, lambda one, arm=arm, name=name: one["figures"][arm][name]) for name in names}
            for arm in arms
        },
        "limits_rows_per_second": limits,
        "share_of_the_lowest_limit": {arm: _median(rounds, lambda one, arm=arm: _share(one, arm)) for arm in arms},
        "times_as_long_as": {
            ours: {
                name: {
                    arm: _median(
                        rounds,
                        lambda one, ours=ours, arm=arm, name=name: (
                            one["figures"][arm][name] / one["figures"][ours][name]
                        ),
                    )
                    for arm in arms
                    if arm != ours
                }
                for name in ("first_batch_s", "first_epoch_s", "later_epoch_s")
            }
            for ours in OURS
            if ours in arms
        },
    }


def _share(one: dict[str, Any], arm: str) -> float:
    return float(one["figures"][arm]["rows_per_second"] / min(one["limits"]["rows_per_second"].values()))


def _median(rounds: Sequence[dict[str, Any]], of: Callable[[dict[str, Any]], float]) -> float:
    return float(f"{statistics.median(of(one) for one in rounds):.4g}")
