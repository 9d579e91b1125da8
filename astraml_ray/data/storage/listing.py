"""The objects under a prefix of a bucket, page by page, and where there are many, several stretches of them at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from fsspec.asyn import sync

from astraml_ray.data.storage.s3 import RetryingS3, together

__all__ = ["list_keys", "stems"]

_AT_ONCE = 16
_DEEPEST = 16

T = TypeVar("T")
Take = Callable[[dict[str, Any]], "T | None"]


def stems(prefix: str, entries: Sequence[str], most: int = _AT_ONCE) -> list[str]:
    """Prefixes that share the entries out: each entry begins with exactly one of them.

    Args:
        prefix: What every entry begins with, and is longer than.
        entries: Names and sub-prefixes directly below it.
        most: Stems at most, if more than one letter tells the entries apart.
    """
    best: list[str] = []
    for length in range(len(prefix) + 1, max(map(len, entries), default=0) + 1):
        found = sorted({entry[:length] for entry in entries})
        if len(found) > most and len(best) > 1:
            break
        best = found
        if len(found) >= min(most, len(entries)):
            break
    # An entry that is short may be the beginning of others: its stem finds them too.
    apart = [stem for stem in best if not any(stem.startswith(other) for other in best if other != stem)]
    groups = [[entry for entry in entries if entry.startswith(stem)] for stem in apart]
    return [os.path.commonprefix(group) for group in groups]  # noqa: RUF071 - letter by letter is what is wanted


def list_keys(filesystem: RetryingS3, bucket: str, prefix: str, take: Take[T]) -> list[T]:
    """What `take` makes of every object under a prefix; without those of which it makes None. In no order.

    A page holds 1,000 objects. Where there are more, the names directly below the prefix tell where to cut, and the
    stretches are listed at once, each of them likewise. A level of more than 1,000 names is listed page after page.
    """
    listing = _Listing(filesystem, bucket, take)
    sync(filesystem.loop, listing.walk, prefix)
    return listing.found


class _Listing:
    def __init__(self, filesystem: RetryingS3, bucket: str, take: Take[Any]) -> None:
        self.found: list[Any] = []
        self._filesystem = filesystem
        self._bucket = bucket
        self._take = take

    async def walk(self, prefix: str, depth: int = 0) -> None:
        first = await self._page(prefix)
        if not first.get("IsTruncated"):
            return self._keep(first)
        if depth == _DEEPEST:
            return await self._rest(prefix, first)
        level = await self._page(prefix, Delimiter="/")
        if level.get("IsTruncated"):
            return await self._rest(prefix, first)
        itself = [item for item in level.get("Contents", []) if item["Key"] == prefix]
        entries = [item["Key"] for item in level.get("Contents", []) if item["Key"] != prefix]
        entries += [item["Prefix"] for item in level.get("CommonPrefixes", [])]
        self._keep({"Contents": itself})
        del first, level
        await together(self.walk(stem, depth + 1) for stem in stems(prefix, entries))
        return None

    async def _rest(self, prefix: str, page: dict[str, Any]) -> None:
        self._keep(page)
        while page.get("IsTruncated"):
            page = await self._page(prefix, ContinuationToken=page["NextContinuationToken"])
            self._keep(page)

    async def _page(self, prefix: str, **more: Any) -> dict[str, Any]:
        page: dict[str, Any] = await self._filesystem._call_s3(
            "list_objects_v2", Bucket=self._bucket, Prefix=prefix, **more
        )
        return page

    def _keep(self, page: dict[str, Any]) -> None:
        self.found += [taken for item in page.get("Contents", []) if (taken := self._take(item)) is not None]
