"""Log lines: their levels, how a chunk of them is stored, and which are new of what a source sends. Pure."""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from astraml_ray.errors import RequestError

__all__ = ["LogLine", "level_number", "matches", "new_lines", "pack_lines", "unpack_lines"]

_LEVELS = {
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARNING": logging.WARNING,
    "WARN": logging.WARNING,
    "ERROR": logging.ERROR,
    "CRITICAL": logging.CRITICAL,
    "FATAL": logging.CRITICAL,
}


@dataclass(frozen=True)
class LogLine:
    """One line of a job's log.

    Attributes:
        id: 1, 2, 3 ... per job, in the order in which they arrived.
        attempt: The attempt it is of.
        rank: The worker it is of; None is the runner.
        level: "DEBUG", "INFO", "WARNING", "ERROR" or "CRITICAL".
        at: Seconds since the epoch.
        text: The line, without its end.
        sequence: 1, 2, 3 ... per source.
        dropped: How many lines are missing here; 0 for a real line.
    """

    id: int
    attempt: int
    rank: int | None
    level: str
    at: float
    text: str
    sequence: int
    dropped: int = 0


def level_number(level: str) -> int:
    """The weight of a level.

    Raises:
        RequestError: There is no such level.
    """
    try:
        return _LEVELS[level.upper()]
    except KeyError:
        raise RequestError(
            f"there is no level {level!r}", param="level", hint="debug, info, warning, error or critical"
        ) from None


def new_lines(lines: Iterable[Mapping[str, Any]], cursor: int, newest_id: int) -> list[LogLine]:
    """The lines after the cursor, with ids after the newest one, and a line that counts for each hole."""
    made: list[LogLine] = []
    for line in sorted(lines, key=lambda line: int(line["sequence"])):
        sequence = int(line["sequence"])
        if sequence <= cursor:
            continue
        missing = sequence - cursor - 1
        if missing:
            made.append(_line(newest_id + len(made) + 1, {**line, "text": "", "sequence": sequence - 1}, missing))
        made.append(_line(newest_id + len(made) + 1, line, int(line.get("dropped", 0))))
        cursor = sequence
    return made


def pack_lines(lines: Sequence[LogLine]) -> bytes:
    """A chunk: the ids follow from the first one."""
    rows = [[line.attempt, line.rank, line.level, line.at, line.text, line.sequence, line.dropped] for line in lines]
    # ASCII, so that lone surrogates survive.
    return zlib.compress(json.dumps(rows, separators=(",", ":")).encode("ascii"), 6)


def unpack_lines(chunk: bytes, first_id: int) -> list[LogLine]:
    """The lines of a chunk."""
    return [LogLine(first_id + offset, *row) for offset, row in enumerate(json.loads(zlib.decompress(chunk)))]


def matches(line: LogLine, *, rank: int | None, attempt: int | None, least: int) -> bool:
    """Whether a line passes the filters. What is missing may have been of any level."""
    if rank is not None and line.rank != rank:
        return False
    if attempt is not None and line.attempt != attempt:
        return False
    return bool(line.dropped) or _LEVELS.get(line.level.upper(), logging.INFO) >= least


def _line(number: int, line: Mapping[str, Any], dropped: int) -> LogLine:
    return LogLine(
        id=number,
        attempt=int(line["attempt"]),
        rank=None if line["rank"] is None else int(line["rank"]),
        level=str(line["level"]),
        at=float(line["at"]),
        text=str(line["text"]),
        sequence=int(line["sequence"]),
        dropped=dropped,
    )
