"""The tables. Times are seconds since the epoch; JSON is plain data."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)

from astraml_ray.store.plain import plain_text

__all__ = [
    "LIVE",
    "attempts",
    "events",
    "idempotency_keys",
    "job_labels",
    "jobs",
    "leases",
    "log_chunks",
    "log_cursors",
    "metadata",
    "metric_windows",
]

# Constraints and indexes need the same names everywhere, so that migrations can speak of them.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class _Plain(TypeDecorator[str]):
    """Text that both databases take: PostgreSQL knows no NUL, and UTF-8 no lone surrogate."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else plain_text(value)


class _PlainText(_Plain):
    impl = Text
    cache_ok = True  # it is not inherited, and without it no statement with such a column is cached


# Not JSONB, which reorders keys and rewrites numbers: what is read must be what was written, on both databases.
_Json = JSON(none_as_null=True)
# SQLite counts rows only in columns of type INTEGER.
_Big = BigInteger().with_variant(Integer(), "sqlite")

jobs = Table(
    "jobs",
    metadata,
    Column("id", _Plain(64), primary_key=True),  # sortable by time of creation
    Column("project_id", _Plain(128), nullable=False),
    Column("name", _Plain(128)),
    Column("status", _Plain(16), nullable=False),
    Column("reason", _Plain(64)),
    Column("message", _PlainText()),
    Column("spec", _Json, nullable=False),  # canonical: every default written out
    Column("spec_digest", _Plain(64), nullable=False),
    Column("api_version", _Plain(16), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("parent_id", _Plain(64)),  # of a resumed or cloned job, or one that trains with a trial's parameters
    Column("relation", _Plain(16)),  # "resume" | "clone" | "retrain"
    Column("created_at", Float(53), nullable=False),
    Column("queued_at", Float(53), nullable=False),  # last time it entered the queue
    Column("not_before", Float(53)),  # backoff: stays queued until then
    Column("started_at", Float(53)),  # first start
    Column("finished_at", Float(53)),
    Column("cancel_mode", _Plain(16)),  # "now" | "keep_best", once asked for
    Column("cancel_requested_at", Float(53)),
    Column("attempt", Integer, nullable=False, server_default="0"),  # number of the newest attempt
    Column("runner", _Plain(64)),  # the runner's incarnation whose reports count
    Column("runner_seq", _Big, nullable=False, server_default="0"),  # last report taken of that incarnation
    Column("heartbeat_at", Float(53)),
    Column("placement", _Json),  # what it takes of the cluster while active
    Column("wait", _Json),  # why it is queued: {"message", "would_start_with"}
    Column("progress", _Json),
    Column("warnings", _Json),
    Column("run_path", _PlainText()),
    Column("result", _Json),
    Column("error", _Json),
    Column("event_seq", _Big, nullable=False, server_default="0"),  # number of the newest event
    Column("log_seq", _Big, nullable=False, server_default="0"),  # id of the newest log line
)
# Keyset pages by id, whole and per project, each with and without a status.
Index("ix_jobs_project_id_id", jobs.c.project_id, jobs.c.id)
Index("ix_jobs_project_id_status_id", jobs.c.project_id, jobs.c.status, jobs.c.id)
Index("ix_jobs_status_id", jobs.c.status, jobs.c.id)
Index("ix_jobs_parent_id_id", jobs.c.parent_id, jobs.c.id)
# The queue and the active set are small whatever the table's age. A query must spell the condition the same way.
LIVE = text("jobs.status IN ('queued', 'starting', 'running')")
_LIVE = text("status IN ('queued', 'starting', 'running')")
Index("ix_jobs_live", jobs.c.status, jobs.c.priority, jobs.c.id, sqlite_where=_LIVE, postgresql_where=_LIVE)

job_labels = Table(
    "job_labels",
    metadata,
    Column("key", _Plain(64), primary_key=True),
    Column("value", _Plain(128), primary_key=True),
    Column("job_id", _Plain(64), ForeignKey("jobs.id"), primary_key=True, index=True),
    sqlite_with_rowid=False,
)

attempts = Table(
    "attempts",
    metadata,
    Column("job_id", _Plain(64), ForeignKey("jobs.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("status", _Plain(16), nullable=False),  # running | succeeded | failed | cancelled
    Column("started_at", Float(53), nullable=False),
    Column("finished_at", Float(53)),
    Column("first_step", _Big),
    Column("last_step", _Big),
    Column("micro_batch_divisor", Integer, nullable=False, server_default="1"),
    Column("error", _Json),
    sqlite_with_rowid=False,
)

events = Table(
    "events",
    metadata,
    Column("job_id", _Plain(64), ForeignKey("jobs.id"), primary_key=True),
    Column("seq", _Big, primary_key=True),  # 1, 2, 3 ... per job, without gaps
    Column("at", Float(53), nullable=False),
    Column("type", _Plain(64), nullable=False),
    Column("message", _PlainText()),
    Column("data", _Json),
    sqlite_with_rowid=False,
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("project_id", _Plain(128), primary_key=True),
    Column("route", _Plain(64), primary_key=True),
    Column("key", _Plain(255), primary_key=True),
    Column("fingerprint", _Plain(64), nullable=False),
    Column("request", _Json, nullable=False),  # canonical, to say what differs
    Column("status_code", Integer, nullable=False),
    Column("body", _Json, nullable=False),
    Column("job_id", _Plain(64), ForeignKey("jobs.id"), nullable=False),
    Column("created_at", Float(53), nullable=False, index=True),
    sqlite_with_rowid=False,
)

leases = Table(
    "leases",
    metadata,
    Column("name", _Plain(64), primary_key=True),
    Column("holder", _Plain(128), nullable=False),
    Column("token", _Big, nullable=False),  # grows with every new holder: the fencing token
    Column("expires_at", Float(53), nullable=False),
)

log_chunks = Table(
    "log_chunks",
    metadata,
    Column("job_id", _Plain(64), ForeignKey("jobs.id"), primary_key=True),
    Column("first_id", _Big, primary_key=True),
    Column("last_id", _Big, nullable=False),
    Column("lines", LargeBinary, nullable=False),  # zlib of JSON: a list of lines
    sqlite_with_rowid=False,
)

log_cursors = Table(
    "log_cursors",
    metadata,
    Column("job_id", _Plain(64), ForeignKey("jobs.id"), primary_key=True),
    Column("source", _Plain(128), primary_key=True),  # one process of one attempt
    Column("sequence", _Big, nullable=False),  # its last line taken
    sqlite_with_rowid=False,
)

metric_windows = Table(
    "metric_windows",
    metadata,
    Column("job_id", _Plain(64), ForeignKey("jobs.id"), primary_key=True),
    Column("name", _Plain(128), primary_key=True),
    Column("resolution", Integer, primary_key=True),  # seconds: 30, 300 or 3600
    Column("start", _Big, primary_key=True),  # seconds since the epoch, a multiple of the resolution
    Column("count", _Big, nullable=False),  # finite points
    Column("sum", Float(53), nullable=False),
    Column("sum_sq", Float(53), nullable=False),
    Column("min", Float(53)),
    Column("max", Float(53)),
    Column("first", Float(53)),
    Column("first_at", Float(53)),
    Column("first_step", _Big),
    Column("last", Float(53)),
    Column("last_at", Float(53)),
    Column("last_step", _Big),
    Column("nan_count", _Big, nullable=False),
    Column("inf_count", _Big, nullable=False),
    Column("step_first", _Big),  # smallest, of any point
    Column("step_last", _Big),  # largest
    Column("revision", Integer, nullable=False),  # grows when late points change a window
    sqlite_with_rowid=False,
)
# Retention looks for old windows of one resolution.
Index("ix_metric_windows_resolution_start", metric_windows.c.resolution, metric_windows.c.start)
