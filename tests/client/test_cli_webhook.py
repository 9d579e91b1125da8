"""`astraml webhook`, with a controller that sends to a real receiver."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from astraml_ray.access.targets import AllowedTargets
from astraml_ray.cli.main import main
from astraml_ray.client import Client
from astraml_ray.client.failures import ApiError
from astraml_ray.control.admission import Capacity
from astraml_ray.control.controller import Reconciler
from astraml_ray.errors import RequestError
from tests.client.conftest import SPEC, Astraml, LiveService
from tests.control.fake_launcher import FakeLauncher
from tests.receiver import Receiver, serve

P = ("--project", "p-demo")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with serve() as made:
        yield made


@pytest.fixture(autouse=True)
def _told(service: LiveService, client: Client, tmp_path: Path) -> Iterator[None]:
    """A project with a controller, where loopback is allowed."""
    service.stop()
    service.targets = AllowedTargets.parse("127.0.0.0/8")
    service.start()
    client.projects.create("p-demo")
    launcher = FakeLauncher(Capacity(cpus=0.5, gpus=0, free_cpus=0, free_gpus=0))
    terms = {"holder": "test", "storage": str(tmp_path), "keys": service.keys, "targets": service.targets}
    controller = Reconciler(service.store, launcher, **terms)  # type: ignore[arg-type]
    thread = threading.Thread(target=controller.run_forever, daemon=True)
    thread.start()
    yield
    controller.close()
    thread.join(10)


def test_from_adding_one_to_removing_it(astraml: Astraml, client: Client, receiver: Receiver) -> None:
    url = receiver.url("/sEcReT")
    more = ("--event", "job.*", "--not-finite", "*", "--no-improvement", "validation/loss", "--deadline")
    added = astraml("webhook", "add", "ci", *P, "--url", url, *more, "--label", "team=a")
    key = added.stdout.splitlines()[-1]
    assert key.startswith("whsec_")
    assert "http" in added.stderr
    assert "not shown again" in added.stderr
    shown = astraml("webhook", "show", "ci", *P).stdout
    assert "condition no_improvement validation/loss for 2h" in shown
    assert "only jobs with team=a" in shown
    assert f"to http://127.0.0.1:{receiver.port}/…" in shown
    tested = astraml("webhook", "test", "ci", *P).stdout
    assert "delivered" in tested
    assert receiver.got[0].signed_by(key)
    client.submit({**SPEC, "labels": {"team": "a"}})
    assert receiver.wait(2)[1].json["type"] == "job.created"
    # What is under way is sent anyway: only what is over can be sent again.
    while len(list(client.webhooks.deliveries("p-demo", "ci", status="delivered"))) < 2:
        time.sleep(0.02)
    (told, _) = list(client.webhooks.deliveries("p-demo", "ci"))
    replayed = json.loads(astraml("webhook", "replay", "ci", told["id"], *P, "--output", "json").stdout)
    assert (replayed["attempts"], replayed["status"], receiver.got[2].id) == (2, "delivered", told["id"])
    assert len(replayed["log"]) == 2
    listed = astraml("webhook", "deliveries", "ci", *P).stdout.splitlines()
    assert ["webhook.test" in listed[1], "job.created" in listed[0]] == [True, True]
    one = astraml("webhook", "deliveries", "ci", told["id"], *P).stdout
    assert "try 2" in one
    assert receiver.got[1].body.decode() in one
    new = astraml("webhook", "rotate", "ci", *P, "--overlap", "1h").stdout.strip()
    astraml("webhook", "test", "ci", *P)
    assert receiver.got[-1].signed_by(key)
    assert receiver.got[-1].signed_by(new)
    everything = [shown, *listed, one, astraml("webhook", "list", *P).stdout]
    assert not any("sEcReT" in text or key in text for text in everything)
    assert astraml("webhook", "remove", "ci", *P).stdout == "ci of p-demo is removed\n"
    assert "add one" in astraml("webhook", "list", *P).stdout


def test_a_test_that_fails_says_why(astraml: Astraml, receiver: Receiver) -> None:
    astraml("webhook", "add", "ci", *P, "--url", receiver.url())
    receiver.answer = lambda got, number: (403, {}, b"who are you\x1b[31m?")
    failed = astraml("webhook", "test", "ci", *P, code=30)
    assert "answered 403" in failed.stdout
    assert "who are you?" in failed.stdout
    assert "tries 1" in astraml("webhook", "deliveries", "ci", *P, "--status", "failed").stdout


def test_the_address_may_be_piped_in(client: Client, receiver: Receiver) -> None:
    given = ["webhook", "add", "slack", *P, "--url", "-", "--format", "slack"]
    done = CliRunner().invoke(main, given, input=f"{receiver.url('/T0/B0/x')}\n")
    assert done.exit_code == 0, done.output
    assert client.webhooks.test("p-demo", "slack")["status"] == "delivered"
    assert (receiver.got[0].path, list(receiver.got[0].json)) == ("/T0/B0/x", ["text"])


def test_it_can_be_switched_off_and_on(astraml: Astraml, client: Client, receiver: Receiver) -> None:
    astraml("webhook", "add", "ci", *P, "--url", receiver.url(), "--event", "job.created")
    assert "disabled: it was switched off" in astraml("webhook", "disable", "ci", *P).stdout
    client.submit(SPEC)
    assert " enabled" in astraml("webhook", "enable", "ci", *P).stdout
    client.submit(SPEC)
    receiver.wait(1)
    assert [one["event"] for one in client.webhooks.deliveries("p-demo", "ci")] == ["job.created"]


def test_what_is_wrong_is_told(astraml: Astraml, client: Client) -> None:
    refused = astraml("webhook", "add", "x", *P, "--url", "https://10.0.0.1/x", code=10)
    assert "private" in refused.stderr
    unknown = astraml("webhook", "add", "x", *P, "--url", "https://h.example/x", "--event", "job.done", code=10)
    assert "/events/0" in unknown.stderr
    assert "job.succeeded" in unknown.stderr
    assert astraml("webhook", "add", "x", *P, "--url", "https://h.example", "--label", "a", code=2).stderr
    assert "no webhook 'nope'" in astraml("webhook", "show", "nope", *P, code=10).stderr
    astraml("webhook", "add", "y", *P, "--url", "http://127.0.0.1:9/")
    with pytest.raises(ApiError, match="no delivery"):
        client.webhooks.delivery("p-demo", "y", "msg-0")
    with pytest.raises(RequestError, match="missing"):
        client.webhooks.get("p-demo", " ")
