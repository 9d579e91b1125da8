"""Webhooks at work: a real receiver is told what happens, and once more when that fails."""

from __future__ import annotations

import json
import math
import shutil
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from astraml_ray.access.secrets import load_keys
from astraml_ray.access.vault import rotate_secrets
from astraml_ray.api import notifying
from astraml_ray.api.views_webhooks import delivery_view
from astraml_ray.control import notifying as control_notifying
from astraml_ray.control.deliveries import GIVE_UP_S
from astraml_ray.errors import TransitionError
from astraml_ray.spec.states import JobStatus
from astraml_ray.spec.webhook import Webhook
from astraml_ray.store.audit import Actor, list_audit
from astraml_ray.store.deliveries import AttemptRow, list_attempt_rows, list_deliveries
from astraml_ray.store.engine import migrate, open_store
from astraml_ray.store.jobs import change_status
from astraml_ray.store.plain import iso_time
from astraml_ray.store.projects import create_project, remove_member
from astraml_ray.store.secrets import keys_in_use
from astraml_ray.store.webhooks import WebhookRecord, create_webhook, list_values
from tests.control.test_firing import HOUR, NOON
from tests.control.test_firing import ROOT as SCHEDULE_ROOT
from tests.control.test_firing import Site as ScheduleSite
from tests.control.webhook_site import NOW, ROOT, P, Site
from tests.receiver import Got, Receiver, serve
from tests.store.databases import serve_postgres


def test_a_receiver_is_told_with_a_signature_over_the_raw_body(site: Site, receiver: Receiver) -> None:
    fields: dict[str, Any] = {"events": ["job.succeeded", "job.failed"], "labels": {"team": "vision"}}
    key = site.add(receiver.url(), **fields)
    other = site.job(labels={"team": "text"})
    job_id = site.job(name="demo", labels={"team": "vision", "who": "Zoë"})
    site.move(job_id, "starting", "running")
    site.move(job_id, "failed", reason="out_of_memory", message="a worker ran out of memory")
    site.move(other, "starting", "running", "failed")
    (delivery,) = site.settle()
    (got,) = receiver.got
    assert got.signed_by(key)
    assert not got.signed_by("whsec_" + "A" * 43 + "=")
    assert (got.id, got.headers["webhook-timestamp"]) == (delivery.id, str(int(site.now)))
    assert (got.headers["host"], got.path) == (f"127.0.0.1:{receiver.port}", "/hook")
    assert (got.json["type"], got.json["timestamp"]) == ("job.failed", "2027-01-15T08:00:00.000Z")
    job = got.json["data"]["job"]
    assert (job["id"], job["name"], job["status"], job["reason"]) == (job_id, "demo", "failed", "out_of_memory")
    assert job["labels"] == {"team": "vision", "who": "Zoë"}
    assert got.json["data"]["message"] == "out_of_memory: a worker ran out of memory"
    assert (delivery.status, delivery.attempts, delivery.last_status) == ("delivered", 1, 200)
    assert delivery.body.encode() == got.body
    site.tick(60)
    assert len(receiver.got) == 1


def test_a_message_is_kept_in_the_transaction_that_it_tells_of(site: Site, receiver: Receiver) -> None:
    site.add(receiver.url())
    job_id = site.job()

    def fail_halfway() -> None:
        with site.store.write() as conn:
            for status in (JobStatus.STARTING, JobStatus.QUEUED, JobStatus.SUCCEEDED):
                change_status(conn, job_id, status, reason=None, message=None, now=site.now)

    with pytest.raises(TransitionError):
        fail_halfway()
    assert [one.event for one in site.told()] == ["job.created"]


def test_failures_are_tried_again_with_one_id_and_a_new_time(site: Site, receiver: Receiver) -> None:
    key = site.add(receiver.url())
    receiver.answer = lambda got, number: (500 if number < 4 else 204, {}, b"" if number >= 4 else b"broken " * 9999)
    site.job()
    (first,) = site.settle()
    assert (first.status, first.attempts, first.last_error) == ("pending", 1, "answered 500")
    assert first.next_at is not None
    assert 4.0 <= first.next_at - site.now <= 6.0
    site.tick(3.9)
    assert len(receiver.got) == 1
    for seconds in (3.0, 25.0, 100.0):
        (last,) = site.settle(seconds)
    assert (last.status, last.attempts, last.last_error) == ("delivered", 4, None)
    assert len({got.id for got in receiver.got}) == 1
    assert len({got.headers["webhook-timestamp"] for got in receiver.got}) == 4
    assert len({got.body for got in receiver.got}) == 1
    assert all(got.signed_by(key) for got in receiver.got)
    with site.store.read() as conn:
        log = list_attempt_rows(conn, last.id)
    assert [(row.number, row.http_status) for row in log] == [(4, 204), (3, 500), (2, 500), (1, 500)]
    assert len(str(log[-1].response)) == 500


def test_after_24_hours_it_is_given_up_and_a_replay_begins_anew(site: Site, receiver: Receiver) -> None:
    site.add(receiver.url())
    receiver.answer = lambda got, number: (500, {}, b"")
    site.job()
    began = site.now
    (delivery,) = site.settle()
    while delivery.status == "pending":
        assert delivery.next_at is not None
        (delivery,) = site.settle(delivery.next_at - site.now)
    assert (delivery.status, site.now - began) == ("failed", GIVE_UP_S)
    assert 10 <= delivery.attempts <= 15
    site.settle(7 * 86400)
    assert len(receiver.got) == delivery.attempts
    receiver.answer = lambda got, number: (200, {}, b"")
    notifying.replay(site.services, ROOT, P, "hook", delivery.id)
    (again,) = site.settle()
    assert (again.status, again.attempts, again.tries) == ("delivered", delivery.attempts + 1, 1)
    assert {got.id for got in receiver.got} == {delivery.id}
    with site.store.read() as conn:
        assert [one.target for one in list_audit(conn, action="webhook.replayed", limit=9)] == ["hook"]


def test_during_a_rotation_both_keys_sign(site: Site, receiver: Receiver) -> None:
    first = site.add(receiver.url())
    _, second = notifying.rotate(site.services, ROOT, P, "hook", overlap_s=3600.0)
    assert first != second

    def signatures() -> tuple[int, bool, bool]:
        site.job()
        site.settle()
        got = receiver.got[-1]
        return len(got.headers["webhook-signature"].split(" ")), got.signed_by(first), got.signed_by(second)

    assert signatures() == (2, True, True)
    site.now += 3601
    assert signatures() == (1, False, True)
    # A third key: of those before it, one is left at most; and none, if it has leaked.
    notifying.rotate(site.services, ROOT, P, "hook", overlap_s=3600.0)
    assert signatures()[0] == 2
    notifying.rotate(site.services, ROOT, P, "hook", overlap_s=0.0)
    assert signatures() == (1, False, False)


def test_a_receiver_that_is_gone_is_left_alone_until_it_is_enabled_again(site: Site, receiver: Receiver) -> None:
    site.add(receiver.url())
    receiver.answer = lambda got, number: (410, {}, b"") if number == 1 else (200, {}, b"")
    site.job()
    (delivery,) = site.settle()
    hook = site.hook()
    assert (delivery.status, hook.disabled_reason) == ("failed", "the receiver answered 410 Gone")
    assert (hook.disabled_at, hook.document["enabled"]) == (site.now, False)
    site.job()
    assert len(site.settle(9.0)) == 1, "what happens meanwhile is not kept"
    with site.store.read() as conn:
        (told,) = list_audit(conn, action="webhook.disabled", limit=9)
    assert told.actor == "service"
    # A test goes out all the same; then it is put back.
    notifying.send_test(site.services, ROOT, P, "hook")
    assert [one.event for one in site.settle()] == ["job.created", "webhook.test"]
    site.change(enabled=True)
    site.job()
    assert [one.status for one in site.settle()] == ["failed", "delivered", "delivered"]


@pytest.mark.parametrize("as_date", [False, True])
def test_a_receiver_that_asks_for_a_rest_gets_it_for_all_messages(
    site: Site, receiver: Receiver, as_date: bool
) -> None:
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(site.now + 600)) if as_date else "600"
    receiver.answer = lambda got, number: (429, {"Retry-After": later}, b"") if number == 1 else (200, {}, b"")
    site.add(receiver.url())
    site.job()
    (first,) = site.settle()
    assert (first.next_at, site.hook().hold_until) == (site.now + 600, site.now + 600)
    site.job()
    for _ in range(3):
        site.tick(199)
    assert len(receiver.got) == 1
    assert [one.status for one in site.settle(4)] == ["delivered", "delivered"]


def test_a_rest_is_ended_by_no_replay_and_no_test(site: Site, receiver: Receiver) -> None:
    receiver.answer = lambda got, number: (503, {"Retry-After": "600"}, b"") if number == 2 else (200, {}, b"")
    site.add(receiver.url())
    site.job()
    site.settle()
    site.now += 1
    site.job()
    (told, held) = site.settle()
    until = site.now + 600
    assert (told.status, held.status, site.hook().hold_until) == ("delivered", "pending", until)
    hook, again = notifying.replay(site.services, ROOT, P, "hook", told.id)
    assert delivery_view(again, hook)["next_at"] == iso_time(until)
    notifying.send_test(site.services, ROOT, P, "hook")
    site.tick(1)
    assert receiver.wait(3)[2].json["type"] == "webhook.test"
    for _ in range(3):
        site.tick(190)
    assert (len(receiver.got), site.hook().hold_until) == (3, until)
    assert [one.status for one in site.settle(until - site.now)] == ["delivered"] * 3
    assert [got.id for got in receiver.got[3:]].count(told.id) == 1


def test_another_address_needs_no_rest(site: Site, receiver: Receiver) -> None:
    receiver.answer = lambda got, number: (503, {"Retry-After": "3600"}, b"") if got.path == "/old" else (200, {}, b"")
    site.add(receiver.url("/old"))
    site.job()
    site.settle()
    site.change(url=receiver.url("/new"))
    site.now += 1
    site.job()
    assert [one.status for one in site.settle()] == ["pending", "delivered"]


def test_a_test_is_sent_once(site: Site, receiver: Receiver) -> None:
    site.add(receiver.url())
    receiver.answer = lambda got, number: (503, {}, b"away")
    _, kept = notifying.send_test(site.services, ROOT, P, "hook")
    (delivery,) = site.settle()
    assert (delivery.id, delivery.status, delivery.last_status) == (kept.id, "failed", 503)
    assert receiver.got[0].json["type"] == "webhook.test"
    site.settle(3600)
    assert len(receiver.got) == 1


def test_a_slow_receiver_holds_up_neither_another_nor_the_controller(site: Site) -> None:
    done = threading.Event()
    with serve(Receiver(slow=lambda got: done.wait(20) and None)) as slow, serve() as quick:
        site.add(slow.url(), "slow")
        site.add(quick.url(), "quick")
        for _ in range(6):
            site.job()
        told = site.settle(name="quick")
        assert [one.status for one in told] == ["delivered"] * 6
        assert len(slow.wait(2)) == 2, "two at once, and no more, of one webhook"
        assert all(one.attempts == 0 for one in site.told("slow"))
        done.set()
        assert [one.status for one in site.settle(name="slow")] == ["delivered"] * 6


def test_an_answer_that_cannot_be_kept_holds_up_no_other(
    site: Site, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.add(receiver.url("/bad"), "bad")
    site.add(receiver.url("/good"), "good")
    receiver.answer = lambda got, number: (200, {}, b"odd" if got.path == "/bad" else b"ok")
    real = control_notifying.add_attempt

    def add_attempt(conn: Connection, row: AttemptRow) -> None:
        if row.response == "odd":
            raise ValueError("an answer that nobody thought of")
        real(conn, row)

    with monkeypatch.context() as patched:
        patched.setattr(control_notifying, "add_attempt", add_attempt)
        for _ in range(3):
            site.job()
            assert {one.status for one in site.settle(5, name="good")} == {"delivered"}
        bad = site.settle(name="bad")
        assert {(one.status, one.last_error) for one in bad} == {("pending", "an error of the service: ValueError")}
        times = [one.next_at for one in bad]
        assert all(at is not None and at > site.now for at in times), "not again at every pass"
    assert {one.status for one in site.settle(300, name="bad")} == {"delivered"}


def test_a_new_controller_sends_what_was_pending_with_the_same_id(site: Site, receiver: Receiver) -> None:
    """The first one dies after it has sent, and before it has written so: at most once more."""
    site.add(receiver.url())
    site.job()
    site.tick()
    receiver.wait(1)
    site.restart("two")
    site.now += 60  # the first one's lease is over
    (delivery,) = site.settle()
    assert [got.id for got in receiver.got] == [delivery.id] * 2
    assert (delivery.status, delivery.attempts) == ("delivered", 1)
    site.restart("three")
    site.settle(60)
    assert len(receiver.got) == 2


def test_slack_gets_text_that_mentions_nobody(site: Site, receiver: Receiver) -> None:
    site.add(receiver.url(), format="slack", events=["job.failed"])
    job_id = site.job(name="demo")
    site.move(job_id, "starting", "running")
    site.move(job_id, "failed", reason="data", message="<!channel> a & b")
    site.settle()
    expected = f"*job.failed* demo ({job_id}) in p-demo\ndata: &lt;!channel&gt; a &amp; b"
    assert receiver.got[0].json == {"text": expected}


def test_a_webhook_that_is_changed_or_deleted_meanwhile(site: Site, receiver: Receiver) -> None:
    site.add(receiver.url("/old"))
    receiver.answer = lambda got, number: (500, {}, b"")
    site.job()
    site.settle()
    site.change(url=receiver.url("/new"), events=["job.failed"])
    assert site.hook().document["events"] == ["job.failed"]
    site.settle(10)
    assert [got.path for got in receiver.got] == ["/old", "/new"]
    site.tick(30)
    notifying.remove(site.services, ROOT, P, "hook")
    receiver.wait(3)
    site.land()
    with site.store.read() as conn:
        tables = ("webhooks", "webhook_secrets", "deliveries", "delivery_attempts", "webhook_alerts")
        assert [conn.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar() for name in tables] == [0] * 5


def test_addresses_and_keys_are_encrypted_and_move_to_a_new_master_key(site: Site, receiver: Receiver) -> None:
    key = site.add(receiver.url("/services/T000/B000/sEcReT"))
    raw = (site.folder / "control.db").read_bytes() + (site.folder / "control.db-wal").read_bytes()
    assert b"sEcReT" not in raw
    assert key.removeprefix("whsec_").encode() not in raw
    assert site.hook().address == f"http://127.0.0.1:{receiver.port}/…"
    path = site.folder / "master.key"
    old = load_keys(None, path)
    with site.store.read() as conn:
        assert keys_in_use(conn) == set(old.ids)
    from astraml_ray.access.secrets import KeyRing, add_master_key, write_keys

    ring = add_master_key(path)
    assert rotate_secrets(site.store, ring) == 2
    write_keys(path, KeyRing(ring.keys[:1]))
    with site.store.read() as conn:
        assert {one.key_id for one in list_values(conn, [site.hook().id])} == {ring.primary_id}
    site.job()
    assert site.settle()[0].status == "delivered"
    assert receiver.got[0].signed_by(key)
    assert receiver.got[0].path == "/services/T000/B000/sEcReT"


def test_a_lost_master_key_is_told_in_the_log_and_holds_up_nothing(site: Site, receiver: Receiver) -> None:
    site.add(receiver.url())
    path = site.folder / "master.key"
    kept = path.read_text()
    path.write_text("A" * 43 + "=\n")
    site.job()
    (delivery,) = site.settle()
    assert (delivery.status, delivery.attempts, receiver.got) == ("pending", 1, [])
    assert "is lost" in str(delivery.last_error)
    path.write_text(kept)
    assert [one.status for one in site.settle(10)] == ["delivered"]


def test_old_messages_are_deleted(site: Site, receiver: Receiver) -> None:
    site.add(receiver.url())
    site.job()
    site.settle()
    site.settle(31 * 86400.0)
    assert site.told() == []


def test_a_sweep_is_told_as_one(site: Site, receiver: Receiver) -> None:
    site.add(receiver.url(), "sweeps", events=["sweep.*"])
    site.add(receiver.url(), "jobs", events=["job.*"])
    job_id = site.job(sweep={"parameters": {"hyperparams.lr": {"log_uniform": [1e-5, 1e-2]}}, "trials": 3})
    site.now += 1
    site.move(job_id, "cancelled")
    assert site.told("jobs") == []
    assert [one.event for one in site.told("sweeps")] == ["sweep.created", "sweep.cancelled"]


@pytest.mark.parametrize("family", ["job", "sweep"])
def test_a_job_that_had_nothing_new_to_train_on_is_no_success(site: Site, receiver: Receiver, family: str) -> None:
    sweep = {"sweep": {"parameters": {"hyperparams.lr": {"log_uniform": [1e-5, 1e-2]}}, "trials": 3}}
    fields: dict[str, Any] = sweep if family == "sweep" else {}
    site.add(receiver.url(), "defaults", events=Webhook.model_fields["events"].default)
    site.add(receiver.url(), "all", events=[f"{family}.skipped", f"{family}.succeeded"])
    unchanged, trained = site.job(**fields), site.job(**fields)
    site.move(unchanged, "starting")
    site.move(unchanged, "succeeded", reason="dataset_unchanged", message="the dataset is the same")
    site.now += 1
    site.move(trained, "starting", "running", "succeeded", reason="early_stopping")
    assert [(one.event, one.subject) for one in site.told("defaults")] == [(f"{family}.succeeded", trained)]
    told = [(f"{family}.skipped", unchanged), (f"{family}.succeeded", trained)]
    assert [(one.event, one.subject) for one in site.told("all")] == told


def test_a_row_of_a_newer_release_holds_up_no_job(site: Site, receiver: Receiver) -> None:
    site.add(receiver.url())
    site.add(receiver.url(), "other")
    with site.store.write() as conn:
        conn.exec_driver_sql("UPDATE webhooks SET document = '{\"events\": [\"moon.rose\"]}' WHERE name = 'hook'")
    site.job()
    assert ([one.event for one in site.told()], [one.event for one in site.told("other")]) == ([], ["job.created"])


def test_everything_kept_is_got(site: Site, receiver: Receiver) -> None:
    """Whatever fails how often, each message arrives, and none under two ids."""
    site.add(receiver.url(), events=["*"])
    accepted: dict[str, str] = {}
    seen: Counter[str] = Counter()

    def answer(got: Got, number: int) -> tuple[int, dict[str, str], bytes]:
        seen[got.id] += 1
        if seen[got.id] <= int(got.id[-1], 36) % 4:
            return 500, {}, b""
        accepted[got.id] = got.body.decode()
        return 200, {}, b""

    receiver.answer = answer
    for _ in range(4):
        site.move(site.job(), "starting", "running", "succeeded")
    while not all(one.status == "delivered" for one in site.settle(4000)):
        assert site.now < NOW + GIVE_UP_S
    assert {one.id: one.body for one in site.told()} == accepted
    assert len(accepted) == 16


def test_a_change_while_a_message_is_under_way_is_kept(site: Site, receiver: Receiver) -> None:
    """The receiver answers 410 to what it was sent before."""
    go_on = threading.Event()
    receiver.slow = lambda got: go_on.wait(20) and None
    receiver.answer = lambda got, number: (410, {}, b"")
    site.add(receiver.url())
    site.job()
    site.tick()
    receiver.wait(1)
    site.change(events=["schedule.*"])
    go_on.set()
    site.settle()
    assert (site.hook().document["events"], site.hook().document["enabled"]) == (["schedule.*"], False)


def test_a_webhook_of_the_same_name_made_meanwhile_is_another(site: Site, receiver: Receiver) -> None:
    go_on = threading.Event()
    receiver.slow = lambda got: go_on.wait(20) and None
    receiver.answer = lambda got, number: (410, {}, b"")
    site.add(receiver.url())
    site.job()
    site.tick()
    receiver.wait(1)
    notifying.remove(site.services, ROOT, P, "hook")
    site.add(receiver.url())
    go_on.set()
    site.land()
    assert (site.hook().disabled_at, site.told()) == (None, [])


def test_what_becomes_of_schedules_is_told(template: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{shutil.copy(template, tmp_path / 'firing.db')}"
    site = ScheduleSite(url)
    document = Webhook(name="hook", events=["schedule.*"]).canonical()
    hook = WebhookRecord("wh-1", P, "hook", document, "https://h/…", NOON, "root", NOON)
    with site.store.write() as conn:
        create_webhook(conn, hook, actor=Actor("root"))
    site.schedule(overlap="skip")
    site.tick(120)
    site.tick(HOUR)
    site.tick(5 * HOUR)
    with site.store.write() as conn:
        remove_member(conn, P, "ana", actor=SCHEDULE_ROOT.actor, now=site.now)
    site.tick(HOUR)
    with site.store.read() as conn:
        told = [(one.event, json.loads(one.body)["data"]) for one in list_deliveries(conn, hook.id, limit=100)[::-1]]
    site.store.close()
    happened = [event.removeprefix("schedule.") for event, _ in told]
    assert happened[:3] == ["created", "started", "skipped"]
    assert sorted(happened[3:5]) == ["missed", "skipped"]
    assert sorted(happened[5:]) == ["failed", "paused"]
    by_event = dict(told)
    assert by_event["schedule.missed"]["event"]["count"] == 4
    assert by_event["schedule.started"]["event"]["job_id"].startswith("job-")
    assert "may not submit" in by_event["schedule.paused"]["message"]


def test_it_all_works_over_postgresql(tmp_path: Path, receiver: Receiver) -> None:
    with serve_postgres() as server:
        url = server.empty()
        migrate(url)
        store = open_store(url)
        with store.write() as conn:
            create_project(conn, P, actor=Actor("root"), now=NOW)
        site = Site(store, tmp_path)
        status = {"job.succeeded": 410}
        receiver.answer = lambda got, number: (500 if number == 1 else status.get(got.json["type"], 200), {}, b"\0\xff")
        key = site.add(receiver.url(), conditions=[{"when": "not_finite"}])
        job_id = site.running()
        site.report(job_id, {"validation/loss": [(site.now, 1, math.nan)]})
        site.settle()
        told = site.settle(10)
        assert [one.status for one in told] == ["delivered"] * 4
        assert sum(one.attempts for one in told) == len(receiver.got)
        site.move(job_id, "succeeded")
        site.settle(5)
        assert all(got.signed_by(key) for got in receiver.got)
        assert site.hook().disabled_reason == "the receiver answered 410 Gone"
        notifying.remove(site.services, ROOT, P, "hook")
        store.close()
