"""Addresses that the service must not be made to call."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astraml_ray.access import targets
from astraml_ray.access.denials import TargetNotAllowedError
from astraml_ray.access.targets import AllowedTargets, address_of, check_url, guard_document, resolve_name

NAMES = {
    "good.example": ["93.184.216.34"],
    "both.example": ["93.184.216.34", "127.0.0.1"],
    "inside.example": ["10.1.2.3"],
    "mapped.example": ["::ffff:10.0.0.1"],
    "minio.corp": ["10.1.2.3"],
    "rebind.example": ["169.254.169.254"],
}
NONE = AllowedTargets()


def resolve(name: str) -> list[str]:
    return NAMES.get(name, [])


def refused(url: str, allowed: AllowedTargets = NONE) -> str:
    with pytest.raises(TargetNotAllowedError) as caught:
        check_url(url, allowed=allowed, resolve=resolve, param="/dataset/endpoint_url")
    (problem,) = caught.value.problems
    assert problem.param == "/dataset/endpoint_url"
    return problem.message


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1",
        "http://127.0.0.1:9000/path",
        "127.0.0.1:9000",
        "http://127.1",
        "http://2130706433",
        "http://017700000001",
        "http://0177.0.0.1",
        "http://0x7f000001",
        "http://0x7f.1",
        "http://0X7F.0.0.0x1",
        "http://127.0.0.1.",
        "http://0",
        "http://0.0.0.0",
        "http://[::]",
        "http://[::1]:9000",
        "http://[0:0:0:0:0:0:0:1]",
        "http://[::ffff:127.0.0.1]",
        "http://[::ffff:7f00:1]",
        "http://[::127.0.0.1]",
        "http://[64:ff9b::7f00:1]",
        "http://[2002:7f00:1::]",
        "http://localhost",
        "HTTP://LocalHost.",
        "http://x.localhost",
    ],
)
def test_loopback_in_every_spelling(url: str) -> None:
    assert "this machine" in refused(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://2852039166/",
        "http://0xa9fea9fe",
        "http://[::ffff:169.254.169.254]",
        "http://[fd00:ec2::254]",
        "http://169.254.170.2/v2/credentials",
        "http://168.63.129.16",
        "http://100.100.100.200",
        "http://metadata.google.internal/",
        "http://METADATA.google.internal./",
        "http://rebind.example",
    ],
)
def test_metadata_services(url: str) -> None:
    assert "metadata service" in refused(url)
    # Not even by a network that has it in it; only by itself.
    everywhere = AllowedTargets.parse("0.0.0.0/0, ::/0")
    assert "metadata service" in refused(url, everywhere)
    assert check_url("http://169.254.169.254", allowed=AllowedTargets.parse("169.254.169.254"), resolve=resolve)


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1",
        "http://192.168.1.1",
        "http://172.16.0.1",
        "http://100.64.0.1",
        "http://[fc00::1]",
        "http://[fe80::1]",
        "http://[fe80::1%25eth0]",
        "http://224.0.0.1",
        "http://255.255.255.255",
        "http://inside.example",
        "http://mapped.example",
        "http://both.example",
    ],
)
def test_addresses_that_are_not_public(url: str) -> None:
    refused(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://",
        "http://[",
        "http://[::1",
        "http://good.example@127.0.0.1/",
        "http://127.0.0.1\\@good.example/",
        "http://good.example\\.127.0.0.1",
        "http://good.example?@127.0.0.1/",
        "http://good example",
        "http://good.example\r\nHost: x",
        "http://１２７.0.0.1",
        "http://ⓛocalhost",
        "http://good.example:99999",
        "http://good.example:x",
        "http://a..b",
        "http://-" + "a" * 300,
        "http://" + "a." * 200 + "b",
        "gopher://good.example",
        "file:///etc/passwd",
        "s3://bucket",
        "ftp://good.example",
        "//good.example",
        "javascript:alert(1)",
        "http://unknown.example",
        "http://1.2.3.4.5",
        "http://256.1.1.1",
        "http://0x1ffffffff",
    ],
)
def test_what_is_no_address_to_call(url: str) -> None:
    refused(url)


def test_public_addresses_are_given_back_to_connect_to() -> None:
    assert check_url("https://good.example/x", allowed=NONE, resolve=resolve).addresses == ("93.184.216.34",)
    target = check_url("http://8.8.8.8:9000", allowed=NONE, resolve=resolve)
    assert (target.host, target.port, target.addresses) == ("8.8.8.8", 9000, ("8.8.8.8",))
    assert check_url("good.example:9000", allowed=NONE, resolve=resolve).port == 9000
    assert check_url("https://good.example", allowed=NONE, resolve=resolve).port == 443


@pytest.mark.parametrize(
    ("allowed", "url", "fine"),
    [
        ("127.0.0.1:9000", "http://127.0.0.1:9000", True),
        ("127.0.0.1:9000", "127.0.0.1:9000", True),
        ("127.0.0.1:9000", "http://2130706433:9000", True),
        ("127.0.0.1:9000", "http://[::ffff:127.0.0.1]:9000", True),
        ("127.0.0.1:9000", "http://127.0.0.1:9001", False),
        ("127.0.0.1", "http://127.0.0.1:1", True),
        ("127.0.0.0/8", "http://localhost:9000", True),
        ("[::1]:9000", "http://[::1]:9000", True),
        ("localhost:9000", "http://localhost:9000", True),
        ("10.0.0.0/8", "http://inside.example", True),
        ("10.0.0.0/8", "http://both.example", False),
        ("minio.corp", "http://minio.corp:9000", True),
        ("MINIO.corp:9000", "http://minio.corp:9000", True),
        ("*.corp", "http://a.b.corp", True),
        ("*.corp", "http://corp", False),
        ("*.corp", "http://minio.corp.evil", False),
        ("*", "http://10.0.0.1", False),
        ("", "http://10.0.0.1", False),
        (" , ", "http://10.0.0.1", False),
    ],
)
def test_what_the_operator_allows(allowed: str, url: str, fine: bool) -> None:
    targets = AllowedTargets.parse(allowed)
    if fine:
        check_url(url, allowed=targets, resolve=resolve)
    else:
        refused(url, targets)


def test_a_malformed_allowance_is_an_error() -> None:
    with pytest.raises(ValueError):
        AllowedTargets.parse("10.0.0.0/64")


def test_every_field_of_a_job_is_looked_at() -> None:
    document: dict[str, Any] = {
        "name": "http://127.0.0.1",
        "labels": {"see": "http://127.0.0.1"},
        "dataset": {
            "path": "simplecache::http://[::1]/x",
            "train": "s3://bucket/key",
            "test": "https://good.example/t.parquet",
            "validation": "filecache::http://good.example/x::http://10.0.0.1/y",
            "endpoint_url": "s3://bucket",
        },
        "model": {"name": "http://169.254.169.254/latest"},
        "more": [{"endpoint_url": "localhost:1"}, "memory://x", "org/model", "file:///data"],
    }
    found = {problem.param for problem in guard_document(document, allowed=NONE, resolve=resolve)}
    assert found == {
        "/dataset/path",
        "/dataset/validation",
        "/dataset/endpoint_url",
        "/model/name",
        "/more/0/endpoint_url",
        "/more/1",
    }


@given(st.integers(0, 2**32 - 1), st.sampled_from(["dec", "hex", "oct", "short", "mixed"]))
def test_every_spelling_of_an_ipv4_address_is_that_address(number: int, style: str) -> None:
    a, b, c, d = (number >> shift & 255 for shift in (24, 16, 8, 0))
    host = {
        "dec": str(number),
        "hex": hex(number),
        "oct": f"0{number:o}",
        "short": f"{a}.{number & 0xFFFFFF}",
        "mixed": f"{a:#x}.0{b:o}.{c << 8 | d}",
    }[style]
    assert str(address_of(host)) == f"{a}.{b}.{c}.{d}"
    for inside in (
        f"::ffff:{a}.{b}.{c}.{d}",
        f"64:ff9b::{a << 8 | b:x}:{c << 8 | d:x}",
        f"2002:{a << 8 | b:x}:{c << 8 | d:x}::",
    ):
        assert str(address_of(inside)) == f"{a}.{b}.{c}.{d}"


@given(st.text(max_size=40))
def test_any_text_is_a_target_or_refused(text: str) -> None:
    for url in (text, f"http://{text}"):
        try:
            check_url(url, allowed=NONE, resolve=resolve)
        except TargetNotAllowedError:
            continue


def test_the_systems_resolver() -> None:
    assert set(resolve_name("localhost")) <= {"127.0.0.1", "::1"}
    assert resolve_name("no-such-host.invalid") == []
    assert resolve_name("x" * 300) == []


def test_a_resolver_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    monkeypatch.setattr(targets.socket, "getaddrinfo", lambda *_, **__: answer.wait(60) and [])
    monkeypatch.setattr(targets, "_LOOKUP_S", 0.05)
    try:
        with pytest.raises(TargetNotAllowedError, match="not known to the resolver"):
            check_url("http://slow.example", allowed=AllowedTargets())
        assert not answer.is_set()
    finally:
        answer.set()
