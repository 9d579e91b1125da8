"""S3 as s3fs has it, with every request tried again by one policy, and reads that are pinned to an ETag."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import s3fs
from botocore.exceptions import ClientError
from fsspec.asyn import sync, sync_wrapper
from s3fs.errors import translate_boto_error

from astraml_ray.data.storage.failures import OtherVersionError, WrongLengthError, failure_of, given_up
from astraml_ray.data.storage.ranged import RangedFile
from astraml_ray.data.storage.retries import Failure, FailureKind, RetryBudget, RetryPolicy

__all__ = ["PART_BYTES", "RetryingS3", "part_size", "together"]

PART_BYTES = 8 << 20
"""A longer range is read in parts of about this size at once."""

_CONNECTIONS = 16
_CONNECT_S = 5.0
_WINDOW_BYTES = 256 << 10
_PIECE_BYTES = 32 << 20
# Their bodies go out, however long that takes; the stall that counts begins when the answer is waited for.
_WRITES = ("put_", "upload_", "complete_", "copy_", "delete_")

T = TypeVar("T")


@dataclass
class _Part:
    """A range that is being read: `into` holds its first `filled` bytes."""

    start: int
    into: memoryview
    filled: int = 0


class RetryingS3(s3fs.S3FileSystem):  # type: ignore[misc]
    """An S3 filesystem whose requests are all made and tried again here: neither botocore nor s3fs does as well.

    A long range is read in parts at once. A part that breaks off goes on behind its last byte; one that brings fewer
    than 256 KiB in `stall_s` seconds is asked for again on another connection.
    """

    retries = 1

    def __init__(self, *, deadline_s: float = 120.0, stall_s: float = 30.0, **options: Any) -> None:
        """
        Args:
            deadline_s: How long a request is tried again without a good piece of what it asked for.
            stall_s: How long a connection may bring nothing, or next to nothing.
            options: Of s3fs.
        """
        config = {
            "connect_timeout": _CONNECT_S,
            "read_timeout": stall_s,
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            # So many that no request waits for one, which would count as a stall.
            "max_pool_connections": 2 * _CONNECTIONS,
        }
        super().__init__(**{**options, "config_kwargs": {**config, **options.get("config_kwargs", {})}})
        self.tried_again = 0
        """Retries so far."""
        self._policy = RetryPolicy(deadline_s)
        self._budget = RetryBudget()
        self._stall_s = stall_s
        self._slots = asyncio.Semaphore(_CONNECTIONS)
        self._answered = False
        self._random = random.Random()

    async def _call_s3(self, method: str, *argument_lists: Any, **arguments: Any) -> Any:
        """One request of s3fs's, tried again."""
        limit = None if method.startswith(_WRITES) else self._stall_s + _CONNECT_S
        uri = "/".join(["s3:/", *(str(arguments[name]) for name in ("Bucket", "Key") if arguments.get(name))])

        async def attempt() -> Any:
            await self.set_session()
            call = getattr(await self.get_s3(arguments.get("Bucket")), method)
            return await asyncio.wait_for(
                call(**self._get_s3_method_kwargs(call, *argument_lists, **arguments)), timeout=limit
            )

        try:
            return await self._persist(uri, attempt)
        except ClientError as error:
            refusal = error
        raise translate_boto_error(refusal)

    call_s3 = sync_wrapper(_call_s3)

    async def _persist(
        self, uri: str, attempt: Callable[[], Awaitable[T]], *, part: _Part | None = None, known: bool = False
    ) -> T:
        """Makes a request until it succeeds or the policy gives up.

        Args:
            uri: Of the object, for the error.
            attempt: Makes the request once.
            part: What it fills; each good piece of it begins the deadline anew.
            known: The endpoint has answered, if not this process.

        Raises:
            StorageOutageError: The deadline has passed.
            Exception: Of the last try, where another is of no use.
        """
        tries, mark, began = 0, 0, 0.0
        while True:
            tries += 1
            try:
                async with self._slots:
                    began = began or time.monotonic()  # not while it waits for its turn
                    found = await attempt()
            except Exception as error:
                failure = failure_of(error)
                now = time.monotonic()
                if part is not None and part.filled - mark >= _WINDOW_BYTES:
                    mark, began = part.filled, now
                pause = self._pause(failure, tries, now - began, known)
                if pause is None:
                    fresh = failure.kind is FailureKind.UNREACHABLE and not (known or self._answered)
                    if failure.kind is FailureKind.FINAL or fresh:
                        raise
                    raise given_up(uri, failure, tries=tries, spent_s=now - began) from error
            else:
                self._answered = True
                self._budget.succeeded()
                return found
            self.tried_again += 1
            await asyncio.sleep(pause)

    def _pause(self, failure: Failure, tries: int, spent_s: float, known: bool) -> float | None:
        self._answered |= failure.kind is not FailureKind.UNREACHABLE
        final = failure.kind is FailureKind.FINAL
        return self._policy.pause(
            failure,
            tries=tries,
            spent_s=spent_s,
            answered=known or self._answered,
            draw=self._random.random(),
            budget_s=0.0 if final else self._budget.take(time.monotonic()),
        )

    # -- reading

    async def _fetch(self, path: str, start: int, stop: int, etag: str, size: int) -> bytes:
        """The bytes of a range of the object that has this ETag and size, however often that takes.

        Raises:
            OtherVersionError: It is another object now.
        """
        buffer = bytearray(stop - start)
        view = memoryview(buffer)
        step = part_size(len(buffer))
        parts = [_Part(start + at, view[at : at + step]) for at in range(0, len(buffer), step)]
        await together(self._fill(path, part, etag, size) for part in parts)
        return bytes(buffer)

    fetch = sync_wrapper(_fetch)

    async def _fill(self, path: str, part: _Part, etag: str, size: int) -> None:
        async def attempt() -> None:
            begin, end = part.start + part.filled, part.start + len(part.into)
            answer = await self._get(path, begin, end, IfMatch=f'"{etag}"')
            try:
                _check(answer, begin, end, size, etag)
                await self._take(answer["Body"], part)
            finally:
                answer["Body"].close()

        try:
            return await self._persist(f"s3://{self._strip_protocol(path)}", attempt, part=part, known=True)
        except ClientError as error:
            refusal = error
        if _code(refusal) in ("PreconditionFailed", "412", "InvalidRange"):
            raise OtherVersionError(str(refusal)) from refusal
        raise translate_boto_error(refusal)

    async def _get(self, path: str, begin: int, end: int, **arguments: Any) -> Any:
        bucket, key, _ = self.split_path(path)
        await self.set_session()
        call = (await self.get_s3(bucket)).get_object
        wanted = {"Bucket": bucket, "Key": key, "Range": f"bytes={begin}-{end - 1}", **arguments}
        return await asyncio.wait_for(
            call(**self._get_s3_method_kwargs(call, **wanted)), timeout=self._stall_s + _CONNECT_S
        )

    async def _take(self, body: Any, part: _Part) -> None:
        """Fills a part from a body, in windows that each must come in time."""

        async def window(goal: int) -> None:
            while part.filled < goal:
                chunk = await body.read(goal - part.filled)
                if not chunk:
                    raise WrongLengthError(f"the answer ended after {part.filled} of {len(part.into)} bytes")
                part.into[part.filled : part.filled + len(chunk)] = chunk
                part.filled += len(chunk)

        while part.filled < len(part.into):
            await asyncio.wait_for(window(min(part.filled + _WINDOW_BYTES, len(part.into))), timeout=self._stall_s)

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        """A whole object, or a range of it; in one request if it is no longer than a part."""
        if start is None and end is None:
            head, etag, size = await self._head(path)
            return head if len(head) == size else head + await self._fetch(path, len(head), size, etag, size)
        etag, size = await self._pin(path)
        begin, stop, _ = slice(start, end).indices(size)
        return await self._fetch(path, begin, max(begin, stop), etag, size)

    async def _head(self, path: str) -> tuple[bytes, str, int]:
        """The first part of an object, its ETag and its size, of one version."""

        async def attempt() -> tuple[bytes, str, int]:
            answer = await self._get(path, 0, PART_BYTES)
            try:
                size = _total(answer)
                etag = answer["ETag"].strip('"')
                part = _Part(0, memoryview(bytearray(min(size, PART_BYTES))))
                _check(answer, 0, len(part.into), size, etag)
                await self._take(answer["Body"], part)
                return bytes(part.into), etag, size
            finally:
                answer["Body"].close()

        try:
            return await self._persist(f"s3://{self._strip_protocol(path)}", attempt)
        except ClientError as error:
            refusal = error
        if _code(refusal) == "InvalidRange":
            return b"", "", 0  # no range of an empty object can be satisfied
        raise translate_boto_error(refusal)

    async def _get_file(self, rpath: str, lpath: str, **options: Any) -> None:
        etag, size = await self._pin(rpath)
        with open(lpath, "wb") as file:
            for start in range(0, size, _PIECE_BYTES):
                file.write(await self._fetch(rpath, start, min(start + _PIECE_BYTES, size), etag, size))

    async def _pin(self, path: str) -> tuple[str, int]:
        """The ETag and the size of an object as it is now."""
        info = await self._info(path, refresh=True)
        if info["type"] != "file":
            raise FileNotFoundError(path)
        return info["ETag"].strip('"'), info["size"]

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode != "rb":
            return super()._open(path, mode, **options)
        etag, size = sync(self.loop, self._pin, path)
        return RangedFile(lambda start, stop: self.fetch(path, start, stop, etag, size), size)


def part_size(count: int) -> int:
    """Bytes of each part of a range of `count` bytes: about PART_BYTES, and no small one at the end."""
    return max(1, -(-count // max(1, round(count / PART_BYTES))))


def _check(answer: Any, begin: int, end: int, size: int, etag: str) -> None:
    """That an answer is the range of the object that was asked for. Not every server knows If-Match.

    Raises:
        OtherVersionError: It is of another object.
        WrongLengthError: It is another range.
    """
    there = (answer.get("ETag") or "").strip('"')
    if there and there != etag:
        raise OtherVersionError(f"its ETag is {there}")
    if _total(answer) != size:
        raise OtherVersionError(f"it has {_total(answer)} bytes")
    place = answer.get("ContentRange") or f"bytes 0-{answer['ContentLength'] - 1}/{size}"
    if place != f"bytes {begin}-{end - 1}/{size}" or answer["ContentLength"] != end - begin:
        raise WrongLengthError(
            f"the answer is {place!r} of {answer['ContentLength']} bytes, not bytes {begin} to {end - 1}"
        )


def _total(answer: Any) -> int:
    """The size of the object that an answer is a range of."""
    place = answer.get("ContentRange")
    if not place:
        return int(answer["ContentLength"])
    total = place.rpartition("/")[2]
    if not total.isdigit():
        raise WrongLengthError(f"the answer is {place!r}")
    return int(total)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


async def together(work: Iterator[Coroutine[Any, Any, T]]) -> list[T]:
    """Runs coroutines at once; when one fails, the others are ended before its error is raised."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
