"""What dataset an occurrence's job has trained on, and the last of each schedule. Only adds columns."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["downgrade", "upgrade"]

revision = "0006"
down_revision = "0005"

_COLUMNS = (("occurrences", "dataset"), ("schedules", "dataset"), ("schedules", "dataset_job_id"))


def upgrade() -> None:
    """Adds the columns."""
    for table, name in _COLUMNS:
        op.add_column(table, sa.Column(name, sa.String(64), nullable=True))


def downgrade() -> None:
    """Drops the columns."""
    for table, name in reversed(_COLUMNS):
        op.drop_column(table, name)
