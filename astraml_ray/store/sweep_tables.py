"""The tables of sweeps: what each is after, and its trials."""

from __future__ import annotations

from sqlalchemy import Column, Float, ForeignKey, Index, Integer, Table

from astraml_ray.store.tables import _Big, _Json, _Plain, _PlainText, metadata

__all__ = ["sweeps", "trials"]

sweeps = Table(
    "sweeps",
    metadata,
    Column("job_id", _Plain(64), ForeignKey("jobs.id"), primary_key=True),
    Column("metric", _Plain(128)),
    Column("mode", _Plain(8)),  # "min" | "max"
    Column("planned", Integer),  # trials in all
    Column("algorithm", _Plain(64)),
    Column("scheduler", _Plain(64)),
    sqlite_with_rowid=False,
)

trials = Table(
    "trials",
    metadata,
    Column("job_id", _Plain(64), ForeignKey("jobs.id"), primary_key=True),
    Column("trial_id", _Plain(64), primary_key=True),
    Column("number", Integer, nullable=False),
    Column("status", _Plain(16), nullable=False),  # pending | running | succeeded | stopped | failed | cancelled
    Column("parameters", _Json, nullable=False),  # dotted path -> value
    Column("metric", Float(53)),
    Column("best_metric", Float(53)),
    Column("score", Float(53), nullable=False),  # the best value, made so that less is better; huge without one
    Column("best_step", _Big),
    Column("step", _Big),
    Column("epoch", Float(53)),
    Column("rung", Integer),
    Column("reason", _PlainText()),
    Column("error", _Json),
    Column("run_path", _PlainText()),
    Column("parent", _Plain(64)),
    Column("started_at", Float(53)),
    Column("ended_at", Float(53)),
    Column("seconds", Float(53), nullable=False),
    Column("gpu_seconds", Float(53), nullable=False),
    Column("cpu_seconds", Float(53), nullable=False),
    Column("history", _Json, nullable=False),  # [[step, value], ...]
    sqlite_with_rowid=False,
)
# Keyset pages of a job's trials: as they were made, and the best one first.
Index("ix_trials_job_id_number_trial_id", trials.c.job_id, trials.c.number, trials.c.trial_id)
Index("ix_trials_job_id_score_number_trial_id", trials.c.job_id, trials.c.score, trials.c.number, trials.c.trial_id)
