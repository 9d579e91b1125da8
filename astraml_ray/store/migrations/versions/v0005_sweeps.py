"""Sweeps and their trials. Only adds tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["downgrade", "upgrade"]

revision = "0005"
down_revision = "0004"

_JSON = sa.JSON(none_as_null=True)
_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "sweeps",
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("metric", sa.String(128), nullable=True),
        sa.Column("mode", sa.String(8), nullable=True),
        sa.Column("planned", sa.Integer(), nullable=True),
        sa.Column("algorithm", sa.String(64), nullable=True),
        sa.Column("scheduler", sa.String(64), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_sweeps_job_id"),
        sa.PrimaryKeyConstraint("job_id", name="pk_sweeps"),
        sqlite_with_rowid=False,
    )
    _create_trials()


def downgrade() -> None:
    """Drops the tables."""
    for name in ("trials", "sweeps"):
        op.drop_table(name)


def _create_trials() -> None:
    op.create_table(
        "trials",
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("trial_id", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("parameters", _JSON, nullable=False),
        sa.Column("metric", sa.Float(53), nullable=True),
        sa.Column("best_metric", sa.Float(53), nullable=True),
        sa.Column("score", sa.Float(53), nullable=False),
        sa.Column("best_step", _BIG, nullable=True),
        sa.Column("step", _BIG, nullable=True),
        sa.Column("epoch", sa.Float(53), nullable=True),
        sa.Column("rung", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("error", _JSON, nullable=True),
        sa.Column("run_path", sa.Text(), nullable=True),
        sa.Column("parent", sa.String(64), nullable=True),
        sa.Column("started_at", sa.Float(53), nullable=True),
        sa.Column("ended_at", sa.Float(53), nullable=True),
        sa.Column("seconds", sa.Float(53), nullable=False),
        sa.Column("gpu_seconds", sa.Float(53), nullable=False),
        sa.Column("cpu_seconds", sa.Float(53), nullable=False),
        sa.Column("history", _JSON, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_trials_job_id"),
        sa.PrimaryKeyConstraint("job_id", "trial_id", name="pk_trials"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_trials_job_id_number_trial_id", "trials", ["job_id", "number", "trial_id"])
    op.create_index("ix_trials_job_id_score_number_trial_id", "trials", ["job_id", "score", "number", "trial_id"])
