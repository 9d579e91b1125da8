"""A service without processes that tells webhooks, and its clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from astraml_ray.access.permissions import Role
from astraml_ray.access.targets import AllowedTargets
from astraml_ray.access.tokens import Principal
from astraml_ray.api import notifying
from astraml_ray.api.services import Services
from astraml_ray.control.admission import Capacity
from astraml_ray.control.controller import Reconciler
from astraml_ray.control.courier import Courier
from astraml_ray.spec.loading import parse_spec
from astraml_ray.spec.states import JobStatus
from astraml_ray.spec.webhook import NewWebhook, WebhookChange
from astraml_ray.store.deliveries import DeliveryRecord, list_deliveries
from astraml_ray.store.engine import Store
from astraml_ray.store.jobs import NewJob, change_status, create_job, new_job_id, update_job
from astraml_ray.store.webhooks import WebhookRecord, find_webhook
from astraml_ray.store.windows import collect
from tests.api.conftest import FakeValidator
from tests.control.fake_launcher import FakeLauncher

ROOT = Principal("t" * 12, "root", Role.ORG_ADMIN)
P = "p-demo"
LOOPBACK = AllowedTargets.parse("127.0.0.0/8")
NOW = 1_800_000_000.0


@dataclass
class Site:
    """A service without processes, and its clock."""

    store: Store
    folder: Path
    now: float = NOW
    targets: AllowedTargets = LOOPBACK
    resolve: Callable[[str], list[str]] | None = None
    seq: int = 0
    courier: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.services = Services(
            self.store,
            FakeValidator(),
            nudge=lambda: None,
            clock=lambda: self.now,
            targets=self.targets,
            keys=self.folder / "master.key",
        )
        self.restart()

    def restart(self, holder: str = "one") -> None:
        """Another controller, which knows nothing of the first one's."""
        courier = Courier(self.targets, resolve=self.resolve, clock=lambda: self.now, **self.courier)
        self.controller = Reconciler(
            self.store,
            FakeLauncher(Capacity(cpus=0.5, gpus=0, free_cpus=0, free_gpus=0)),
            holder=holder,
            storage=str(self.folder),
            keys=self.folder / "master.key",
            courier=courier,
            clock=lambda: self.now,
        )

    def add(self, url: str, name: str = "hook", **fields: Any) -> str:
        """Makes a webhook; its key."""
        asked = NewWebhook.model_validate({"name": name, "url": url, "events": ["job.*"], **fields})
        return notifying.make(self.services, ROOT, P, asked)[1]

    def change(self, name: str = "hook", **fields: Any) -> None:
        notifying.change(self.services, ROOT, P, name, WebhookChange.model_validate(fields))

    def hook(self, name: str = "hook") -> WebhookRecord:
        with self.store.read() as conn:
            found = find_webhook(conn, P, name)
        assert found is not None
        return found

    def told(self, name: str = "hook", **filters: Any) -> list[DeliveryRecord]:
        """The oldest first."""
        with self.store.read() as conn:
            return list_deliveries(conn, self.hook(name).id, limit=1000, **filters)[::-1]

    def job(self, **fields: Any) -> str:
        document = {"project_id": P, "dataset": "s3://b/d", "model": "tiny-bert", "resources": {"gpus": 0}, **fields}
        spec = parse_spec(document)
        job_id = new_job_id(self.now)
        terms = ("v2.1", P, spec.name, 0, spec.labels)
        with self.store.write() as conn:
            create_job(conn, NewJob(job_id, spec.canonical(), spec.digest(), *terms), now=self.now)
        return job_id

    def move(self, job_id: str, *statuses: str, reason: str | None = None, message: str | None = None) -> None:
        for status in statuses:
            with self.store.write() as conn:
                change_status(conn, job_id, JobStatus(status), reason=reason, message=message, now=self.now)

    def running(self, **fields: Any) -> str:
        self.tick()
        job_id = self.job(**fields)
        self.move(job_id, "starting", "running")
        with self.store.write() as conn:
            update_job(conn, job_id, runner="r1", attempt=1)
        return job_id

    def report(self, job_id: str, points: dict[str, list[tuple[float, int, float]]] | None = None, **more: Any) -> None:
        self.seq += 1
        windows = {name: [vars(one) for one in collect(of, 30).values()] for name, of in (points or {}).items()}
        report = {"seq": self.seq, "windows": windows, "lines": [], "events": [], **more}
        self.controller.report(job_id, "r1", report)

    def tick(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.controller.tick()

    def land(self) -> None:
        """Waits until all that is under way is answered, and lets the controller write how that went."""
        flights = self.controller._notifier._flights
        end = time.monotonic() + 20
        while not all(flight.reply.done() for flight in flights.values()):
            assert time.monotonic() < end, list(flights)
            time.sleep(0.005)
        self.tick()
        assert flights == {}

    def settle(self, seconds: float = 0.0, name: str = "hook") -> list[DeliveryRecord]:
        """Ticks until nothing is due or under way at this time; what the webhook was told then."""
        self.now += seconds
        end = time.monotonic() + 20
        while True:
            self.controller.tick()
            left = [one for one in self.told(name) if one.next_at is not None and one.next_at <= self.now]
            if not left:
                return self.told(name)
            assert time.monotonic() < end, left
            time.sleep(0.005)
