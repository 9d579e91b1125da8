"""Webhooks, their secrets, what they are told, each try, and which conditions were told. Only adds tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["downgrade", "upgrade"]

revision = "0004"
down_revision = "0003"

_JSON = sa.JSON(none_as_null=True)


def upgrade() -> None:
    """Makes the tables."""
    _create_webhooks()
    _create_webhook_secrets()
    _create_deliveries()
    _create_delivery_attempts()
    _create_webhook_alerts()


def downgrade() -> None:
    """Drops the tables."""
    for name in ("webhook_alerts", "delivery_attempts", "deliveries", "webhook_secrets", "webhooks"):
        op.drop_table(name)


def _create_webhooks() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("project_id", sa.String(128), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("document", _JSON, nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("created_by", sa.String(128), nullable=False),
        sa.Column("updated_at", sa.Float(53), nullable=False),
        sa.Column("disabled_at", sa.Float(53), nullable=True),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column("hold_until", sa.Float(53), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_webhooks"),
    )
    op.create_index("uq_webhooks_project_id_name", "webhooks", ["project_id", "name"], unique=True)


def _create_webhook_secrets() -> None:
    op.create_table(
        "webhook_secrets",
        sa.Column("webhook_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.String(32), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=True),
        sa.ForeignKeyConstraint(["webhook_id"], ["webhooks.id"], name="fk_webhook_secrets_webhook_id"),
        sa.PrimaryKeyConstraint("webhook_id", "kind", "version", name="pk_webhook_secrets"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_webhook_secrets_key_id", "webhook_secrets", ["key_id"])


def _create_deliveries() -> None:
    pending = sa.text("status = 'pending'")
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("webhook_id", sa.String(64), nullable=False),
        sa.Column("event", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(64), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("next_at", sa.Float(53), nullable=True),
        sa.Column("first_at", sa.Float(53), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("finished_at", sa.Float(53), nullable=True),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["webhook_id"], ["webhooks.id"], name="fk_deliveries_webhook_id"),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
    )
    op.create_index("ix_deliveries_created_at", "deliveries", ["created_at"])
    op.create_index("ix_deliveries_webhook_id_id", "deliveries", ["webhook_id", "id"])
    op.create_index(
        "ix_deliveries_pending",
        "deliveries",
        ["webhook_id", "next_at"],
        sqlite_where=pending,
        postgresql_where=pending,
    )


def _create_delivery_attempts() -> None:
    op.create_table(
        "delivery_attempts",
        sa.Column("delivery_id", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("took_s", sa.Float(53), nullable=False),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("response", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["delivery_id"], ["deliveries.id"], name="fk_delivery_attempts_delivery_id"),
        sa.PrimaryKeyConstraint("delivery_id", "number", name="pk_delivery_attempts"),
        sqlite_with_rowid=False,
    )


def _create_webhook_alerts() -> None:
    op.create_table(
        "webhook_alerts",
        sa.Column("webhook_id", sa.String(64), nullable=False),
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.ForeignKeyConstraint(["webhook_id"], ["webhooks.id"], name="fk_webhook_alerts_webhook_id"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_webhook_alerts_job_id"),
        sa.PrimaryKeyConstraint("webhook_id", "job_id", "key", name="pk_webhook_alerts"),
        sqlite_with_rowid=False,
    )
