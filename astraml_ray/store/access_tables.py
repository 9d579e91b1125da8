"""The tables of projects: members, tokens, policies, secrets, quotas and the audit trail.

A `scope` is a project's id, or ORGANISATION for what holds in all of them.
"""

from __future__ import annotations

from sqlalchemy import Column, Float, ForeignKey, Index, Integer, LargeBinary, Table

from astraml_ray.store.tables import _Big, _Json, _Plain, _PlainText, metadata

__all__ = [
    "ORGANISATION",
    "audit",
    "gpu_usage",
    "job_origins",
    "members",
    "policies",
    "projects",
    "quotas",
    "secret_uses",
    "secrets",
    "tokens",
]

ORGANISATION = "*"
"""The scope of the organisation; no project can have that name."""

projects = Table(
    "projects",
    metadata,
    Column("id", _Plain(128), primary_key=True),
    Column("title", _PlainText()),
    Column("created_at", Float(53), nullable=False),
    Column("created_by", _Plain(128), nullable=False),
    Column("archived_at", Float(53)),  # takes no more jobs; what is there stays readable
)

members = Table(
    "members",
    metadata,
    Column("scope", _Plain(128), primary_key=True),
    Column("subject", _Plain(128), primary_key=True),  # a person, by the name that tokens carry
    Column("role", _Plain(32), nullable=False),
    Column("permissions", _Json, nullable=False),  # given one by one, besides the role
    Column("expires_at", Float(53)),
    Column("updated_at", Float(53), nullable=False),
    Column("updated_by", _Plain(128), nullable=False),
    sqlite_with_rowid=False,
)
# Every request asks for all roles of one subject.
Index("ix_members_subject", members.c.subject)

tokens = Table(
    "tokens",
    metadata,
    Column("id", _Plain(32), primary_key=True),
    Column("digest", _Plain(64), nullable=False),  # SHA-256 of the whole token
    Column("subject", _Plain(128), nullable=False),
    Column("kind", _Plain(16), nullable=False),  # "personal": the subject's roles | "service": a role of its own
    Column("scope", _Plain(128)),  # where it counts; null is everywhere
    Column("role", _Plain(32)),  # of a service token
    Column("permissions", _Json),  # the only ones it has of its role's; null is all of them
    Column("note", _PlainText()),
    Column("created_at", Float(53), nullable=False),
    Column("created_by", _Plain(128), nullable=False),
    Column("expires_at", Float(53)),
    Column("last_used_at", Float(53)),  # to the minute
    Column("revoked_at", Float(53)),
)
Index("ix_tokens_scope", tokens.c.scope)
Index("ix_tokens_subject", tokens.c.subject)

policies = Table(
    "policies",
    metadata,
    Column("scope", _Plain(128), primary_key=True),
    Column("version", Integer, primary_key=True),  # 1, 2, 3 ...; the newest is in force
    Column("document", _Json, nullable=False),
    Column("note", _PlainText()),
    Column("restored_from", Integer),  # the version that a rollback brought back
    Column("created_at", Float(53), nullable=False),
    Column("created_by", _Plain(128), nullable=False),
    sqlite_with_rowid=False,
)

secrets = Table(
    "secrets",
    metadata,
    Column("project_id", _Plain(128), primary_key=True),
    Column("name", _Plain(128), primary_key=True),
    Column("version", Integer, primary_key=True),  # 1, 2, 3 ..., also over a deletion
    Column("value", LargeBinary),  # encrypted; null once deleted
    Column("key_id", _Plain(32)),  # of the master key
    Column("size", Integer, nullable=False),  # characters; short ones are not masked in logs
    Column("created_at", Float(53), nullable=False),
    Column("created_by", _Plain(128), nullable=False),
    Column("deleted_at", Float(53)),
)
# Rotation looks for what other keys encrypted.
Index("ix_secrets_key_id", secrets.c.key_id)

secret_uses = Table(
    "secret_uses",
    metadata,
    Column("id", _Big, primary_key=True, autoincrement=True),
    Column("project_id", _Plain(128), nullable=False),
    Column("name", _Plain(128), nullable=False),
    Column("version", Integer, nullable=False),
    Column("job_id", _Plain(64), ForeignKey("jobs.id"), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("subject", _Plain(128), nullable=False),  # who submitted the job
    Column("at", Float(53), nullable=False),
)
Index("ix_secret_uses_project_id_name_id", secret_uses.c.project_id, secret_uses.c.name, secret_uses.c.id)

audit = Table(
    "audit",
    metadata,
    Column("seq", _Big, primary_key=True, autoincrement=False),  # 1, 2, 3 ... without gaps
    Column("at", Float(53), nullable=False),
    Column("actor", _Plain(128), nullable=False),
    Column("token_id", _Plain(32)),
    Column("scope", _Plain(128), nullable=False),
    Column("action", _Plain(64), nullable=False),  # "member.granted", "policy.changed" ...
    Column("target", _Plain(300), nullable=False),
    Column("before", _PlainText()),  # JSON, as text: the digest needs it to the letter
    Column("after", _PlainText()),
    Column("digest", _Plain(64), nullable=False),  # SHA-256 of this row and of the digest before it
)
Index("ix_audit_scope_seq", audit.c.scope, audit.c.seq)

quotas = Table(
    "quotas",
    metadata,
    Column("scope", _Plain(128), primary_key=True),
    Column("gpus_at_once", Integer),
    Column("jobs_at_once", Integer),
    Column("gpu_hours_per_week", Float(53)),
    Column("updated_at", Float(53), nullable=False),
    Column("updated_by", _Plain(128), nullable=False),
)

gpu_usage = Table(
    "gpu_usage",
    metadata,
    Column("job_id", _Plain(64), ForeignKey("jobs.id"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("project_id", _Plain(128), nullable=False),
    Column("gpus", Float(53), nullable=False),
    Column("started_at", Float(53), nullable=False),
    Column("finished_at", Float(53)),  # null while it runs
)
Index("ix_gpu_usage_project_id_finished_at", gpu_usage.c.project_id, gpu_usage.c.finished_at)

job_origins = Table(
    "job_origins",
    metadata,
    Column("job_id", _Plain(64), ForeignKey("jobs.id"), primary_key=True),
    Column("subject", _Plain(128), nullable=False),
    Column("token_id", _Plain(32)),
    Column("api_version", _Plain(16), nullable=False),  # as it was sent
    Column("request", _Json, nullable=False),  # as it was sent
    Column("migration", _Json),  # what moved, of a request of an older version
    Column("provenance", _Json, nullable=False),  # {path: {value, source, policy_version, was}}
    Column("created_at", Float(53), nullable=False),
)
