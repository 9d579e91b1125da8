"""Requests of which each has something wrong with it that is sure to be refused. Seeded."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tests.api.conftest import REFERENCE
from tests.api.routes import EXPECTED

_NASTY: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1.5,
    1e308,
    2**63,
    -(2**70),
    "",
    " ",
    "\0",
    "x" * 300,
    "x" * 70_000,
    "é",
    "\ud800",
    "💥" * 50,
    "'; DROP TABLE jobs; --",
    "../../etc/passwd",
    "%00",
    "${jndi:ldap://x}",
    "{{7*7}}",
    "http://169.254.169.254/",
    [],
    {},
    [[]],
    [None] * 50,
    {"": ""},
    {"a": {"b": {"c": 1}}},
    "NaN",
    "1e999",
    "2026-13-45T99:99:99Z",
]
_IDS = [
    "",
    "x",
    "job-",
    "job-x",
    "JOB-01",
    "..",
    "%2e%2e",
    "a%2fb",
    "%00",
    "%ff",
    "job-01m8anythzd8dwv86jq1",
    "x" * 5000,
    "%F0%9F%92%A5",
    "0",
    "-1",
    "null",
    "job-01m8anythzd8dwv86jq1%0d%0aSet-Cookie:x",
    ";",
    "%",
    "%zz",
]
_QUERIES = [
    "zzz=1",
    "limit=-1",
    "limit=1e9",
    "limit=",
    "limit=9999999999999999999999",
    "cursor=%00",
    "cursor=zzz",
    "after=x",
    "after=-1",
    "status=nope",
    "label=x",
    "created_after=yesterday",
    "from=2026-99-01",
    "name=",
    "name=%00",
    "follow=maybe",
    "tail=0",
    "rank=-2",
    "level=loud",
    "resolution=1s",
    "limit=1&limit=2",
    "project_id=" + "x" * 3000,
    "project_id=%ff",
    "token=astr_000000000000_" + "A" * 43,
    "&".join(f"k{i}=v" for i in range(300)),
]
_TYPES = [
    "application/json",
    "application/yaml",
    "text/yaml",
    "text/plain",
    "application/x-python-pickle",
    "",
    "a/b;charset=utf-16",
    "é",
]
_NAMES = ["set", "mode", "value", "role", "document", "permissions", "x" * 500, "", "a.b", "__class__"]
_VALUES = {"{project_id}": "p-demo", "{job_id}": "job-01m8anythzd8dwv86jq1"}


@dataclass(frozen=True)
class Malformed:
    """One request."""

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes


def malformed_requests(count: int, *, seed: int) -> Iterator[Malformed]:
    """So many of them, over every route there is and some that there are not."""
    rng = random.Random(seed)
    routes = sorted(EXPECTED)
    for _ in range(count):
        method, path = rng.choice(routes)
        yield rng.choice(_WAYS)(rng, method, path)


def _odd_path(rng: random.Random, method: str, path: str) -> Malformed:
    parts = [rng.choice(_IDS) if part.startswith("{") or rng.random() < 0.1 else part for part in path.split("/")[1:]]
    return Malformed(method, "/" + "/".join(parts), "zzz=1", _headers(), b"")


def _odd_query(rng: random.Random, method: str, path: str) -> Malformed:
    query = "&".join([*rng.sample(_QUERIES, rng.randint(1, 3)), "zzz=1"])
    return Malformed(method, _filled(path), query, _headers(), b"{}")


def _odd_bytes(rng: random.Random, method: str, path: str) -> Malformed:
    text = json.dumps(REFERENCE).encode()
    broken = [
        rng.randbytes(rng.randint(1, 200)) + b"\xff",
        text[: rng.randint(1, len(text) - 1)],
        text + b"}",
        b"[" * rng.choice([10, 100, 5_000]),
        b'{"a":' * 2_000,
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00\x8c\x01x\x94.",
        b"a: &a [x, x]\nb: &b [*a, *a, *a]\nc: [*b, *b, *b]",
        b"!!python/object/apply:os.system ['true']",
        b"\x00" * 100,
        b"9" * 5_000,
    ]
    headers = [("Content-Type", rng.choice(_TYPES[:4])), ("Content-Encoding", rng.choice(["", "gzip", "br"]))]
    return Malformed(method, _filled(path), "zzz=1" if method == "GET" else "", _headers(*headers), rng.choice(broken))


def _odd_document(rng: random.Random, method: str, path: str) -> Malformed:
    """A spec, or something like one, with a field that there is not and others that are wrong."""
    document: dict[str, Any] = json.loads(json.dumps(REFERENCE)) if rng.random() < 0.7 else {}
    for _ in range(rng.randint(0, 3)):
        _plant(rng, document)
    document["zzz"] = copy.deepcopy(rng.choice(_NASTY))
    body = json.dumps(document).encode()
    return Malformed(
        method, _filled(path), "zzz=1" if method == "GET" else "", _headers(("Content-Type", _TYPES[0])), body
    )


def _odd_headers(rng: random.Random, method: str, path: str) -> Malformed:
    odd = [
        ("Idempotency-Key", rng.choice(["", "x" * 256, "\t", "\x7f"])),
        ("Last-Event-ID", rng.choice(["x", "-1", "9" * 50])),
        ("Range", rng.choice(["bytes=9-1", "lines=1-2", "bytes=" + "1-2," * 500])),
        ("Authorization", rng.choice(["Basic x", "Bearer", "Bearer astr_x", "bearer " + "x" * 5_000])),
        ("X-Request-Id", rng.choice(["\x01", "a b", "x" * 500])),
    ]
    chosen = rng.sample(odd, rng.randint(1, 3))
    given = {name for name, _ in chosen}
    base = [] if "Authorization" in given else _headers()
    return Malformed(method, _filled(path), "zzz=1", [*base, *chosen], b"[1]")


def _odd_method(rng: random.Random, method: str, path: str) -> Malformed:
    verb = rng.choice(["PROPFIND", "TRACE", "PATCH", "CONNECT", "get", "X" * 30])
    return Malformed(verb, _filled(path), "zzz=1", _headers(), b"{")


_WAYS: list[Callable[[random.Random, str, str], Malformed]] = [
    _odd_path,
    _odd_query,
    _odd_bytes,
    _odd_document,
    _odd_document,
    _odd_headers,
    _odd_method,
]


def _plant(rng: random.Random, document: dict[str, Any]) -> None:
    place = document
    for _ in range(rng.randint(0, 2)):
        inner = [value for value in place.values() if isinstance(value, dict)]
        place = rng.choice(inner) if inner else place
    name = rng.choice(
        [*place, "set", "mode", "value", "role", "document", "permissions", "x" * 500, "", "a.b", "__class__"]
    )
    place[name] = copy.deepcopy(rng.choice(_NASTY))  # what is planted may be planted into


def _headers(*more: tuple[str, str]) -> list[tuple[str, str]]:
    return [("Authorization", "ADMIN"), *more]


def _filled(path: str) -> str:
    for place, value in _VALUES.items():
        path = path.replace(place, value)
    return (
        path if "{" not in path else "/".join("x" if part.startswith("{") else quote(part) for part in path.split("/"))
    )
