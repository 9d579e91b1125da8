"""The tables of schedules: themselves, their occurrences, and the keys of the requests that made them."""

from __future__ import annotations

from sqlalchemy import Column, Float, ForeignKey, Index, Integer, Table, text

from astraml_ray.store.tables import _Big, _Json, _Plain, _PlainText, metadata

__all__ = ["OPEN", "occurrences", "schedule_keys", "schedules"]

schedules = Table(
    "schedules",
    metadata,
    Column("id", _Plain(64), primary_key=True),  # sortable by time of creation
    Column("project_id", _Plain(128), nullable=False),
    Column("name", _PlainText()),  # with its templates
    Column("document", _Json, nullable=False),  # a spec of the current version; policies come on top each time
    Column("request", _Json),  # as it was sent, if that is another document
    Column("api_version", _Plain(16), nullable=False),  # of the request
    Column("migration", _Json),
    Column("timing", _Json, nullable=False),  # the spec's `schedule`, every default written out
    Column("subject", _Plain(128), nullable=False),  # its owner, whose rights are asked for again each time
    Column("token_id", _Plain(32)),
    Column("created_at", Float(53), nullable=False),
    Column("paused_at", Float(53)),
    Column("paused_by", _Plain(128)),  # null is the service itself
    Column("pause_reason", _PlainText()),
    Column("handled_at", Float(53), nullable=False),  # all instants up to here are decided
    Column("next_at", Float(53)),  # when the next one is due, with its jitter; null never
    Column("failures", Integer, nullable=False),  # in a row
    Column("dataset", _Plain(64)),  # digest of what its last job has trained on, where that matters
    Column("dataset_job_id", _Plain(64)),  # that job
)
Index("ix_schedules_project_id_id", schedules.c.project_id, schedules.c.id)
Index("ix_schedules_next_at", schedules.c.next_at)
Index("ix_schedules_handled_at", schedules.c.handled_at)

occurrences = Table(
    "occurrences",
    metadata,
    Column("schedule_id", _Plain(64), ForeignKey("schedules.id"), primary_key=True),
    Column("instant", _Big, primary_key=True),  # seconds since the epoch, without jitter
    Column("kind", _Plain(16), nullable=False),  # scheduled | manual | backfill
    Column("outcome", _Plain(16), nullable=False),
    Column("job_id", _Plain(64), ForeignKey("jobs.id")),
    Column("reason", _PlainText()),
    Column("error", _Json),
    Column("decided_at", Float(53), nullable=False),
    Column("dataset", _Plain(64)),  # digest of what its job has trained on, where that matters
    sqlite_with_rowid=False,
)
Index("ix_occurrences_job_id", occurrences.c.job_id)
Index("ix_occurrences_schedule_id_job_id", occurrences.c.schedule_id, occurrences.c.job_id)
# Those that something is still to be done about are few. A query must spell the condition the same way.
OPEN = text("occurrences.outcome IN ('waiting', 'started')")
_OPEN = text("outcome IN ('waiting', 'started')")
Index(
    "ix_occurrences_open",
    occurrences.c.outcome,
    occurrences.c.schedule_id,
    occurrences.c.instant,
    sqlite_where=_OPEN,
    postgresql_where=_OPEN,
)

schedule_keys = Table(
    "schedule_keys",
    metadata,
    Column("project_id", _Plain(128), primary_key=True),
    Column("route", _Plain(64), primary_key=True),
    Column("key", _Plain(255), primary_key=True),
    Column("fingerprint", _Plain(64), nullable=False),
    Column("request", _Json, nullable=False),
    Column("status_code", Integer, nullable=False),
    Column("body", _Json, nullable=False),
    Column("schedule_id", _Plain(64), nullable=False),  # it may be gone: the answer stays the same
    Column("created_at", Float(53), nullable=False, index=True),
    sqlite_with_rowid=False,
)
