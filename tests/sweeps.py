"""Trials as a sweep of ASHA over a learning rate, a batch size and a scheduler tells them. Seeded."""

from __future__ import annotations

import math
import random
from typing import Any

__all__ = ["SWEEP", "sweep_result", "told_trials"]

START = 1_800_000_000.0
SWEEP = {"metric": "validation/accuracy", "mode": "max", "trials": 27, "algorithm": "random", "scheduler": "asha"}
_RUNGS = (40, 120, 360)
_EVERY = 20


def told_trials(count: int = 27, *, seed: int = 0, running: int = 0, failed: tuple[int, ...] = (4,)) -> list[Any]:
    """So many trials, most of them stopped at a rung; the last ones still run.

    The learning rate decides, with its best place near 4e-4; the batch size matters a little; the scheduler not.
    """
    chance = random.Random(seed)
    return [_trial(number, chance, number >= count - running, number in failed) for number in range(count)]


def sweep_result(trials: list[Any], **given: Any) -> dict[str, Any]:
    """The `sweep` of a job's result."""
    told = {name: value for name, value in SWEEP.items() if name != "trials"}
    ranked = [trial for trial in trials if trial["best_metric"] is not None and trial["status"] != "failed"]
    best = max(ranked, key=lambda trial: trial["best_metric"])["trial_id"] if ranked else None
    gpu = sum(trial["gpu_seconds"] for trial in trials) / 3600
    cpu = sum(trial["cpu_seconds"] for trial in trials) / 3600
    return {**told, "best_trial": best, "trials": trials, "seconds": 900.0, "gpu_hours": gpu, "cpu_hours": cpu, **given}


def _trial(number: int, chance: random.Random, runs: bool, fails: bool) -> dict[str, Any]:
    lr = 10 ** chance.uniform(-5, -2)
    batch = chance.choice([16, 32, 64])
    top = 0.93 - 0.12 * (math.log10(lr) + 3.4) ** 2 - (0.03 if batch == 64 else 0.0)
    rung = min(2, sum(top + chance.gauss(0, 0.02) > bound for bound in (0.72, 0.88)))
    last = _EVERY if fails else _RUNGS[0] if runs else _RUNGS[rung]
    steps = range(_EVERY, last + 1, _EVERY)
    history = [[step, round(_value(top, step, chance), 4)] for step in steps]
    best_step, best = max(history, key=lambda point: point[1])
    status = "running" if runs else "failed" if fails else "succeeded" if rung == 2 else "stopped"
    reason = None
    if status == "stopped":
        reason = (
            f"asha_rung_{rung}: {history[-1][1]} is worse than the {0.8 + 0.06 * rung:.2f} that rung {rung} asks for"
        )
    seconds, begin = 0.4 * last + 3, START + 20.0 * number
    return {
        "trial_id": f"t{number:04}",
        "number": number,
        "status": status,
        "parameters": {
            "hyperparams.lr": float(f"{lr:.3g}"),
            "hyperparams.batch_size": batch,
            "hyperparams.lr_scheduler": chance.choice(["cosine", "linear"]),
        },
        "metric": history[-1][1],
        "best_metric": best,
        "best_step": best_step,
        "step": last,
        "epoch": last / 72,
        "rung": rung if status in ("stopped", "succeeded") else None,
        "reason": "numeric" if fails else reason,
        "error": {"code": "numeric", "message": "the loss is not finite at step 21"} if fails else None,
        "run_path": f"s3://bucket/runs/sweep/trials/t{number:04}",
        "started_at": begin,
        "ended_at": None if runs else begin + seconds,
        "seconds": seconds,
        "gpu_seconds": seconds,
        "cpu_seconds": 4 * seconds,
        "history": history,
        "parent": None,
    }


def _value(top: float, step: int, chance: random.Random) -> float:
    return max(0.02, top * (1 - math.exp(-step / 45)) + chance.gauss(0, 0.006))
