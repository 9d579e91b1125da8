"""The jobs of a schedule in their own order. Only adds an index."""

from __future__ import annotations

from alembic import op

__all__ = ["downgrade", "upgrade"]

revision = "0007"
down_revision = "0006"

_INDEX = "ix_occurrences_schedule_id_job_id"


def upgrade() -> None:
    """Adds the index."""
    op.create_index(_INDEX, "occurrences", ["schedule_id", "job_id"])


def downgrade() -> None:
    """Drops the index."""
    op.drop_index(_INDEX, "occurrences")
