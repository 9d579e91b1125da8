"""The runner: one detached actor per job. It owns the run, and reports to the controller.

This is the door to the run wing: it is imported here, inside the actor, and in dry runs; nowhere else in the service.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any

import ray

from astraml_ray.access.denials import SecretGrantError
from astraml_ray.control.outbox import Outbox
from astraml_ray.errors import AstraError
from astraml_ray.spec.loading import parse_spec

__all__ = ["CONTROLLER", "Order", "Runner", "controller_handle", "runner_name"]

_REPORT_S = 0.4
_RETRY_S = 1.0
CONTROLLER = "astraml-controller"
_PREFIX = "astraml-runner-"


@dataclass(frozen=True)
class Order:
    """What a runner is started with; the rest it asks of the controller.

    Attributes:
        job_id: The job.
        namespace: Ray's namespace of the service.
        local_cores: Cores of this machine if the cluster is this machine alone, else None.
    """

    job_id: str
    namespace: str
    local_cores: int | None


def controller_handle(namespace: str) -> Any:
    """The controller's actor.

    Raises:
        ValueError: There is none at the moment.
    """
    return ray.get_actor(CONTROLLER, namespace=namespace)


def runner_name(job_id: str) -> str:
    """The name of a job's actor; of no job, what all names begin with."""
    return _PREFIX + job_id


class Runner:
    """The actor. Its work begins with it, so that Ray's restart of a killed runner goes on with the run."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._incarnation = uuid.uuid4().hex
        self._outbox = Outbox()
        self._over = threading.Event()
        self._job: Any = None
        self._grant = (0, "")
        threading.Thread(target=self._work, daemon=True, name="work").start()

    def ping(self) -> str:
        """Answers when the actor lives."""
        return self._incarnation

    def secret(self, ticket: str, name: str) -> tuple[str | None, AstraError | None]:
        """The value of a secret of the run, for a process of the run; or why not. It must not be kept anywhere."""
        try:
            return self._job.secrets.value(ticket, name), None
        except AstraError as error:
            return None, error

    def _fetch(self, attempt: int, name: str) -> str:
        """Asks the service for a secret, with a grant for the attempt.

        Raises:
            AstraError: It refuses.
        """
        if self._grant[0] == attempt:
            value, error = self._call("release", self._grant[1], name)
            if not isinstance(error, SecretGrantError):
                return _given((value, error))
        # The first one of an attempt; or the one there was has expired, or its seal with a change of the master key.
        self._grant = attempt, _given(self._call("grant", attempt))
        return _given(self._call("release", self._grant[1], name))

    def _call(self, method: str, *arguments: Any) -> Any:
        """Calls the controller until it answers; it may be restarting."""
        while True:
            try:
                controller = controller_handle(self._order.namespace)
                return ray.get(getattr(controller, method).remote(self._order.job_id, self._incarnation, *arguments))
            except (ValueError, ray.exceptions.RayActorError, ray.exceptions.RayTaskError):
                time.sleep(_RETRY_S)

    def _work(self) -> None:
        order = self._call("begin")
        if order["abandon"]:
            return
        from astraml_ray.control.run_job import RunJob
        from astraml_ray.control.run_secrets import RunSecrets

        me = runner_name(self._order.job_id)
        secrets = RunSecrets(parse_spec(order["spec"]), me, self._order.namespace, self._fetch)
        job = RunJob(order, local_cores=self._order.local_cores, outbox=self._outbox, secrets=secrets)
        self._job = job
        reporter = threading.Thread(target=self._report, args=(job,), daemon=True, name="report")
        reporter.start()
        job.run()
        self._over.set()
        reporter.join()

    def _report(self, job: Any) -> None:
        """Sends what there is, and hears whether to stop; the last report says how the run ended."""
        beat = 0.0
        while True:
            over = self._over.wait(_REPORT_S)
            if self._outbox.empty and not over and time.monotonic() - beat < 2.0:
                continue
            beat = time.monotonic()
            report = self._outbox.next_report()
            answer = self._call("report", report)
            if answer["abandon"]:
                # Another incarnation has the run, or the job has ended: nothing that this one does counts.
                os._exit(0)
            self._outbox.acknowledge(answer["seq"])
            if answer["stop"]:
                job.stop.request(answer["stop"])
            if over and self._outbox.empty:
                return


def _given(answer: tuple[str | None, AstraError | None]) -> str:
    value, error = answer
    if error is not None:
        raise error
    return str(value)
