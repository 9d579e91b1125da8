"""Projects: members, tokens, policies, secrets, quotas, the audit trail and where jobs come from. Only adds tables."""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

__all__ = ["downgrade", "upgrade"]

revision = "0002"
down_revision = "0001"

_JSON = sa.JSON(none_as_null=True)
_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Makes the tables, and a project for each that jobs are in."""
    _create_projects()
    _create_members()
    _create_tokens()
    _create_policies()
    _create_secrets()
    _create_secret_uses()
    _create_audit()
    _create_quotas()
    _create_gpu_usage()
    _create_job_origins()
    _make_audit_append_only()
    _add_projects()


def downgrade() -> None:
    """Drops the tables."""
    for name in (
        "job_origins",
        "gpu_usage",
        "quotas",
        "audit",
        "secret_uses",
        "secrets",
        "policies",
        "tokens",
        "members",
        "projects",
    ):
        op.drop_table(name)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_is_append_only()")


def _create_projects() -> None:
    op.create_table(
        "projects",
        sa.Column("id", sa.String(128), nullable=False),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("created_by", sa.String(128), nullable=False),
        sa.Column("archived_at", sa.Float(53), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_projects"),
    )


def _create_members() -> None:
    op.create_table(
        "members",
        sa.Column("scope", sa.String(128), nullable=False),
        sa.Column("subject", sa.String(128), nullable=False),
        sa.Column("role", sa.String(32), nullable=False),
        sa.Column("permissions", _JSON, nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=True),
        sa.Column("updated_at", sa.Float(53), nullable=False),
        sa.Column("updated_by", sa.String(128), nullable=False),
        sa.PrimaryKeyConstraint("scope", "subject", name="pk_members"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_members_subject", "members", ["subject"])


def _create_tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(128), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("scope", sa.String(128), nullable=True),
        sa.Column("role", sa.String(32), nullable=True),
        sa.Column("permissions", _JSON, nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("created_by", sa.String(128), nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=True),
        sa.Column("last_used_at", sa.Float(53), nullable=True),
        sa.Column("revoked_at", sa.Float(53), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
    )
    op.create_index("ix_tokens_scope", "tokens", ["scope"])
    op.create_index("ix_tokens_subject", "tokens", ["subject"])


def _create_policies() -> None:
    op.create_table(
        "policies",
        sa.Column("scope", sa.String(128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("document", _JSON, nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("restored_from", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("created_by", sa.String(128), nullable=False),
        sa.PrimaryKeyConstraint("scope", "version", name="pk_policies"),
        sqlite_with_rowid=False,
    )


def _create_secrets() -> None:
    op.create_table(
        "secrets",
        sa.Column("project_id", sa.String(128), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=True),
        sa.Column("key_id", sa.String(32), nullable=True),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("created_by", sa.String(128), nullable=False),
        sa.Column("deleted_at", sa.Float(53), nullable=True),
        sa.PrimaryKeyConstraint("project_id", "name", "version", name="pk_secrets"),
    )
    op.create_index("ix_secrets_key_id", "secrets", ["key_id"])


def _create_secret_uses() -> None:
    op.create_table(
        "secret_uses",
        sa.Column("id", _BIG, autoincrement=True, nullable=False),
        sa.Column("project_id", sa.String(128), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("subject", sa.String(128), nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_secret_uses_job_id"),
        sa.PrimaryKeyConstraint("id", name="pk_secret_uses"),
    )
    op.create_index("ix_secret_uses_job_id", "secret_uses", ["job_id"])
    op.create_index("ix_secret_uses_project_id_name_id", "secret_uses", ["project_id", "name", "id"])


def _create_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("seq", _BIG, autoincrement=False, nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("token_id", sa.String(32), nullable=True),
        sa.Column("scope", sa.String(128), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("target", sa.String(300), nullable=False),
        sa.Column("before", sa.Text(), nullable=True),
        sa.Column("after", sa.Text(), nullable=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_audit"),
    )
    op.create_index("ix_audit_scope_seq", "audit", ["scope", "seq"])


def _create_quotas() -> None:
    op.create_table(
        "quotas",
        sa.Column("scope", sa.String(128), nullable=False),
        sa.Column("gpus_at_once", sa.Integer(), nullable=True),
        sa.Column("jobs_at_once", sa.Integer(), nullable=True),
        sa.Column("gpu_hours_per_week", sa.Float(53), nullable=True),
        sa.Column("updated_at", sa.Float(53), nullable=False),
        sa.Column("updated_by", sa.String(128), nullable=False),
        sa.PrimaryKeyConstraint("scope", name="pk_quotas"),
    )


def _create_gpu_usage() -> None:
    op.create_table(
        "gpu_usage",
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.String(128), nullable=False),
        sa.Column("gpus", sa.Float(53), nullable=False),
        sa.Column("started_at", sa.Float(53), nullable=False),
        sa.Column("finished_at", sa.Float(53), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_gpu_usage_job_id"),
        sa.PrimaryKeyConstraint("job_id", "attempt", name="pk_gpu_usage"),
    )
    op.create_index("ix_gpu_usage_project_id_finished_at", "gpu_usage", ["project_id", "finished_at"])


def _create_job_origins() -> None:
    op.create_table(
        "job_origins",
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(128), nullable=False),
        sa.Column("token_id", sa.String(32), nullable=True),
        sa.Column("api_version", sa.String(16), nullable=False),
        sa.Column("request", _JSON, nullable=False),
        sa.Column("migration", _JSON, nullable=True),
        sa.Column("provenance", _JSON, nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_origins_job_id"),
        sa.PrimaryKeyConstraint("job_id", name="pk_job_origins"),
    )


def _make_audit_append_only() -> None:
    """The database itself refuses to change or remove what was written."""
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_no_{verb.lower()} BEFORE {verb} ON audit "
                "BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'audit is append-only'; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON audit "
        "FOR EACH ROW EXECUTE FUNCTION audit_is_append_only()"
    )


def _add_projects() -> None:
    """Jobs were in projects before there were any; and a spec that names none is in `default`."""
    connection = op.get_bind()
    names = connection.execute(sa.text("SELECT DISTINCT project_id FROM jobs")).scalars().all()
    projects = sa.table("projects", sa.column("id"), sa.column("created_at"), sa.column("created_by"))
    rows = [{"id": name, "created_at": time.time(), "created_by": "migration"} for name in sorted({*names, "default"})]
    op.bulk_insert(projects, rows)
