"""Followed logs and events over a real connection: cut anywhere, nothing is lost and nothing comes twice."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from astraml_ray.api.app import ApiLimits
from astraml_ray.errors import StoreBusyError
from astraml_ray.spec.states import JobStatus
from astraml_ray.store.events import append_event
from tests.api.conftest import Api, serving, wait_until
from tests.api.test_records import add_lines, line

LINES = 12


@dataclass(frozen=True)
class Message:
    """One server-sent event."""

    id: str | None
    event: str
    data: Any


def messages(answer: httpx.Response) -> Iterator[Message]:
    """What a browser would make of a stream."""
    fields: dict[str, str] = {}
    for text in answer.iter_lines():
        if text.startswith((":", "retry:")):
            continue
        if text:
            name, _, value = text.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield Message(fields.get("id"), fields.get("event", "message"), json.loads(fields["data"]))
            fields = {}


@contextmanager
def following(
    address: str, auth: dict[str, str], job_id: str, what: str = "logs", last: str | None = None, **params: Any
) -> Iterator[Any]:
    headers = {**auth, "Last-Event-ID": last} if last is not None else auth
    url = f"{address}/v2.1/jobs/{job_id}/{what}"
    with (
        httpx.Client(timeout=30, verify=False) as client,
        client.stream("GET", url, params={"follow": "true", **params}, headers=headers) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield messages(answer)


def read_all(
    address: str, auth: dict[str, str], job_id: str, what: str = "logs", last: str | None = None, **params: Any
) -> list[Message]:
    with following(address, auth, job_id, what, last, **params) as stream:
        return list(stream)


@pytest.fixture
def ended(api: Api) -> str:
    """A cancelled job with lines, and with three lines missing after the fifth."""
    job_id = api.new_job()
    add_lines(api, job_id, *(line(n if n <= 5 else n + 3, f"line {n}") for n in range(1, LINES)))
    api.move(job_id, JobStatus.CANCELLED)
    return job_id


def test_a_whole_log_ends_with_the_jobs_status(api: Api, ended: str) -> None:
    with serving(api.app) as address:
        *lines, end = read_all(address, api.auth, ended)
    assert [message.id for message in lines] == [str(n) for n in range(1, LINES + 1)]
    assert [message.data["text"] for message in lines if message.event == "message"] == [
        f"line {n}" for n in range(1, LINES)
    ]
    (gap,) = [message for message in lines if message.event == "gap"]
    assert (gap.id, gap.data["dropped"]) == ("6", 3)
    assert (end.event, end.id) == ("end", None)
    assert end.data == {"status": "cancelled", "reason": None, "message": None, "last_id": LINES}


def test_cut_after_every_line_and_followed_again(api: Api, ended: str) -> None:
    with serving(api.app) as address:
        whole = read_all(address, api.auth, ended)
        for cut in range(1, LINES + 1):
            with following(address, api.auth, ended) as stream:
                first = [next(stream) for _ in range(cut)]
            assert first + read_all(address, api.auth, ended, last=first[-1].id) == whole
        # And a connection that never lives longer than one line.
        one_by_one: list[Message] = []
        while len(one_by_one) < LINES:
            with following(address, api.auth, ended, last=one_by_one[-1].id if one_by_one else None) as stream:
                one_by_one.append(next(stream))
        assert one_by_one == whole[:LINES]


def test_cut_again_and_again_while_lines_arrive(api: Api) -> None:
    job_id = api.new_job()
    api.move(job_id, JobStatus.STARTING, JobStatus.RUNNING)
    total = 60

    def write() -> None:
        for n in range(1, total + 1):
            add_lines(api, job_id, line(n, f"line {n}"))
        api.move(job_id, JobStatus.SUCCEEDED)

    seen: list[Message] = []
    with serving(api.app) as address:
        writer = threading.Thread(target=write)
        writer.start()
        end: Message | None = None
        while end is None:
            with following(address, api.auth, job_id, last=seen[-1].id if seen else None) as stream:
                for count, message in enumerate(stream):
                    if message.event == "end":
                        end = message
                        break
                    seen.append(message)
                    if count == len(seen) % 7:
                        break
        writer.join()
    assert [message.data["text"] for message in seen] == [f"line {n}" for n in range(1, total + 1)]
    assert (end.data["status"], end.data["reason"], end.data["last_id"]) == ("succeeded", "early_stopping", total)


def test_last_event_id_is_stronger_than_after_and_tail(api: Api, ended: str) -> None:
    with serving(api.app) as address:
        assert read_all(address, api.auth, ended, last="10", after=2, tail=1)[0].id == "11"
        assert read_all(address, api.auth, ended, after=10)[0].id == "11"
        assert [message.id for message in read_all(address, api.auth, ended, tail=2)] == ["11", "12", None]
        assert [message.event for message in read_all(address, api.auth, ended, last=str(LINES))] == ["end"]
        assert [message.event for message in read_all(address, api.auth, ended, last="999999")] == ["end"]
        assert read_all(address, api.auth, ended, last="")[0].id == "1"
        wrong = httpx.get(f"{address}/v2.1/jobs/{ended}/logs?follow=true", headers={**api.auth, "Last-Event-ID": "x"})
        assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_parameter")


def test_filters_hold_while_following(api: Api) -> None:
    job_id = api.new_job()
    add_lines(api, job_id, *(line(n, f"line {n}", rank=n % 3, level=("INFO", "ERROR")[n % 2]) for n in range(1, 1300)))
    api.move(job_id, JobStatus.CANCELLED)
    with serving(api.app) as address:
        *lines, end = read_all(address, api.auth, job_id, rank=2, level="warning")
    assert [message.data["id"] for message in lines] == [n for n in range(1, 1300) if n % 3 == 2 and n % 2 == 1]
    assert end.data["last_id"] == 1299


def test_lines_that_come_late_are_waited_for(make_api: Callable[..., Api]) -> None:
    """The last lines of a worker may be stored after the job's end."""
    api = make_api(limits=ApiLimits(poll_s=0.01, max_poll_s=0.02, settle_s=3600.0), clock=time.time)
    job_id = api.new_job()
    add_lines(api, job_id, line(1, "early"))
    api.move(job_id, JobStatus.CANCELLED)
    with serving(api.app) as address, following(address, api.auth, job_id) as stream:
        assert next(stream).data["text"] == "early"
        add_lines(api, job_id, line(2, "late"))
        assert next(stream).data["text"] == "late"


def test_events_are_followed_to_the_end(api: Api) -> None:
    job_id = api.new_job()
    with serving(api.app) as address:
        with following(address, api.auth, job_id, "events") as stream:
            assert next(stream).event == "job_created"
            with api.store.write() as conn:
                append_event(conn, job_id, "end", now=1.0, message="not the end")
                append_event(conn, job_id, "odd\nname", now=1.0)
            named_end, odd = next(stream), next(stream)
            assert (named_end.event, named_end.data["type"]) == ("message", "end")
            assert (odd.event, odd.data["type"]) == ("message", "odd\nname")
        api.move(job_id, JobStatus.CANCELLED)
        rest = read_all(address, api.auth, job_id, "events", last=odd.id)
    assert [message.event for message in rest] == ["job_cancelled", "end"]
    assert rest[-1].data["last_id"] == 4


def test_a_client_that_leaves_ends_its_stream_and_no_connection_is_held(make_api: Callable[..., Api]) -> None:
    api = make_api(limits=ApiLimits(poll_s=0.01, max_poll_s=0.02, max_concurrent=2))
    job_id = api.new_job()
    with serving(api.app) as address:
        with (
            following(address, api.auth, job_id, "events") as first,
            following(address, api.auth, job_id, "events") as second,
            following(address, api.auth, job_id) as third,
        ):
            next(first), next(second)
            assert third
            assert api.services.admission.streams == 3
            # Streams take no place among the requests, and hold no connection between their looks.
            assert httpx.get(f"{address}/v2.1/jobs/{job_id}", headers=api.auth).status_code == 200
            wait_until(lambda: api.store._reader.pool.checkedout() == 0)  # type: ignore[attr-defined]
        wait_until(lambda: api.services.admission.streams == 0)


def test_too_many_streams_are_refused(make_api: Callable[..., Api]) -> None:
    api = make_api(limits=ApiLimits(poll_s=0.01, max_streams=1))
    job_id = api.new_job()
    with serving(api.app) as address, following(address, api.auth, job_id, "events") as stream:
        next(stream)
        answer = httpx.get(f"{address}/v2.1/jobs/{job_id}/logs?follow=true", headers=api.auth)
        assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "overloaded", "1")
        assert httpx.get(f"{address}/v2.1/jobs/{job_id}/logs", headers=api.auth).status_code == 200
    assert api.services.admission.requests == 0


def test_silence_is_broken_by_heartbeats_and_streams_are_renewed(make_api: Callable[..., Api]) -> None:
    api = make_api(limits=ApiLimits(poll_s=0.01, max_poll_s=0.02, heartbeat_s=0.05, max_stream_s=0.5))
    with serving(api.app) as address:
        text = httpx.get(f"{address}/v2.1/jobs/{api.new_job()}/logs?follow=true", headers=api.auth, timeout=30).text
    assert text.startswith("retry: 1000\n\n")
    assert text.count(": heartbeat\n\n") >= 2
    assert "event: end" not in text


def test_a_database_that_fails_for_a_while_does_not_end_a_stream(api: Api) -> None:
    job_id = api.new_job()
    real = api.store.read
    failures = iter(range(3))

    def read() -> Any:
        if threading.current_thread() is not threading.main_thread() and next(failures, None) is not None:
            raise StoreBusyError("locked")
        return real()

    with serving(api.app) as address, following(address, api.auth, job_id, "events") as stream:
        assert next(stream).event == "job_created"
        api.store.read = read  # type: ignore[method-assign]
        api.move(job_id, JobStatus.CANCELLED)
        assert [message.event for message in stream] == ["job_cancelled", "end"]
    assert next(failures, None) is None


def test_streams_of_unknown_jobs_are_404(api: Api) -> None:
    answer = api.client.get("/v2.1/jobs/none/logs?follow=true")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
