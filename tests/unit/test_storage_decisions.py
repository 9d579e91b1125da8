"""What is decided about storage without any: pauses, budgets, ranges, where to cut a listing, and settings."""

from __future__ import annotations

import asyncio
import bisect
import io
import itertools
import random
import socket
from collections.abc import Iterable
from typing import Any

import aiohttp
import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError, NoCredentialsError
from fsspec.asyn import get_loop

from astraml_ray.data.storage.failures import WrongLengthError, failure_of
from astraml_ray.data.storage.listing import list_keys, stems
from astraml_ray.data.storage.ranged import Footers, RangedFile, window_of
from astraml_ray.data.storage.retries import Failure, FailureKind, RetryBudget, RetryPolicy
from astraml_ray.data.storage.s3 import PART_BYTES, part_size
from astraml_ray.errors import SpecError
from astraml_ray.settings import load_settings

PASSING = Failure(FailureKind.PASSING, "reset")
BUSY = Failure(FailureKind.BUSY, "SlowDown")
POLICY = RetryPolicy(deadline_s=60.0)


def refusal(status: int, code: str, **headers: str) -> ClientError:
    answer = {"HTTPStatusCode": status, "HTTPHeaders": {k.replace("_", "-"): v for k, v in headers.items()}}
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": answer}, "GetObject")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (refusal(503, "SlowDown"), FailureKind.BUSY),
        (refusal(503, "Unknown"), FailureKind.BUSY),
        (refusal(429, "TooManyRequests"), FailureKind.BUSY),
        (refusal(400, "RequestTimeout"), FailureKind.PASSING),
        (refusal(500, "InternalError"), FailureKind.PASSING),
        (refusal(502, "502"), FailureKind.PASSING),
        (refusal(403, "AccessDenied"), FailureKind.FINAL),
        (refusal(404, "NoSuchKey"), FailureKind.FINAL),
        (refusal(404, "NoSuchBucket"), FailureKind.FINAL),
        (refusal(412, "PreconditionFailed"), FailureKind.FINAL),
        (refusal(416, "InvalidRange"), FailureKind.FINAL),
        (refusal(501, "NotImplemented"), FailureKind.FINAL),
        (EndpointConnectionError(endpoint_url="u", error=socket.gaierror("no name")), FailureKind.UNREACHABLE),
        (EndpointConnectionError(endpoint_url="u", error=aiohttp.ClientOSError("reset")), FailureKind.PASSING),
        (ConnectTimeoutError(endpoint_url="u"), FailureKind.UNREACHABLE),
        (aiohttp.ClientPayloadError("cut"), FailureKind.PASSING),
        (WrongLengthError("short"), FailureKind.PASSING),
        (ConnectionResetError(), FailureKind.PASSING),
        (TimeoutError(), FailureKind.PASSING),
        (NoCredentialsError(), FailureKind.FINAL),
        (KeyError("a mistake of ours"), FailureKind.FINAL),
    ],
)
def test_which_failures_may_pass(error: Exception, kind: FailureKind) -> None:
    assert failure_of(error).kind is kind


def test_the_storage_says_how_long_to_wait() -> None:
    assert failure_of(refusal(503, "SlowDown", retry_after="7")).retry_after_s == 7
    assert failure_of(refusal(503, "SlowDown", retry_after="Wed, 21 Oct")).retry_after_s == 0
    asked = Failure(FailureKind.BUSY, "", retry_after_s=7.0)
    assert POLICY.pause(asked, tries=1, spent_s=0, answered=True, draw=0.5) == 7
    assert POLICY.pause(asked, tries=1, spent_s=54, answered=True, draw=0.5) is None


def test_pauses_double_with_full_jitter_until_the_deadline() -> None:
    def pause(tries: int, draw: float, failure: Failure = PASSING, spent_s: float = 0.0) -> float | None:
        return POLICY.pause(failure, tries=tries, spent_s=spent_s, answered=True, draw=draw)

    assert [pause(n, 1.0) for n in (1, 2, 3, 4)] == [0.1, 0.2, 0.4, 0.8]
    assert (pause(1, 0.0), pause(9, 0.0)) == (0.0, 0.0)
    assert (pause(20, 1.0), pause(100_000, 1.0)) == (10.0, 10.0)
    assert pause(1, 1.0, BUSY) == 0.5
    assert (pause(20, 1.0, spent_s=49.9), pause(20, 1.0, spent_s=50.0)) == (10.0, None)
    assert pause(1, 0.0, Failure(FailureKind.FINAL, "")) is None


def test_an_endpoint_that_never_answered_is_given_up_soon() -> None:
    away = Failure(FailureKind.UNREACHABLE, "refused")
    assert [POLICY.pause(away, tries=n, spent_s=0, answered=False, draw=1.0) for n in (1, 2, 3)] == [0.1, 0.2, None]
    assert POLICY.pause(away, tries=50, spent_s=0, answered=True, draw=1.0) == 10.0


def test_a_storm_of_failures_is_not_amplified() -> None:
    """1,000 requests that all fail at once are not 1,000 requests again at once."""
    budget = RetryBudget()
    waits = [budget.take(0.0) for _ in range(1_000)]
    assert sum(wait == 0 for wait in waits) == 50
    assert [sum(second < wait <= second + 1 for wait in waits) for second in range(190)] == [5] * 190
    for _ in range(10_000):
        budget.succeeded()
    assert sum(budget.take(0.0) == 0 for _ in range(1_000)) == 50
    assert budget.take(1_000.0) == 0


@pytest.mark.parametrize("size", [1, 1_000, 1 << 20, (1 << 20) + 1, 3_000_000])
def test_a_ranged_file_reads_as_any_other(size: int) -> None:
    rng = random.Random(size)
    content = rng.randbytes(size - 4) + b"PAR1" if size > 4 else b"x"
    asked = []

    def fetch(start: int, stop: int) -> bytes:
        assert 0 <= start < stop <= size
        asked.append((start, stop))
        return content[start:stop]

    footers = Footers()
    for _ in range(3):
        with RangedFile(fetch, size, footers=footers, key="k") as ours, io.BytesIO(content) as theirs:
            for _ in range(60):
                match rng.randrange(5):
                    case 0:
                        place = rng.choice([(rng.randrange(size + 10), 0), (-rng.randrange(size), 2), (0, 1)])
                        assert ours.seek(*place) == theirs.seek(*place)
                    case 1:
                        assert ours.readline() == theirs.readline()
                    case 2:
                        mine = bytearray(rng.randrange(300))
                        other = bytearray(len(mine))
                        assert ours.readinto(mine) == theirs.readinto(other)
                        assert mine == other
                    case _:
                        count = rng.choice([0, 1, 100, 70_000, 200_000, size])
                        assert ours.read(count) == theirs.read(count)
                assert ours.tell() == theirs.tell()
            assert ours.read() == theirs.read()
    with pytest.raises(ValueError):
        ours.read(1)
    if size <= 1 << 20:
        assert set(asked) == {(0, size)}
        assert len(asked) <= 3


def test_small_reads_in_order_are_read_ahead_and_large_ones_exactly() -> None:
    size = 20 << 20
    asked: list[int] = []
    file = RangedFile(lambda start, stop: asked.append(stop - start) or bytes(stop - start), size)
    while file.tell() < 16 << 20:
        assert len(file.read(10_000)) == 10_000
    assert len(asked) < 10
    assert max(asked) <= 4 << 20
    asked.clear()
    file.seek(1)
    file.read(5_000_000)
    assert asked == [5_000_000]


def test_windows_hold_what_is_wanted() -> None:
    sizes = (1, 1 << 20, (1 << 20) + 1, 50 << 30)
    for size, count, ahead in itertools.product(sizes, (1, 64 << 10, 1 << 20), (256 << 10, 4 << 20)):
        for position in {0, size // 2, max(0, size - count), size - 1}:
            start, stop = window_of(position, count, size, ahead)
            assert start <= position < min(position + count, size) <= stop <= size
            assert stop - start <= max(count, ahead, 1 << 20)


@pytest.mark.parametrize("count", [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 8 * PART_BYTES + 3, 50 << 30])
def test_parts_are_of_one_size(count: int) -> None:
    step = part_size(count)
    assert step <= 1.5 * PART_BYTES
    if count:
        assert -(-count // step) == max(1, round(count / PART_BYTES))


def test_footers_are_bounded() -> None:
    footers = Footers(capacity=100)
    for n in range(50):
        footers.put(n, bytes(16) + b"PAR1")
    assert [n for n in range(50) if footers.get(n)] == [45, 46, 47, 48, 49]
    footers.put("rows", bytes(20))
    footers.put("long", bytes(30) + b"PAR1")
    assert (footers.get("rows"), footers.get("long")) == (b"", b"")


@pytest.mark.parametrize("seed", range(30))
def test_stems_share_the_entries_out(seed: int) -> None:
    rng = random.Random(seed)
    letters = "ab01" if seed % 2 else "0123456789abcdefghijklmnopqrstuvwxyz"
    count = rng.choice([1, 2, 5, 40, 400])
    common = rng.choice(["", "part-"])
    entries = {
        f"p/{common}{''.join(rng.choices(letters, k=rng.randrange(1, 6)))}{rng.choice(['', '/'])}" for _ in range(count)
    }
    found = stems("p/", sorted(entries))
    for entry in entries:
        assert sum(entry.startswith(stem) for stem in found) == 1
    assert all(len(stem) > len("p/") for stem in found)
    assert len(found) <= max(16, len(letters))


def test_stems_go_as_deep_as_they_can() -> None:
    assert stems("", ["data/"]) == ["data/"]
    assert stems("d/", [f"d/part-{n:02}/" for n in range(13)]) == [f"d/part-{n:02}/" for n in range(13)]
    assert stems("d/", [f"d/part-{n:03}/" for n in range(130)]) == [f"d/part-{n:02}" for n in range(13)]
    assert stems("", []) == []


class Bucket:
    """Answers ListObjectsV2 out of a sorted list, as S3 describes it."""

    def __init__(self, keys: Iterable[str]) -> None:
        self.loop = get_loop()
        self.keys = sorted(keys)
        self.pages = self.now = self.at_once = 0

    async def _call_s3(
        self, method: str, Bucket: str, Prefix: str, Delimiter: str = "", ContinuationToken: str = ""
    ) -> dict[str, Any]:
        self.pages += 1
        self.now += 1
        self.at_once = max(self.at_once, self.now)
        await asyncio.sleep(0.001)
        self.now -= 1
        contents, prefixes = [], []
        place = max(bisect.bisect_left(self.keys, Prefix), bisect.bisect_left(self.keys, ContinuationToken))
        while place < len(self.keys) and self.keys[place].startswith(Prefix):
            key = self.keys[place]
            if len(contents) + len(prefixes) == 1_000:
                return self._page(contents, prefixes, key)
            cut = key.find(Delimiter, len(Prefix)) + 1 if Delimiter else 0
            if cut:
                prefixes.append({"Prefix": key[:cut]})
                place = bisect.bisect_left(self.keys, key[:cut] + "\U0010ffff")
            else:
                contents.append({"Key": key, "Size": 1})
                place += 1
        return self._page(contents, prefixes, None)

    @staticmethod
    def _page(contents: list[Any], prefixes: list[Any], then: str | None) -> dict[str, Any]:
        more = {"NextContinuationToken": then} if then else {}
        return {"Contents": contents, "CommonPrefixes": prefixes, "IsTruncated": then is not None, **more}


@pytest.mark.parametrize(
    ("name", "most_pages", "least_at_once"),
    [
        ("d/{n:06}", 102, 1),  # one level of 100,000: page after page
        ("d/{r:03}/{n:06}", 400, 8),
        ("d/deep/er/{r:03}/{n:06}", 400, 8),
        ("d/{one:02}/{n:06}", 160, 1),  # nearly all in one folder
        ("d/{n:06}/a", 102, 1),
        ("d/{r:x}{n:06}", 102, 1),
    ],
)
def test_a_hundred_thousand_objects_are_listed_once_each(name: str, most_pages: int, least_at_once: int) -> None:
    keys = {name.format(n=n, r=n * 7919 % 200, one=n % 20 if n < 100 else 0) for n in range(100_000)} | {"d/"}
    bucket = Bucket([*keys, "c", "d", "d0", "e/f"])
    found = list_keys(bucket, "b", "d/", lambda item: item["Key"])  # type: ignore[arg-type]
    assert len(found) == len(keys)
    assert set(found) == keys
    assert bucket.pages <= most_pages
    assert bucket.at_once >= least_at_once


def test_the_patience_with_storage_is_a_setting() -> None:
    settings = load_settings({})
    assert (settings.storage_deadline_s, settings.storage_stall_s) == (120.0, 30.0)
    assert load_settings({"ASTRAML_STORAGE_DEADLINE_S": "7.5"}).storage_deadline_s == 7.5
    for wrong in ("soon", "0", "-1", "nan", "inf"):
        with pytest.raises(SpecError, match="ASTRAML_STORAGE_STALL_S"):
            load_settings({"ASTRAML_STORAGE_STALL_S": wrong})
