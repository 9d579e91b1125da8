"""Conditions of webhooks at work: what comes with a report is told with it, and what comes with time is looked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection

from astraml_ray.control.conditions import (
    RESOLUTION_S,
    SWEEP_BEST,
    Finding,
    deadline_finding,
    not_finite_findings,
    not_finite_names,
    not_finite_trials,
    stall_finding,
    trial_findings,
)
from astraml_ray.errors import StoreError
from astraml_ray.spec.states import JobStatus
from astraml_ray.spec.webhook import Condition, Webhook
from astraml_ray.store.engine import Store
from astraml_ray.store.jobs import JobRecord, find_job
from astraml_ray.store.leases import Lease
from astraml_ray.store.metrics import best_since
from astraml_ray.store.notices import tell_of_condition
from astraml_ray.store.trials import find_sweep
from astraml_ray.store.webhooks import WebhookRecord, listeners

__all__ = ["Watch", "tell_of_report"]

_LOG = logging.getLogger(__name__)
_EVERY_S = 60.0
_JOBS = 50

Found = tuple[WebhookRecord, Webhook, str, Finding]


def tell_of_report(conn: Connection, job_id: str, report: Mapping[str, Any], *, now: float) -> None:
    """Tells of values in a runner's report that are not finite, in the transaction that stores it."""
    names, trials = not_finite_names(report), not_finite_trials(report)
    job = find_job(conn, job_id) if names or trials else None
    for record, spec in listeners(conn, job.project_id) if job else ():
        for condition in spec.conditions:
            findings = not_finite_findings(condition, names, attempt=job.attempt if job else 0)
            for finding in [*findings, *trial_findings(condition, trials)]:
                _tell(conn, (record, spec, job_id, finding), now)


class Watch:
    """Looks at all running jobs, once a minute, and at some of them at a time.

    Args:
        store: The truth.
        lease: Gives the lease that every write is under.
    """

    def __init__(self, store: Store, lease: Callable[[], Lease]) -> None:
        self._store = store
        self._lease = lease
        self._began = 0.0
        self._left: list[str] = []

    def look(self, jobs: Sequence[JobRecord], now: float) -> None:
        """One pass.

        Args:
            jobs: All that have not ended.
            now: Seconds since the epoch.
        """
        running = {job.id: job for job in jobs if job.status is JobStatus.RUNNING}
        if not self._left and not 0 <= now - self._began < _EVERY_S:
            self._began, self._left = now, sorted(running)
        turn, self._left = self._left[:_JOBS], self._left[_JOBS:]
        looked_at = [running[job_id] for job_id in turn if job_id in running]
        if not looked_at:
            return
        try:
            with self._store.read() as conn:
                known = _Pass(conn, now)
                found = [one for job in looked_at for one in known.findings(job)]
            if found:
                with self._store.write(self._lease()) as conn:
                    for one in found:
                        _tell(conn, one, now)
        except StoreError:
            raise
        except Exception:
            # Jobs go on, whatever is the matter with a webhook.
            _LOG.exception("conditions of webhooks")


class _Pass:
    """One look at some jobs: what several of their conditions need is read once."""

    def __init__(self, conn: Connection, now: float) -> None:
        self._now = now
        self._listeners = cache(lambda project_id: listeners(conn, project_id))
        self._sweep = cache(lambda job_id: find_sweep(conn, job_id))
        self._best = cache(
            lambda job_id, metric, lower: best_since(conn, job_id, metric, lower=lower, resolution=RESOLUTION_S)
        )

    def findings(self, job: JobRecord) -> list[Found]:
        """The conditions that have come, of all webhooks that the job is for."""
        found: list[Found] = []
        for record, spec in self._listeners(job.project_id):
            if spec.covers(job.labels):
                findings = (self._finding(job, condition) for condition in spec.conditions)
                found += [(record, spec, job.id, finding) for finding in findings if finding is not None]
        return found

    def _finding(self, job: JobRecord, condition: Condition) -> Finding | None:
        if condition.when == "deadline_will_be_missed":
            return deadline_finding(job, now=self._now)
        if condition.when != "no_improvement" or job.started_at is None:
            return None
        lower = condition.lower_is_better
        if job.spec.get("sweep"):
            sweep = self._sweep(job.id)
            if condition.metric != SWEEP_BEST or sweep is None or sweep.mode is None:
                return None
            lower = sweep.mode == "min"
        best = self._best(job.id, str(condition.metric), lower)
        return stall_finding(condition, best, started_at=job.started_at, now=self._now)


def _tell(conn: Connection, found: Found, now: float) -> None:
    record, spec, job_id, finding = found
    tell_of_condition(
        conn,
        record,
        spec,
        job_id,
        finding.event,
        key=finding.key,
        message=finding.message,
        data=finding.data,
        now=now,
    )
