"""The first schema: jobs and what belongs to them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["downgrade", "upgrade"]

revision = "0001"
down_revision = None

_JSON = sa.JSON(none_as_null=True)
_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_LIVE = sa.text("status IN ('queued', 'starting', 'running')")


def upgrade() -> None:
    """Makes all tables."""
    _create_jobs()
    _create_leases()
    _create_attempts()
    _create_events()
    _create_idempotency_keys()
    _create_job_labels()
    _create_log_chunks()
    _create_log_cursors()
    _create_metric_windows()


def downgrade() -> None:
    """Drops all tables."""
    for name in (
        "metric_windows",
        "log_cursors",
        "log_chunks",
        "job_labels",
        "idempotency_keys",
        "events",
        "attempts",
        "leases",
        "jobs",
    ):
        op.drop_table(name)


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("project_id", sa.String(128), nullable=False),
        sa.Column("name", sa.String(128), nullable=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(64), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("spec", _JSON, nullable=False),
        sa.Column("spec_digest", sa.String(64), nullable=False),
        sa.Column("api_version", sa.String(16), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("parent_id", sa.String(64), nullable=True),
        sa.Column("relation", sa.String(16), nullable=True),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("queued_at", sa.Float(53), nullable=False),
        sa.Column("not_before", sa.Float(53), nullable=True),
        sa.Column("started_at", sa.Float(53), nullable=True),
        sa.Column("finished_at", sa.Float(53), nullable=True),
        sa.Column("cancel_mode", sa.String(16), nullable=True),
        sa.Column("cancel_requested_at", sa.Float(53), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("runner", sa.String(64), nullable=True),
        sa.Column("runner_seq", _BIG, nullable=False, server_default="0"),
        sa.Column("heartbeat_at", sa.Float(53), nullable=True),
        sa.Column("placement", _JSON, nullable=True),
        sa.Column("wait", _JSON, nullable=True),
        sa.Column("progress", _JSON, nullable=True),
        sa.Column("warnings", _JSON, nullable=True),
        sa.Column("run_path", sa.Text(), nullable=True),
        sa.Column("result", _JSON, nullable=True),
        sa.Column("error", _JSON, nullable=True),
        sa.Column("event_seq", _BIG, nullable=False, server_default="0"),
        sa.Column("log_seq", _BIG, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    op.create_index("ix_jobs_live", "jobs", ["status", "priority", "id"], sqlite_where=_LIVE, postgresql_where=_LIVE)
    op.create_index("ix_jobs_parent_id_id", "jobs", ["parent_id", "id"])
    op.create_index("ix_jobs_project_id_id", "jobs", ["project_id", "id"])
    op.create_index("ix_jobs_project_id_status_id", "jobs", ["project_id", "status", "id"])
    op.create_index("ix_jobs_status_id", "jobs", ["status", "id"])


def _create_leases() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("holder", sa.String(128), nullable=False),
        sa.Column("token", _BIG, nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )


def _create_attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("started_at", sa.Float(53), nullable=False),
        sa.Column("finished_at", sa.Float(53), nullable=True),
        sa.Column("first_step", _BIG, nullable=True),
        sa.Column("last_step", _BIG, nullable=True),
        sa.Column("micro_batch_divisor", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("error", _JSON, nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_attempts_job_id"),
        sa.PrimaryKeyConstraint("job_id", "number", name="pk_attempts"),
        sqlite_with_rowid=False,
    )


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("seq", _BIG, nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("data", _JSON, nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_events_job_id"),
        sa.PrimaryKeyConstraint("job_id", "seq", name="pk_events"),
        sqlite_with_rowid=False,
    )


def _create_idempotency_keys() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("project_id", sa.String(128), nullable=False),
        sa.Column("route", sa.String(64), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("request", _JSON, nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=False),
        sa.Column("body", _JSON, nullable=False),
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_idempotency_keys_job_id"),
        sa.PrimaryKeyConstraint("project_id", "route", "key", name="pk_idempotency_keys"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])


def _create_job_labels() -> None:
    op.create_table(
        "job_labels",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("value", sa.String(128), nullable=False),
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_labels_job_id"),
        sa.PrimaryKeyConstraint("key", "value", "job_id", name="pk_job_labels"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_job_labels_job_id", "job_labels", ["job_id"])


def _create_log_chunks() -> None:
    op.create_table(
        "log_chunks",
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("first_id", _BIG, nullable=False),
        sa.Column("last_id", _BIG, nullable=False),
        sa.Column("lines", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_log_chunks_job_id"),
        sa.PrimaryKeyConstraint("job_id", "first_id", name="pk_log_chunks"),
        sqlite_with_rowid=False,
    )


def _create_log_cursors() -> None:
    op.create_table(
        "log_cursors",
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("source", sa.String(128), nullable=False),
        sa.Column("sequence", _BIG, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_log_cursors_job_id"),
        sa.PrimaryKeyConstraint("job_id", "source", name="pk_log_cursors"),
        sqlite_with_rowid=False,
    )


def _create_metric_windows() -> None:
    op.create_table(
        "metric_windows",
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("resolution", sa.Integer(), nullable=False),
        sa.Column("start", _BIG, nullable=False),
        sa.Column("count", _BIG, nullable=False),
        sa.Column("sum", sa.Float(53), nullable=False),
        sa.Column("sum_sq", sa.Float(53), nullable=False),
        sa.Column("min", sa.Float(53), nullable=True),
        sa.Column("max", sa.Float(53), nullable=True),
        sa.Column("first", sa.Float(53), nullable=True),
        sa.Column("first_at", sa.Float(53), nullable=True),
        sa.Column("first_step", _BIG, nullable=True),
        sa.Column("last", sa.Float(53), nullable=True),
        sa.Column("last_at", sa.Float(53), nullable=True),
        sa.Column("last_step", _BIG, nullable=True),
        sa.Column("nan_count", _BIG, nullable=False),
        sa.Column("inf_count", _BIG, nullable=False),
        sa.Column("step_first", _BIG, nullable=True),
        sa.Column("step_last", _BIG, nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_metric_windows_job_id"),
        sa.PrimaryKeyConstraint("job_id", "name", "resolution", "start", name="pk_metric_windows"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_metric_windows_resolution_start", "metric_windows", ["resolution", "start"])
