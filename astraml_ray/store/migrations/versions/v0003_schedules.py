"""Schedules, their occurrences, and the keys of the requests that made them. Only adds tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["downgrade", "upgrade"]

revision = "0003"
down_revision = "0002"

_JSON = sa.JSON(none_as_null=True)
_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Makes the tables."""
    _create_schedules()
    _create_occurrences()
    _create_schedule_keys()


def downgrade() -> None:
    """Drops the tables."""
    for name in ("schedule_keys", "occurrences", "schedules"):
        op.drop_table(name)


def _create_schedules() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("project_id", sa.String(128), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("document", _JSON, nullable=False),
        sa.Column("request", _JSON, nullable=True),
        sa.Column("api_version", sa.String(16), nullable=False),
        sa.Column("migration", _JSON, nullable=True),
        sa.Column("timing", _JSON, nullable=False),
        sa.Column("subject", sa.String(128), nullable=False),
        sa.Column("token_id", sa.String(32), nullable=True),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("paused_at", sa.Float(53), nullable=True),
        sa.Column("paused_by", sa.String(128), nullable=True),
        sa.Column("pause_reason", sa.Text(), nullable=True),
        sa.Column("handled_at", sa.Float(53), nullable=False),
        sa.Column("next_at", sa.Float(53), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_schedules"),
    )
    op.create_index("ix_schedules_project_id_id", "schedules", ["project_id", "id"])
    op.create_index("ix_schedules_next_at", "schedules", ["next_at"])
    op.create_index("ix_schedules_handled_at", "schedules", ["handled_at"])


def _create_occurrences() -> None:
    open_ones = sa.text("outcome IN ('waiting', 'started')")
    op.create_table(
        "occurrences",
        sa.Column("schedule_id", sa.String(64), nullable=False),
        sa.Column("instant", _BIG, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("job_id", sa.String(64), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("error", _JSON, nullable=True),
        sa.Column("decided_at", sa.Float(53), nullable=False),
        sa.ForeignKeyConstraint(["schedule_id"], ["schedules.id"], name="fk_occurrences_schedule_id"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_occurrences_job_id"),
        sa.PrimaryKeyConstraint("schedule_id", "instant", name="pk_occurrences"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_occurrences_job_id", "occurrences", ["job_id"])
    op.create_index(
        "ix_occurrences_open",
        "occurrences",
        ["outcome", "schedule_id", "instant"],
        sqlite_where=open_ones,
        postgresql_where=open_ones,
    )


def _create_schedule_keys() -> None:
    op.create_table(
        "schedule_keys",
        sa.Column("project_id", sa.String(128), nullable=False),
        sa.Column("route", sa.String(64), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("request", _JSON, nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=False),
        sa.Column("body", _JSON, nullable=False),
        sa.Column("schedule_id", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "route", "key", name="pk_schedule_keys"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_schedule_keys_created_at", "schedule_keys", ["created_at"])
