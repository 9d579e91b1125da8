"""Log lines of jobs: sent at least once, kept exactly once, read in pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from astraml_ray.errors import JobNotFoundError
from astraml_ray.store.log_lines import LogLine, level_number, matches, new_lines, pack_lines, unpack_lines
from astraml_ray.store.statements import MAX_INTEGER, upsert
from astraml_ray.store.tables import jobs, log_chunks, log_cursors

__all__ = ["MAX_LOOKED", "LogLine", "append_lines", "read_lines"]

MAX_LOOKED = 50_000
"""Lines that one call looks through for those that pass the filters."""
_CHUNKS = 50


def append_lines(conn: Connection, job_id: str, source: str, lines: Sequence[Mapping[str, Any]]) -> int:
    """Adds what is new of the lines of one source (a process of an attempt) and returns the newest id of the job.

    Lines have the fields of a LogLine but the id; sequences begin at 1. A line that came before is passed over;
    a hole becomes a line without text that says how many are missing.

    Raises:
        JobNotFoundError: There is no such job.
    """
    newest = conn.execute(select(jobs.c.log_seq).where(jobs.c.id == job_id).with_for_update()).scalar_one_or_none()
    if newest is None:
        raise JobNotFoundError(f"there is no job {job_id}", param=job_id)
    of_source = (log_cursors.c.job_id == job_id, log_cursors.c.source == source)
    cursor = conn.execute(select(log_cursors.c.sequence).where(*of_source)).scalar_one_or_none() or 0
    made = new_lines(lines, cursor, newest)
    if not made:
        return int(newest)
    first, last = made[0].id, made[-1].id
    conn.execute(insert(log_chunks).values(job_id=job_id, first_id=first, last_id=last, lines=pack_lines(made)))
    query = upsert(conn, log_cursors).values(job_id=job_id, source=source, sequence=made[-1].sequence)
    key = [log_cursors.c.job_id, log_cursors.c.source]
    conn.execute(query.on_conflict_do_update(index_elements=key, set_={"sequence": query.excluded.sequence}))
    conn.execute(update(jobs).where(jobs.c.id == job_id).values(log_seq=last))
    return last


def read_lines(
    conn: Connection,
    job_id: str,
    *,
    after: int = 0,
    limit: int,
    rank: int | None = None,
    attempt: int | None = None,
    level: str | None = None,
    tail: int | None = None,
) -> tuple[list[LogLine], int]:
    """A page of lines in order, and the id up to which was looked: the `after` of the next page.

    A page may be short, or empty, before the log's end: a call looks through MAX_LOOKED lines or a little more.

    Args:
        conn: A connection.
        job_id: The job; one that does not exist has no lines.
        after: Only lines with greater ids.
        limit: How many at most.
        rank: Only of this worker.
        attempt: Only of this attempt.
        level: Only of this level or above.
        tail: Only the last so many that pass the filters; the next page begins at the log's end.

    Raises:
        RequestError: There is no such level.
    """
    least = 0 if level is None else level_number(level)
    after = min(max(after, 0), MAX_INTEGER)
    chunks = _chunks(conn, job_id, after) if tail is None else _chunks_backwards(conn, job_id, after)
    wanted = limit if tail is None else min(tail, limit)
    found: list[LogLine] = []
    looked, end = 0, after
    for chunk in chunks:
        for line in chunk:
            if len(found) >= wanted:
                break
            if tail is None:
                end = line.id
            if matches(line, rank=rank, attempt=attempt, least=least):
                found.append(line)
        looked += len(chunk)
        if tail is not None:
            end = max(end, chunk[0].id)
        if len(found) >= wanted or looked >= MAX_LOOKED:
            break
    return (found, end) if tail is None else (found[::-1], end)


def _chunks(conn: Connection, job_id: str, after: int) -> Iterator[list[LogLine]]:
    """The lines after an id, chunk by chunk."""
    c = log_chunks.c
    # The first chunk may have begun before.
    first = select(func.max(c.first_id)).where(c.job_id == job_id, c.first_id <= after)
    begin = conn.execute(first).scalar() or 0
    while True:
        query = select(log_chunks).where(c.job_id == job_id, c.first_id >= begin).order_by(c.first_id).limit(_CHUNKS)
        rows = conn.execute(query).all()
        for row in rows:
            lines = [line for line in unpack_lines(row.lines, row.first_id) if line.id > after]
            if lines:
                yield lines
        if len(rows) < _CHUNKS:
            return
        begin = rows[-1].last_id + 1


def _chunks_backwards(conn: Connection, job_id: str, after: int) -> Iterator[list[LogLine]]:
    """The lines after an id from the newest on, chunk by chunk."""
    c = log_chunks.c
    end = MAX_INTEGER
    while True:
        of_job = (c.job_id == job_id, c.last_id > after, c.first_id < end)
        rows = conn.execute(select(log_chunks).where(*of_job).order_by(c.first_id.desc()).limit(_CHUNKS)).all()
        for row in rows:
            lines = [line for line in unpack_lines(row.lines, row.first_id) if line.id > after]
            yield lines[::-1]
        if len(rows) < _CHUNKS:
            return
        end = rows[-1].first_id
