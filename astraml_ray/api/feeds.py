"""What streams look for: the log lines and the events of one job, each look one short transaction."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, select

from astraml_ray.api.streams import News, event_name, frame
from astraml_ray.api.views import event_view, line_view
from astraml_ray.spec.states import JobStatus
from astraml_ray.store.engine import Store
from astraml_ray.store.events import list_events
from astraml_ray.store.logs import LogLine, read_lines
from astraml_ray.store.tables import jobs

__all__ = ["EventFeed", "LineFilter", "LogFeed"]

_PAGE = 500
_PULSE = (jobs.c.status, jobs.c.reason, jobs.c.message, jobs.c.finished_at, jobs.c.event_seq, jobs.c.log_seq)


@dataclass(frozen=True)
class LineFilter:
    """Which lines are wanted; None is all."""

    rank: int | None = None
    attempt: int | None = None
    level: str | None = None


class EventFeed:
    """The events of a job."""

    def __init__(self, store: Store, job_id: str) -> None:
        self._store = store
        self._job_id = job_id

    def look(self, after: int) -> News:
        """What comes after an event."""
        with self._store.read() as conn:
            pulse = _pulse(conn, self._job_id)
            events = list_events(conn, self._job_id, after=after, limit=_PAGE) if pulse.event_seq > after else []
        frames = [frame(event_view(event), number=event.seq, event=event_name(event.type)) for event in events]
        last = events[-1].seq if events else after
        return News(b"".join(frames), last, pulse.event_seq, _end(pulse), pulse.finished_at)


class LogFeed:
    """The log lines of a job."""

    def __init__(self, store: Store, job_id: str, lines: LineFilter, *, tail: int | None = None) -> None:
        self._store = store
        self._job_id = job_id
        self._filter = asdict(lines)
        self._tail = tail

    def look(self, after: int) -> News:
        """What comes after a line. The first look begins at the tail, if one is wanted."""
        with self._store.read() as conn:
            # First: an ended job's last lines are then among those that are read afterwards.
            pulse = _pulse(conn, self._job_id)
            lines: list[LogLine] = []
            last = after
            if pulse.log_seq > after:
                lines, last = read_lines(
                    conn, self._job_id, after=after, limit=self._tail or _PAGE, tail=self._tail, **self._filter
                )
        self._tail = None
        return News(b"".join(map(_line_frame, lines)), last, pulse.log_seq, _end(pulse), pulse.finished_at)

    @staticmethod
    def newest(conn: Connection, job_id: str) -> int:
        """Id of the newest line."""
        return int(_pulse(conn, job_id).log_seq)


def _pulse(conn: Connection, job_id: str) -> Any:
    """The few columns that say whether there is news."""
    return conn.execute(select(*_PULSE).where(jobs.c.id == job_id)).one()


def _line_frame(line: LogLine) -> bytes:
    view = line_view(line)
    return frame(view, number=line.id, event="gap" if line.dropped else None)


def _end(pulse: Any) -> dict[str, Any] | None:
    if not JobStatus(pulse.status).terminal:
        return None
    return {"status": pulse.status, "reason": pulse.reason, "message": pulse.message}
