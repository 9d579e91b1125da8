"""Schedules at work: what is due becomes jobs, each in one transaction with its occurrence, and so only once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from astraml_ray.access.effective import Outcome
from astraml_ray.access.permissions import Permission
from astraml_ray.access.resolution import owner_of, resolve_document
from astraml_ray.access.targets import AllowedTargets
from astraml_ray.access.tokens import Principal
from astraml_ray.access.vault import needs_secret_use
from astraml_ray.control.making import Request, insert_job, without_schedule
from astraml_ray.control.schedules import BATCH, due_instants, next_due, overlapping
from astraml_ray.errors import AstraError, StoreError
from astraml_ray.spec.schedule import DATASET_UNCHANGED, Schedule, seconds_or_zero
from astraml_ray.spec.templates import fill_templates
from astraml_ray.store.engine import Store
from astraml_ray.store.jobs import request_cancel
from astraml_ray.store.leases import Lease
from astraml_ray.store.notices import tell_of_schedule
from astraml_ray.store.occurrences import (
    EndedOccurrence,
    Kind,
    OccurrenceRecord,
    add_occurrence,
    ended_occurrences,
    get_occurrence,
    live_occurrences,
    schedules_waiting,
    set_occurrence,
    waiting_occurrences,
)
from astraml_ray.store.plain import iso_time
from astraml_ray.store.policies import policies_in_force
from astraml_ray.store.schedules import ScheduleRecord, due_schedules, find_schedule, get_schedule, update_schedule

__all__ = ["Firing", "timing_of"]

_LOG = logging.getLogger(__name__)
_SCHEDULES = 50
_ENDED = 100


@dataclass(frozen=True)
class _Turn:
    """An instant that is to be decided about. `planned`: its row is there, and waits."""

    schedule: ScheduleRecord
    instant: int
    kind: Kind = "scheduled"
    planned: bool = False


@dataclass(frozen=True)
class _Draft:
    """A job that can be made: for whom, and what policies made of the request."""

    principal: Principal
    outcome: Outcome


class _OwnerLostError(Exception):
    """The schedule's owner may not submit any more."""


def timing_of(schedule: ScheduleRecord) -> Schedule:
    """When a schedule fires."""
    return Schedule.model_validate(schedule.timing)


class Firing:
    """Makes what is due.

    Args:
        store: The truth.
        targets: Addresses that jobs may name.
        lease: Gives the lease that every write is under; the API's writes need none.
        pass_s: Seconds after which a pass leaves the rest to the next one: jobs that run are not to wait for it.
    """

    def __init__(
        self,
        store: Store,
        targets: AllowedTargets,
        lease: Callable[[], Lease] | None = None,
        *,
        pass_s: float = 3.0,
    ) -> None:
        self._pass_s = pass_s
        self._store = store
        self._targets = targets
        self._lease = lease

    def look(self, now: float) -> None:
        """One pass: notes which jobs have ended, decides about what is due, and starts those whose turn has come."""
        with self._store.read() as conn:
            ended = ended_occurrences(conn, limit=_ENDED)
            due = due_schedules(conn, now, limit=_SCHEDULES)
        until = time.monotonic() + self._pass_s
        for one in ended:
            with self._write() as conn:
                _settle(conn, one, now)
        for schedule in due:
            try:
                self._fire_due(schedule, now, until)
            except StoreError:
                raise
            except Exception:
                # Such as a row of a newer release: the others go on.
                _LOG.exception("schedule %s", schedule.id)
            if time.monotonic() >= until:
                return
        with self._store.read() as conn:
            turns = [turn for one in schedules_waiting(conn, limit=_SCHEDULES) for turn in _turns(conn, one)]
        for turn in turns:
            self._decide(turn, now)
            if time.monotonic() >= until:
                return

    def run_now(
        self,
        schedule: ScheduleRecord,
        principal: Principal,
        *,
        now: float,
        conclude: Callable[[Connection, OccurrenceRecord], None] | None = None,
    ) -> OccurrenceRecord:
        """Makes a job at once, whatever runs or is paused, for whoever asks for it.

        Args:
            schedule: The schedule.
            principal: Who asks.
            now: Seconds since the epoch.
            conclude: What else is to be written in the same transaction.

        Raises:
            AstraError: It cannot be made; nothing is noted then.
        """
        instant = int(now)
        while True:
            # No minute begins at such a second, and so no instant of the schedule is taken for it.
            instant += instant % 60 == 0
            turn = _Turn(schedule, instant, "manual")
            draft = self._draft(turn, principal, now)
            with self._write() as conn:
                get_schedule(conn, schedule.id, lock=True)
                if add_occurrence(conn, _row(turn, now)):
                    _make(conn, turn, draft, now)
                    made = get_occurrence(conn, schedule.id, instant)
                    if conclude is not None:
                        conclude(conn, made)
                    return made
            instant += 1

    def _write(self) -> AbstractContextManager[Connection]:
        return self._store.write(self._lease() if self._lease else None)

    def _fire_due(self, schedule: ScheduleRecord, now: float, until: float) -> None:
        timing = timing_of(schedule)
        if schedule.handled_at > now:
            # The clock was ahead. What was decided about has its row, and is left alone when its time comes again.
            handled = now
        else:
            due = due_instants(schedule.id, timing, handled=schedule.handled_at, now=now)
            for done, instant in enumerate(due.fire, 1):
                self._decide(_Turn(schedule, instant), now)
                if time.monotonic() >= until:
                    due = replace(due, fire=due.fire[:done], handled=float(instant))
                    break
            if due.missed:
                self._note_missed(schedule, due.missed, timing, now)
            # Where there was none, all that has passed lies before the window.
            found = due.fire or due.missed
            handled = due.handled if found else max(schedule.handled_at, now - seconds_or_zero(timing.jitter))
        with self._write() as conn:
            known = find_schedule(conn, schedule.id, lock=True)
            # Unless someone has paused and resumed it meanwhile.
            if known is not None and known.handled_at == schedule.handled_at:
                update_schedule(conn, schedule.id, handled_at=handled, next_at=next_due(schedule.id, timing, handled))

    def _note_missed(self, schedule: ScheduleRecord, instants: tuple[int, ...], timing: Schedule, now: float) -> None:
        reason = f"its time passed while the service was away (catchup: {timing.catchup})"
        with self._write() as conn:
            if find_schedule(conn, schedule.id, lock=True) is not None:
                rows = [_row(_Turn(schedule, instant), now, outcome="missed", reason=reason) for instant in instants]
                missed = [row.instant for row in rows if add_occurrence(conn, row)]
                if missed:
                    data = {"count": len(missed), "first": iso_time(min(missed)), "last": iso_time(max(missed))}
                    tell_of_schedule(conn, schedule, "missed", now=now, message=reason, data=data)

    def _decide(self, turn: _Turn, now: float) -> None:
        """Decides about one instant: a job, none, or why none could be made. Others go on, whatever comes of it."""
        try:
            draft = self._draft(turn, None, now)
            with self._write() as conn:
                _begin(conn, turn, draft, now)
        except StoreError:
            raise
        except Exception as error:
            if not isinstance(error, (AstraError, _OwnerLostError)):
                _LOG.exception("schedule %s, instant %s", turn.schedule.id, turn.instant)
            with self._write() as conn:
                _fail(conn, turn, error, now)

    def _draft(self, turn: _Turn, principal: Principal | None, now: float) -> _Draft:
        """What the job would be under the policies that are in force now.

        Raises:
            AstraError: There can be none.
        """
        schedule = turn.schedule
        with self._store.read() as conn:
            policies = policies_in_force(conn, schedule.project_id)
            whose = principal or owner_of(conn, schedule.subject, schedule.token_id, now=now)
        if principal is None and not whose.may(Permission.JOB_SUBMIT, schedule.project_id):
            raise _OwnerLostError(f"{schedule.subject} may not submit jobs into {schedule.project_id} any more")
        whose.require(Permission.JOB_SUBMIT, schedule.project_id)
        document = fill_templates(schedule.document, turn.instant)
        outcome = resolve_document(document, policies, principal=whose, targets=self._targets)
        if needs_secret_use(outcome.provenance):
            whose.require(Permission.SECRET_USE, schedule.project_id)
        return _Draft(whose, without_schedule(outcome))


def _turns(conn: Connection, schedule_id: str) -> list[_Turn]:
    """Those that waited and whose turn it is: one after the other, unless they may overlap."""
    schedule = find_schedule(conn, schedule_id)
    if schedule is None:
        return []
    busy = {one.kind == "backfill" for one in live_occurrences(conn, schedule_id)}
    together = timing_of(schedule).overlap == "allow"
    turns = []
    for backfill in (False, True):
        if together or backfill not in busy:
            waiting = waiting_occurrences(conn, schedule_id, backfill=backfill, limit=BATCH if together else 1)
            turns += [_Turn(schedule, one.instant, one.kind, planned=True) for one in waiting]
    return turns


def _claim(conn: Connection, turn: _Turn, now: float) -> ScheduleRecord | None:
    """Takes the instant for this transaction; None if it is another's, decided about, or not to be any more."""
    schedule = find_schedule(conn, turn.schedule.id, lock=True)
    if schedule is None or schedule.paused_at is not None:
        return None
    if not turn.planned:
        return schedule if add_occurrence(conn, _row(turn, now)) else None
    return schedule if get_occurrence(conn, schedule.id, turn.instant).outcome == "waiting" else None


def _begin(conn: Connection, turn: _Turn, draft: _Draft, now: float) -> None:
    schedule = _claim(conn, turn, now)
    if schedule is None:
        return
    live = [one for one in live_occurrences(conn, schedule.id) if one.kind != "backfill"]
    ahead = waiting_occurrences(conn, schedule.id, backfill=False, limit=2)
    waiting = [one for one in ahead if one.instant != turn.instant]
    match "start" if turn.planned else overlapping(timing_of(schedule), live=live, waiting=len(waiting)):
        case "skip":
            why = f"{live[0].job_id} of an earlier occurrence has not ended" if live else "an earlier one waits"
            set_occurrence(conn, schedule.id, turn.instant, outcome="skipped", reason=why)
            tell_of_schedule(conn, schedule, "skipped", now=now, message=why, data=_told(turn))
        case "wait":
            reason = f"waits for the end of {live[0].job_id}" if live else None
            set_occurrence(conn, schedule.id, turn.instant, reason=reason)
        case "cancel":
            for one in live:
                request_cancel(conn, str(one.job_id), "now", now=now)
            _make(conn, turn, draft, now)
        case _:
            _make(conn, turn, draft, now)


def _make(conn: Connection, turn: _Turn, draft: _Draft, now: float) -> str:
    schedule = turn.schedule
    sent = schedule.document if schedule.request is None else schedule.request
    request = Request(draft.principal, sent, schedule.api_version, schedule.migration)
    job = insert_job(conn, request, draft.outcome, now=now)
    values = {"outcome": "started", "job_id": job.id, "reason": None, "decided_at": now}
    set_occurrence(conn, schedule.id, turn.instant, **values)
    tell_of_schedule(conn, schedule, "started", now=now, data={**_told(turn), "job_id": job.id})
    return job.id


def _fail(conn: Connection, turn: _Turn, error: Exception, now: float) -> None:
    schedule = _claim(conn, turn, now)
    if schedule is None:
        return
    told = error.as_dict() if isinstance(error, AstraError) else None
    reason = str(error) if told or isinstance(error, _OwnerLostError) else "an error of the service; its log has more"
    values: dict[str, Any] = {"outcome": "failed", "reason": reason, "error": told, "decided_at": now}
    set_occurrence(conn, schedule.id, turn.instant, **values)
    data = {**_told(turn), "code": told["code"] if told else None}
    tell_of_schedule(conn, schedule, "failed", now=now, message=reason, data=data)
    _count_failure(conn, schedule, now, pause=reason if isinstance(error, _OwnerLostError) else None)


def _settle(conn: Connection, ended: EndedOccurrence, now: float) -> None:
    """Notes how an occurrence's job has ended."""
    schedule = find_schedule(conn, ended.schedule_id, lock=True)
    if schedule is None:
        return
    if (ended.status, ended.reason) == ("succeeded", DATASET_UNCHANGED):
        _leave_out(conn, schedule, ended, now)
        return
    reason = ended.reason if ended.status == "failed" else None
    set_occurrence(conn, ended.schedule_id, ended.instant, outcome=ended.status, reason=reason)
    if ended.status == "failed":
        _count_failure(conn, schedule, now)
    elif ended.status == "succeeded":
        # Of a job whose dataset is not known, nothing: then the next one trains.
        source = None if ended.dataset is None else ended.job_id
        update_schedule(conn, schedule.id, failures=0, dataset=ended.dataset, dataset_job_id=source)


def _leave_out(conn: Connection, schedule: ScheduleRecord, ended: EndedOccurrence, now: float) -> None:
    """Notes that a job had nothing new to train on. It is neither a failure nor the end of a row of them."""
    set_occurrence(conn, ended.schedule_id, ended.instant, outcome="skipped", reason=DATASET_UNCHANGED)
    since = "" if schedule.dataset_job_id is None else f" as that of {schedule.dataset_job_id}"
    data = {"instant": iso_time(ended.instant), "kind": ended.kind, "job_id": ended.job_id}
    message = f"{DATASET_UNCHANGED}: the dataset is the same{since}"
    tell_of_schedule(conn, schedule, "skipped", now=now, message=message, data=data)


def _count_failure(conn: Connection, schedule: ScheduleRecord, now: float, *, pause: str | None = None) -> None:
    """Counts a failure; pauses the schedule for a reason, or because there were too many in a row."""
    failures = schedule.failures + 1
    bound = timing_of(schedule).pause_after_failures
    if pause is None and bound is not None and failures >= bound:
        pause = f"{failures} failures in a row"
    values: dict[str, Any] = {"failures": failures}
    if pause is not None and schedule.paused_at is None:
        values |= {"paused_at": now, "paused_by": None, "pause_reason": pause}
        tell_of_schedule(conn, schedule, "paused", now=now, message=pause, data={"by": None})
    update_schedule(conn, schedule.id, **values)


def _told(turn: _Turn) -> dict[str, Any]:
    return {"instant": iso_time(turn.instant), "kind": turn.kind}


def _row(turn: _Turn, now: float, *, outcome: Any = "waiting", reason: str | None = None) -> OccurrenceRecord:
    return OccurrenceRecord(turn.schedule.id, turn.instant, turn.kind, outcome, None, reason, None, now)
