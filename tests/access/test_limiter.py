"""The limiter of failed tokens."""

from __future__ import annotations

import pytest

from astraml_ray.access.limiter import FailureLimiter, source_of


def test_tries_run_out_and_come_back() -> None:
    limiter = FailureLimiter(tries=3, per_s=30)
    for second in range(3):
        assert limiter.wait_s("1.2.3.4", now=float(second) / 1000) == 0
        limiter.failed("1.2.3.4", now=float(second) / 1000)
    wait = limiter.wait_s("1.2.3.4", now=0.002)
    assert 9 < wait <= 10
    assert limiter.wait_s("1.2.3.4", now=0.002 + wait) == 0
    limiter.failed("1.2.3.4", now=0.002 + wait)
    assert limiter.wait_s("1.2.3.4", now=0.003 + wait) > 9
    assert limiter.wait_s("1.2.3.4", now=1000) == 0


def test_addresses_do_not_touch_each_other() -> None:
    limiter = FailureLimiter(tries=1)
    limiter.failed("1.2.3.4", now=0)
    assert limiter.wait_s("1.2.3.4", now=0) > 0
    assert limiter.wait_s("1.2.3.5", now=0) == 0


def test_a_clock_that_is_set_back_gives_nothing() -> None:
    limiter = FailureLimiter(tries=1, per_s=60)
    limiter.failed("1.2.3.4", now=1000)
    assert limiter.wait_s("1.2.3.4", now=10) == 60


def test_many_addresses_do_not_fill_the_memory() -> None:
    limiter = FailureLimiter(tries=1, sources=100)
    for number in range(10_000):
        limiter.failed(f"10.0.{number // 256}.{number % 256}", now=0)
    assert len(limiter._accounts) == 100
    assert limiter.wait_s("10.0.39.15", now=0) > 0  # the last one


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("fe80::1%eth0", "fe80::/64"),
        ("a proxy's name", "a proxy's name"),
        ("x" * 1000, "x" * 64),
    ],
)
def test_an_ipv6_network_is_one_sender(address: str, source: str) -> None:
    assert source_of(address) == source
