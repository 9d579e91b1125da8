"""Sweeps and their trials as the API shows them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from astraml_ray.api.answers import iso_time
from astraml_ray.api.importance import EVALUATOR, Importance, Scale, scale_of
from astraml_ray.api.views import error_view
from astraml_ray.store.jobs import JobRecord
from astraml_ray.store.trials import Cost, SweepRecord, TrialRecord

__all__ = ["cost_view", "scales_of", "sweep_view", "trial_view"]


def trial_view(trial: TrialRecord, *, with_history: bool = True) -> dict[str, Any]:
    """One trial."""
    return {
        "trial_id": trial.trial_id,
        "number": trial.number,
        "status": trial.status,
        "parameters": trial.parameters,
        "metric": trial.metric,
        "best_metric": trial.best_metric,
        "best_step": trial.best_step,
        "step": trial.step,
        "epoch": trial.epoch,
        "rung": trial.rung,
        "reason": trial.reason,
        "error": error_view(trial.error),
        "run_path": trial.run_path,
        "parent": trial.parent,
        "started_at": iso_time(trial.started_at),
        "ended_at": iso_time(trial.ended_at),
        "seconds": trial.seconds,
        "gpu_hours": trial.gpu_seconds / 3600,
        "cpu_hours": trial.cpu_seconds / 3600,
        "history": list(trial.history) if with_history else None,
    }


def scales_of(spec: Mapping[str, Any], trials: Sequence[TrialRecord], paths: Sequence[str]) -> dict[str, Scale]:
    """How the values of each parameter are to be laid out."""
    declared = (spec.get("sweep") or {}).get("parameters") or {}
    return {
        path: scale_of([t.parameters[path] for t in trials if path in t.parameters], declared.get(path))
        for path in paths
    }


def cost_view(job: JobRecord, cost: Cost, *, now: float) -> dict[str, Any]:
    """What a sweep has taken; of one that has ended as it says itself, which counts more than the trials."""
    told = (job.result or {}).get("sweep") or {}
    wall = None if job.started_at is None else (job.finished_at or now) - job.started_at
    return {
        "seconds": told.get("seconds", wall),
        "trial_seconds": cost.seconds,
        "gpu_hours": told.get("gpu_hours", cost.gpu_seconds / 3600),
        "cpu_hours": told.get("cpu_hours", cost.cpu_seconds / 3600),
    }


def sweep_view(
    job: JobRecord,
    sweep: SweepRecord | None,
    *,
    counts: Mapping[str, int],
    best: TrialRecord | None,
    cost: dict[str, Any],
    scales: Mapping[str, Scale],
    importance: Importance,
) -> dict[str, Any]:
    """A sweep as a whole."""
    known = sweep or SweepRecord(job.id)
    shares = importance.shares or {}
    paths = sorted(scales, key=lambda path: -shares.get(path, -1.0))  # stable: else in the order of the trials
    return {
        "job_id": job.id,
        "status": job.status.value,
        "metric": known.metric,
        "mode": known.mode if known.mode in ("min", "max") else None,
        "algorithm": known.algorithm,
        "scheduler": known.scheduler,
        "planned": known.planned,
        "counts": dict(counts),
        "best": None if best is None else trial_view(best),
        "cost": cost,
        "parameters": [{"path": path, "scale": scales[path], "importance": shares.get(path)} for path in paths],
        "importance": {"evaluator": EVALUATOR, "trials": importance.trials, "reason": importance.reason},
    }
