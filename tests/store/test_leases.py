"""One holder, growing tokens, and no write of a former holder."""

from __future__ import annotations

import threading

import pytest

from astraml_ray.errors import StaleLeaseError
from astraml_ray.store.engine import Store, open_store
from astraml_ray.store.jobs import get_job, update_job
from astraml_ray.store.leases import Lease, LeaseRecord, acquire_lease, find_lease, release_lease, renew_lease
from tests.store.conftest import NOW
from tests.store.test_engine import together


def acquire(store: Store, holder: str, now: float = NOW) -> Lease | None:
    return acquire_lease(store, "controller", holder, ttl_s=10, now=now)


def held(store: Store, holder: str, now: float = NOW) -> Lease:
    lease = acquire(store, holder, now)
    assert lease is not None
    return lease


def write(store: Store, lease: Lease, job_id: str, message: str) -> None:
    with store.write(lease) as conn:
        update_job(conn, job_id, message=message)


def test_another_waits_until_it_expires(store: Store) -> None:
    assert held(store, "a") == Lease("controller", "a", 1)
    assert acquire(store, "b", NOW + 9.9) is None
    with store.read() as conn:
        assert find_lease(conn, "controller") == LeaseRecord("controller", "a", 1, NOW + 10)
        assert find_lease(conn, "other") is None
    assert held(store, "b", NOW + 10) == Lease("controller", "b", 2)
    assert acquire(store, "a", NOW + 11) is None


def test_the_same_holder_gets_a_new_token_at_any_time(store: Store, job_id: str) -> None:
    first, second = held(store, "a"), held(store, "a")
    assert (first.token, second.token) == (1, 2)
    with pytest.raises(StaleLeaseError):
        write(store, first, job_id, "of its former life")
    write(store, second, job_id, "x")


def test_renewal_puts_the_expiry_off(store: Store) -> None:
    lease = held(store, "a")
    assert renew_lease(store, lease, ttl_s=10, now=NOW + 9)
    assert acquire(store, "b", NOW + 18) is None
    held(store, "b", NOW + 19)
    assert not renew_lease(store, lease, ttl_s=10, now=NOW + 19)
    assert acquire(store, "a", NOW + 20) is None


def test_a_released_lease_is_free_and_its_token_goes_on(store: Store, job_id: str) -> None:
    lease = held(store, "a")
    release_lease(store, lease)
    with store.read() as conn:
        assert find_lease(conn, "controller") is None
    with pytest.raises(StaleLeaseError):
        write(store, lease, job_id, "x")
    assert not renew_lease(store, lease, ttl_s=10, now=NOW)
    newer = held(store, "b")
    assert newer.token == 2
    release_lease(store, lease)  # of one who no longer has it
    write(store, newer, job_id, "x")


def test_a_stale_holder_changes_nothing(store: Store, job_id: str) -> None:
    stale = held(store, "a")
    newer = held(store, "b", NOW + 11)
    with pytest.raises(StaleLeaseError):
        write(store, stale, job_id, "stale")
    with pytest.raises(StaleLeaseError):
        write(store, Lease("never acquired", "a", 1), job_id, "stale")
    with store.read() as conn:
        assert get_job(conn, job_id).message is None
    write(store, newer, job_id, "newer")
    with store.read() as conn:
        assert get_job(conn, job_id).message == "newer"


def test_an_expired_holder_may_write_until_another_takes_over(store: Store, job_id: str) -> None:
    lease = held(store, "a", NOW - 1000)
    write(store, lease, job_id, "late, and nobody else acted")
    with store.read() as conn:
        assert get_job(conn, job_id).message == "late, and nobody else acted"


def test_nobody_takes_over_in_the_middle_of_a_fenced_write(store: Store, url: str, job_id: str) -> None:
    lease = held(store, "a")
    other, order = open_store(url), []

    def take_over() -> None:
        held(other, "b", NOW + 11)
        order.append("taken")

    thread = threading.Thread(target=take_over)
    with store.write(lease) as conn:
        thread.start()
        thread.join(0.2)
        update_job(conn, job_id, message="x")
        order.append("written")
    thread.join()
    assert order == ["written", "taken"]
    other.close()


def test_of_many_at_once_one_gets_it(store: Store) -> None:
    leases: list[Lease | None] = []
    assert together(12, lambda number: leases.append(acquire(store, f"h{number}"))) == []
    assert [lease.token for lease in leases if lease] == [1]
