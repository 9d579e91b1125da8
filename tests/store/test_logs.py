"""Log lines: sent at least once, kept once, and read in pages that lose none."""

from __future__ import annotations

import random
from typing import Any

import pytest

import astraml_ray.store.logs as logs
from astraml_ray.errors import JobNotFoundError, RequestError
from astraml_ray.store.engine import Store
from astraml_ray.store.jobs import get_job
from astraml_ray.store.logs import LogLine, append_lines, read_lines
from tests.store.conftest import NOW
from tests.store.test_engine import together


def line(sequence: int, text: str | None = None, **given: Any) -> dict[str, Any]:
    base = {"attempt": 1, "rank": 0, "level": "INFO", "at": NOW + sequence, "sequence": sequence}
    return {**base, "text": f"line {sequence}" if text is None else text, **given}


def append(store: Store, job_id: str, source: str, lines: list[dict[str, Any]]) -> int:
    with store.write() as conn:
        return append_lines(conn, job_id, source, lines)


def read(store: Store, job_id: str, **options: Any) -> tuple[list[LogLine], int]:
    with store.read() as conn:
        return read_lines(conn, job_id, **{"limit": 1000, **options})


def test_lines_come_back_as_they_were(store: Store, job_id: str) -> None:
    sent = [
        line(1, "é 😀 \0 \ud800 \u2028", rank=None, level="ERROR"),
        line(2, "", attempt=2, rank=3),
        line(3, "x" * 100_000),
    ]
    assert append(store, job_id, "s", sent) == 3
    lines, end = read(store, job_id)
    assert lines == [LogLine(id=number, **given) for number, given in enumerate(sent, 1)]
    assert end == 3
    with store.read() as conn:
        assert get_job(conn, job_id).log_seq == 3


def test_repeats_are_passed_over(store: Store, job_id: str) -> None:
    assert append(store, job_id, "s", [line(1), line(2)]) == 2
    assert append(store, job_id, "s", [line(1), line(2)]) == 2
    assert append(store, job_id, "s", [line(3), line(2), line(3), line(4)]) == 4
    assert append(store, job_id, "s", []) == 4
    assert append(store, job_id, "other", [line(1, "of another source")]) == 5
    assert [one.text for one in read(store, job_id)[0]] == ["line 1", "line 2", "line 3", "line 4", "of another source"]


def test_a_hole_is_marked_where_it_is(store: Store, job_id: str) -> None:
    append(store, job_id, "s", [line(3, rank=2, attempt=4), line(4), line(7, "after")])
    lines, _ = read(store, job_id)
    assert [(one.id, one.sequence, one.text, one.dropped) for one in lines] == [
        (1, 2, "", 2),
        (2, 3, "line 3", 0),
        (3, 4, "line 4", 0),
        (4, 6, "", 2),
        (5, 7, "after", 0),
    ]
    assert (lines[0].rank, lines[0].attempt, lines[0].at) == (2, 4, NOW + 3)
    assert append(store, job_id, "s", [line(6, "too late: it was given up")]) == 5


def test_sources_that_send_again_at_random_are_kept_exactly_once(store: Store, job_id: str) -> None:
    def send(number: int) -> None:
        rng, sent = random.Random(number), 0
        while sent < 60:
            first = max(1, sent - rng.randint(0, 5))
            sent = min(60, max(sent, first + rng.randint(0, 9)))
            append(store, job_id, f"rank-{number}", [line(n, rank=number) for n in range(first, sent + 1)])

    assert together(5, send) == []
    lines, _ = read(store, job_id)
    assert [one.id for one in lines] == list(range(1, 301))
    for number in range(5):
        assert [one.sequence for one in lines if one.rank == number] == list(range(1, 61))
    assert not any(one.dropped for one in lines)


@pytest.mark.parametrize(("chunk", "limit"), [(1, 9), (7, 3), (100, 1), (7, 1000)])
def test_pages_with_any_filter_lose_and_double_nothing(store: Store, job_id: str, chunk: int, limit: int) -> None:
    levels = ["DEBUG", "info", "WARNING", "ERROR", "unheard of"]
    sent = [line(n, rank=[None, 0, 1][n % 3], attempt=1 + n // 20, level=levels[n % 5]) for n in range(1, 41)]
    for first in range(0, 40, chunk):
        append(store, job_id, "s", sent[first : first + chunk])
    everything, _ = read(store, job_id)
    weights = {"DEBUG": 10, "info": 20, "WARNING": 30, "ERROR": 40, "unheard of": 20}
    cases: list[tuple[dict[str, Any], Any]] = [
        ({}, lambda one: True),
        ({"rank": 1}, lambda one: one.rank == 1),
        ({"attempt": 2}, lambda one: one.attempt == 2),
        ({"level": "warning"}, lambda one: weights[one.level] >= 30),
        ({"level": "INFO", "rank": 0}, lambda one: weights[one.level] >= 20 and one.rank == 0),
        ({"attempt": 9}, lambda one: False),
    ]
    for filters, keep in cases:
        wanted = [one for one in everything if keep(one)]
        found: list[LogLine] = []
        after, calls = 0, 0
        while True:
            lines, after = read(store, job_id, after=after, limit=limit, **filters)
            found += lines
            calls += 1
            if after == 40:
                break
            assert calls < 50
        assert found == wanted, filters
        tail, end = read(store, job_id, tail=5, **filters)
        assert (tail, end) == (wanted[-5:], 40)
        assert read(store, job_id, tail=5, after=34, **filters)[0] == [one for one in wanted if one.id > 34][-5:]
        assert read(store, job_id, tail=50, limit=2, **filters)[0] == wanted[-2:]


def test_where_nothing_is_left_the_position_stays(store: Store, job_id: str) -> None:
    assert read(store, job_id) == ([], 0)
    assert read(store, "none") == ([], 0)
    assert read(store, job_id, tail=4) == ([], 0)
    append(store, job_id, "s", [line(1), line(2)])
    assert read(store, job_id, after=2) == ([], 2)
    assert read(store, job_id, after=99) == ([], 99)
    assert read(store, job_id, after=2, tail=5) == ([], 2)
    assert [one.id for one in read(store, job_id, after=1)[0]] == [2]


def test_following_while_it_is_written(store: Store, job_id: str) -> None:
    seen: list[int] = []
    after = 0
    for number in range(1, 40):
        append(store, job_id, f"s{number % 2}", [line(n) for n in range(1, number // 2 + 2)])
        lines, after = read(store, job_id, after=after, limit=2)
        seen += [one.id for one in lines]
    while (page := read(store, job_id, after=after))[0]:
        seen += [one.id for one in page[0]]
        after = page[1]
    with store.read() as conn:
        assert seen == list(range(1, get_job(conn, job_id).log_seq + 1))


def test_a_call_looks_through_a_bounded_number_of_lines(
    store: Store, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MAX_LOOKED", 30)
    for first in range(1, 101, 10):
        append(store, job_id, "s", [line(n, rank=5 if n == 95 else 0) for n in range(first, first + 10)])
    answers, after = [], 0
    for _ in range(4):
        lines, after = read(store, job_id, after=after, rank=5)
        answers.append(([one.id for one in lines], after))
    assert answers == [([], 30), ([], 60), ([], 90), ([95], 100)]


def test_a_gap_passes_the_filter_of_levels(store: Store, job_id: str) -> None:
    append(store, job_id, "s", [line(4, level="DEBUG", rank=1)])
    assert [(one.dropped, one.id) for one in read(store, job_id, level="error")[0]] == [(3, 1)]
    assert read(store, job_id, rank=0)[0] == []


def test_one_row_for_each_call(store: Store, job_id: str) -> None:
    append(store, job_id, "s", [line(n, "the same text over and over") for n in range(1, 1001)])
    with store.read() as conn:
        (row,) = conn.execute(logs.log_chunks.select()).all()
    assert (row.first_id, row.last_id) == (1, 1000)
    assert len(row.lines) < 10_000


def test_what_is_wrong_is_said(store: Store, job_id: str) -> None:
    with pytest.raises(RequestError, match="loud"):
        read(store, job_id, level="loud")
    with pytest.raises(JobNotFoundError):
        append(store, "none", "s", [line(1)])
