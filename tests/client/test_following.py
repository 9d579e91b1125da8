"""Following logs and events while connections are cut and the service goes away."""

from __future__ import annotations

import threading

import pytest

from astraml_ray.client import ApiError, Client
from astraml_ray.errors import InfrastructureError
from tests.client.conftest import LiveService
from tests.client.proxy import cutting
from tests.client.scripted import Answer, scripted

LINES = 12


@pytest.fixture
def ended(service: LiveService, job_id: str) -> str:
    """A job that has ended, with lines of two ranks and a hole in one of them."""
    for number in range(1, LINES + 1):
        service.log(job_id, f"zéro {number}", rank=0, first=number)
    service.log(job_id, "one 1", rank=1)
    service.log(job_id, "one 9", rank=1, first=9)
    service.move(job_id, "starting", "running", "succeeded")
    return job_id


def length_of_the_stream(service: LiveService, job_id: str) -> int:
    with cutting(service.address) as proxy, Client(proxy.address) as client:
        list(client.logs(job_id, follow=True))
        return proxy.sent


def test_cut_at_many_places_nothing_is_lost_or_doubled(service: LiveService, client: Client, ended: str) -> None:
    expected = list(client.logs(ended))
    assert [line["dropped"] for line in expected][-2:] == [7, 0]
    assert list(client.logs(ended, follow=True)) == expected
    length = length_of_the_stream(service, ended)
    for position in range(0, length, 149):
        with cutting(service.address) as proxy, Client(proxy.address) as over:
            proxy.cuts = [position]
            assert list(over.logs(ended, follow=True)) == expected, f"cut after {position} of {length} bytes"
            assert proxy.connections == 2


def test_cut_again_and_again(service: LiveService, client: Client, ended: str) -> None:
    with cutting(service.address) as proxy, Client(proxy.address) as over:
        proxy.cuts = [700] * 30
        assert list(over.logs(ended, follow=True)) == list(client.logs(ended))
        assert proxy.connections > 4


@pytest.mark.parametrize("cut", [0, 350, 600])
def test_filters_and_tails_survive_a_cut(service: LiveService, client: Client, ended: str, cut: int) -> None:
    with cutting(service.address) as proxy, Client(proxy.address) as over:
        proxy.cuts = [cut, cut]
        assert [line["text"] for line in over.logs(ended, follow=True, rank=0)][-1] == f"zéro {LINES}"
        proxy.cuts = [cut, cut]
        assert [line["id"] for line in over.logs(ended, follow=True, tail=4)] == [12, 13, 14, 15]
        assert [line["id"] for line in over.logs(ended, follow=True, after=13)] == [14, 15]


def test_lines_come_while_the_job_runs(service: LiveService, client: Client, job_id: str) -> None:
    service.log(job_id, "first")
    lines = client.logs(job_id, follow=True)
    for number in range(2, 6):
        next(lines)
        service.log(job_id, f"line {number}", first=number)
    assert next(lines)["text"] == "line 5"
    service.move(job_id, "cancelled")
    assert list(lines) == []


def test_a_service_that_restarts_meanwhile(service: LiveService, client: Client, job_id: str) -> None:
    service.log(job_id, *(f"line {n}" for n in range(1, 6)))
    lines = client.logs(job_id, follow=True)
    seen = [next(lines) for _ in range(3)]
    service.stop()
    service.log(job_id, "written while it was away", first=6)
    service.move(job_id, "cancelled")
    back = threading.Timer(0.4, service.start)
    back.start()
    seen += lines
    back.join()
    assert [line["id"] for line in seen] == [1, 2, 3, 4, 5, 6]


def test_events_likewise(service: LiveService, client: Client, ended: str) -> None:
    expected = list(client.events(ended))
    assert len(expected) == 4
    for position in range(0, 1200, 151):
        with cutting(service.address) as proxy, Client(proxy.address) as over:
            proxy.cuts = [position]
            assert list(over.events(ended, follow=True)) == expected


def test_a_service_that_begins_again_is_not_believed() -> None:
    lines = [b'id: %d\ndata: {"id": %d}\n\n' % (number, number) for number in range(1, 5)]
    cut = Answer(body=b"".join(lines[:3]) + lines[3][:9])
    whole = Answer(body=b"".join(lines) + b"event: end\ndata: {}\n\n")
    with scripted(cut, whole) as script, Client(script.address) as client:
        assert [line["id"] for line in client.logs("job-1", follow=True)] == [1, 2, 3, 4]
        assert script.seen[1][2]["Last-Event-ID"] == "3"


def test_gives_up_after_its_patience(service: LiveService, job_id: str) -> None:
    service.log(job_id, "one")
    with Client(patience_s=0.3) as client:
        lines = client.logs(job_id, follow=True)
        assert next(lines)["text"] == "one"
        service.stop()
        with pytest.raises(InfrastructureError, match="does not answer"):
            next(lines)
    service.start()


def test_an_unknown_job_is_refused_at_once(client: Client) -> None:
    with pytest.raises(ApiError, match="no job"):
        next(client.logs("job-unknown", follow=True))
    with pytest.raises(ApiError, match="no job"):
        next(client.events("job-unknown", follow=True))
