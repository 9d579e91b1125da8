"""The controller: load, decide, act, over and over, under a lease.

It holds nothing that the store does not: killed at any point, it is restarted by Ray and goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from astraml_ray.access.quotas import WEEK_S, Quota
from astraml_ray.access.targets import AllowedTargets
from astraml_ray.control.admission import demand_of
from astraml_ray.control.courier import Courier
from astraml_ray.control.firing import Firing
from astraml_ray.control.launcher import Launcher
from astraml_ray.control.notifying import Notifier
from astraml_ray.control.reconciliation import Action, Admit, End, Explain, Kill, Launch, decide, held_by_nobody
from astraml_ray.control.reports import begin_run, store_report
from astraml_ray.control.watching import Watch
from astraml_ray.data.storage.objects import join
from astraml_ray.errors import StaleLeaseError, StoreError, TransitionError
from astraml_ray.spec.states import JobStatus
from astraml_ray.store.access import GpuTime, begin_gpu_time, end_gpu_time, gpu_time_since
from astraml_ray.store.access_tables import ORGANISATION
from astraml_ray.store.deliveries import prune_deliveries
from astraml_ray.store.engine import Store
from astraml_ray.store.idempotency import prune_keys
from astraml_ray.store.jobs import JobRecord, change_status, find_job, list_live, update_job
from astraml_ray.store.leases import Lease, acquire_lease, release_lease, renew_lease
from astraml_ray.store.metrics import expire_windows
from astraml_ray.store.projects import find_quota

__all__ = ["LEASE", "Reconciler"]

_LOG = logging.getLogger(__name__)
LEASE = "controller"
LEASE_TTL_S = 10.0
_TICK_S = 0.5
_REST_S = 0.05
_RENEW_S = 2.0
_SWEEP_S = 5.0
_UPKEEP_S = 60.0


class Reconciler:
    """The controller without its actor: every effect goes through the store, the launcher and the clock.

    Args:
        store: The truth.
        launcher: The cluster.
        holder: Who asks for the lease; the same holder takes it over from itself at once.
        storage: Where the runs' folders go.
        targets: Addresses that the jobs of schedules may name and webhooks may have, besides public ones.
        keys: The file of the master keys, for webhooks.
        courier: Sends to webhooks; left out, one that goes by `targets`.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        launcher: Launcher,
        *,
        holder: str,
        storage: str,
        targets: AllowedTargets | None = None,
        keys: Path | None = None,
        courier: Courier | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._launcher = launcher
        self._holder = holder
        self._storage = storage
        self._firing = Firing(store, targets or AllowedTargets(), lambda: self.lease)
        self._watch = Watch(store, lambda: self.lease)
        way = courier or Courier(targets or AllowedTargets(), clock=clock)
        self._notifier = Notifier(store, way, keys, lambda: self.lease, wake=self.nudge)
        self._clock = clock
        self._lease: Lease | None = None
        self._renewed = self._swept = self._kept = 0.0
        self._wake = threading.Event()
        self._closed = False

    @property
    def lease(self) -> Lease:
        """The lease under which everything is written.

        Raises:
            StaleLeaseError: It is not this process's at the moment.
        """
        if self._lease is None:
            raise StaleLeaseError("this controller does not hold the lease at the moment")
        return self._lease

    def nudge(self) -> None:
        """Something has changed: look now."""
        self._wake.set()

    def close(self) -> None:
        """Gives the lease back, so that the next controller need not wait for its end."""
        self._closed = True
        self._notifier.close()
        if self._lease is not None:
            lease, self._lease = self._lease, None
            release_lease(self._store, lease)

    def run_forever(self) -> None:
        """Ticks until closed. A failure of the store or of Ray is waited out."""
        took = 0.0
        while not self._closed:
            # News is looked at soon, but not each for itself: a tick reads the whole queue, and never more than a
            # fifth of the time goes into that.
            time.sleep(max(_REST_S, 4 * took))
            self._wake.wait(_TICK_S)
            self._wake.clear()
            began = time.monotonic()
            try:
                self.tick()
                took = time.monotonic() - began
            except StaleLeaseError:
                self._lease = None
            except StoreError as error:
                _LOG.warning("the store: %s", error)
                time.sleep(1.0)
            except Exception:
                # Nothing may end this loop: the next tick begins from the store again.
                _LOG.exception("a tick failed")
                time.sleep(1.0)

    def tick(self) -> None:
        """One pass: renew the lease, make what schedules ask for, load, decide, act, tell webhooks."""
        now = self._clock()
        if not self._holds_lease(now):
            return
        self._firing.look(now)
        with self._store.read() as conn:
            jobs = list_live(conn)
            quotas, times = _quotas_of(conn, jobs, now)
        runners = self._launcher.runners()
        if jobs or runners:
            cluster = self._launcher.capacity()
            actions = decide(jobs, runners, cluster, now=now, quotas=quotas, times=times)
            self._explain([action for action in actions if isinstance(action, Explain)])
            for action in actions:
                try:
                    self._act(action, cluster.cpus, now)
                except TransitionError as error:
                    # The job moved on since it was loaded, for instance by a cancel: decided anew at the next tick.
                    _LOG.info("%s", error)
        self._watch.look(jobs, now)
        self._notifier.look(now)
        if now - self._swept > _SWEEP_S:
            self._swept = now
            self._launcher.sweep()
        if now - self._kept > _UPKEEP_S:
            self._kept = now
            self._upkeep(now)

    def _holds_lease(self, now: float) -> bool:
        if self._lease is not None and now - self._renewed < _RENEW_S:
            return True
        if self._lease is not None and not renew_lease(self._store, self._lease, ttl_s=LEASE_TTL_S, now=now):
            self._lease = None
        if self._lease is None:
            self._lease = acquire_lease(self._store, LEASE, self._holder, ttl_s=LEASE_TTL_S, now=now)
        self._renewed = now
        return self._lease is not None

    def _act(self, action: Action, cluster_cpus: float, now: float) -> None:
        match action:
            case Admit(job, placement, trials):
                demand = demand_of(placement, cluster_cpus, trials)
                taken = {"cpus": demand.cpus, "gpus": demand.gpus, "workers": placement.workers, "trials": trials}
                with self._store.write(self.lease) as conn:
                    started = change_status(
                        conn,
                        job.id,
                        JobStatus.STARTING,
                        reason=None,
                        message=None,
                        now=now,
                        placement=taken,
                        run_path=job.run_path or join(self._storage, job.id),
                    )
                    # A job that comes back to the queue may start again before its first attempt: its events, unlike
                    # its attempts, tell one stay on the cluster from the other.
                    stay = started.event_seq
                    begin_gpu_time(conn, GpuTime(job.id, stay, job.project_id, demand.gpus, now, None))
                # After the commit: should this process die here, the next tick finds a job without a runner.
                self._launcher.start(job.id)
            case Launch(job):
                self._launcher.start(job.id)
            case End(job, status, reason, message):
                with self._store.write(self.lease) as conn:
                    change_status(conn, job.id, status, reason=reason, message=message, now=now, placement=None)
                    end_gpu_time(conn, job.id, now=now)
                self._launcher.kill(job.id)
            case Kill(job_id):
                self._launcher.kill(job_id)

    def _explain(self, explanations: list[Explain]) -> None:
        if explanations:
            with self._store.write(self.lease) as conn:
                for explanation in explanations:
                    update_job(conn, explanation.job.id, wait=explanation.wait)

    def _upkeep(self, now: float) -> None:
        """Ends what nobody holds, and deletes what is past its time: a bounded batch in each transaction."""
        self._release(now)
        for delete in (prune_keys, expire_windows, prune_deliveries):
            deleted = 1
            while deleted:
                with self._store.write(self.lease) as conn:
                    deleted = delete(conn, now=now)

    def _release(self, now: float) -> None:
        """Ends the GPU time of jobs that have ended, where that was not noted."""
        with self._store.read() as conn:
            times = gpu_time_since(conn, now)
        if not times:
            return
        with self._store.write(self.lease) as conn:
            for job_id in held_by_nobody(times, list_live(conn)):
                job = find_job(conn, job_id)
                end_gpu_time(conn, job_id, now=min(now, (job and job.finished_at) or now))

    def begin(self, job_id: str, runner: str) -> dict[str, Any]:
        """See reports.begin_run."""
        return begin_run(self._store, self.lease, job_id, runner, now=self._clock())

    def report(self, job_id: str, runner: str, report: dict[str, Any]) -> dict[str, Any]:
        """See reports.store_report."""
        now = self._clock()
        answer = store_report(self._store, self.lease, job_id, runner, report, now=now)
        if "end" in report:
            if not answer["abandon"]:
                with self._store.write(self.lease) as conn:
                    end_gpu_time(conn, job_id, now=now)
            self.nudge()
        return answer


def _quotas_of(
    conn: Connection, jobs: Sequence[JobRecord], now: float
) -> tuple[dict[str, Quota], dict[str, list[GpuTime]]]:
    """The quotas that queued jobs come under, and the GPU time of the last week where a quota counts it."""
    projects = {job.project_id for job in jobs if job.status is JobStatus.QUEUED}
    scopes = [*sorted(projects), ORGANISATION] if projects else []
    quotas = {scope: quota for scope in scopes if (quota := Quota.of(find_quota(conn, scope))) is not None}
    times = {
        scope: gpu_time_since(conn, now - WEEK_S, project_id=None if scope == ORGANISATION else scope)
        for scope, quota in quotas.items()
        if quota.gpu_hours_per_week is not None
    }
    return quotas, times
