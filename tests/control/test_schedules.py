"""Which instants are due, in which zone and after which absence; and what overlaps. Nothing here has a clock."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from astraml_ray.control.schedules import (
    delay_of,
    due_instants,
    next_due,
    overlapping,
    passed_instants,
    upcoming,
)
from astraml_ray.errors import SpecError
from astraml_ray.spec.loading import parse_spec
from astraml_ray.spec.schedule import Schedule
from astraml_ray.spec.templates import fill_templates

BASE: dict[str, Any] = {"dataset": "s3://b/d", "model": "tiny-bert"}
DAY = 86400.0


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


def local(schedule: Schedule, instants: Iterable[int]) -> list[str]:
    zone = ZoneInfo(schedule.timezone)
    return [datetime.fromtimestamp(one, zone).strftime("%m-%d %H:%M%z") for one in instants]


def after(cron: str, zone: str, start: str, count: int) -> list[str]:
    schedule = Schedule(cron=cron, timezone=zone)
    return local(schedule, islice(schedule.instants(at(start)), count))


@pytest.mark.parametrize(
    ("cron", "zone", "start", "found"),
    [
        ("30 2 * * *", "Europe/Berlin", "2026-03-28 12:00", ["03-29 03:00+0200", "03-30 02:30+0200"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24 12:00", ["10-25 02:30+0200", "10-26 02:30+0100"]),
        ("30 2 * * *", "America/New_York", "2026-03-07 12:00", ["03-08 03:00-0400", "03-09 02:30-0400"]),
        ("30 1 * * *", "America/New_York", "2026-10-31 12:00", ["11-01 01:30-0400", "11-02 01:30-0500"]),
        ("15,45 2 * * *", "Europe/Berlin", "2026-03-28 12:00", ["03-29 03:00+0200", "03-30 02:15+0200"]),
        ("0 * * * *", "Europe/Berlin", "2026-03-29 00:30", ["03-29 03:00+0200", "03-29 04:00+0200"]),
        ("0 0 29 2 *", "UTC", "2026-01-01 00:00", ["02-29 00:00+0000", "02-29 00:00+0000"]),
        ("0 0 * * 0", "UTC", "2026-03-28 12:00", ["03-29 00:00+0000", "04-05 00:00+0000"]),
        ("0 0 * * 7", "UTC", "2026-03-28 12:00", ["03-29 00:00+0000", "04-05 00:00+0000"]),
    ],
)
def test_instants_in_local_time(cron: str, zone: str, start: str, found: list[str]) -> None:
    assert after(cron, zone, start, 2) == found


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
@pytest.mark.parametrize("cron", ["30 2 * * *", "*/20 * * * *", "30 1-3 * * *", "15,45 */2 * * *"])
def test_the_instants_are_the_same_from_wherever_one_begins(cron: str, zone: str) -> None:
    schedule = Schedule(cron=cron, timezone=zone)
    for day in ("2026-03-08", "2026-03-29", "2026-04-05", "2026-10-04", "2026-10-25", "2026-11-01"):
        first = at(f"{day} 00:00") - DAY
        known = list(islice(schedule.instants(first), 300))
        assert known == sorted(set(known))
        for minute in range(0, 2 * 1440, 10):
            begin = first + 60.0 * minute
            following = next(one for one in known if one > begin)
            assert next(schedule.instants(begin)) == following


def test_29_february_comes_after_eight_years_at_most() -> None:
    found = [
        datetime.fromtimestamp(one, timezone.utc).year
        for one in islice(Schedule(cron="0 0 29 2 *").instants(at("2095-01-01 00:00")), 2)
    ]
    assert found == [2096, 2104]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"cron": "0 0 30 2 *"}, "/schedule/cron"),
        ({"cron": "0 0 31 4,6,9,11 *"}, "/schedule/cron"),
        ({"cron": "* * * * * *"}, "/schedule/cron"),
        ({"cron": "@daily"}, "/schedule/cron"),
        ({"cron": "0 0 * * 8"}, "/schedule/cron"),
        ({"cron": f"{'1,' * 200}2 * * * *"}, "/schedule/cron"),
        ({"cron": "0 2 * * *", "timezone": "Europe/Atlantis"}, "/schedule/timezone"),
        ({"cron": "0 2 * * *", "jitter": "2h"}, "/schedule/jitter"),
        ({"cron": "*/10 * * * *", "jitter": "10m"}, "/schedule"),
        ({"cron": "0 2 * * *", "catchup_window": "32d"}, "/schedule/catchup_window"),
        ({"cron": "0 2 * * *", "catchup_window": "0s"}, "/schedule/catchup_window"),
        ({"cron": "0 2 * * *", "start": "2026-01-01T00:00:00"}, "/schedule/start"),
        ({"cron": "0 2 * * *", "start": "0001-01-01T00:00:00+14:00"}, "/schedule/start"),
        ({"cron": "0 2 * * *", "end": "2026-02-30T00:00:00Z"}, "/schedule/end"),
        ({"cron": "0 2 * * *", "start": "2027-01-01T00:00:00Z", "end": "2026-01-01T00:00:00Z"}, "/schedule"),
        ({"cron": "0 2 * * *", "pause_after_failures": 0}, "/schedule/pause_after_failures"),
        ({"cron": "0 2 * * *", "overlap": "maybe"}, "/schedule/overlap"),
    ],
)
def test_what_is_no_schedule_is_told_by_its_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec({**BASE, "schedule": fields})
    assert [problem.param for problem in caught.value.problems] == [param]


def test_start_and_end_are_both_in_it() -> None:
    schedule = Schedule(cron="0 * * * *", start="2026-05-01T10:00:00Z", end="2026-05-01T14:00:00+02:00")
    assert local(schedule, schedule.instants(0.0)) == [f"05-01 {hour}:00+0000" for hour in (10, 11, 12)]
    assert next_due("s", schedule, at("2026-05-01 12:00")) is None


def hourly(**fields: Any) -> Schedule:
    return Schedule(cron="0 * * * *", **fields)


NOON = at("2026-05-01 12:00")


@pytest.mark.parametrize(
    ("catchup", "away_h", "fire", "missed"),
    [
        ("latest", 1, 1, 0),
        ("latest", 10, 1, 9),
        ("latest", 24 * 365, 1, 23),  # those of the window
        ("none", 1, 1, 0),
        ("none", 10, 1, 9),
        ("all", 10, 10, 0),
        ("all", 24 * 365, 20, 0),
    ],
)
def test_what_is_made_up_for(catchup: Any, away_h: int, fire: int, missed: int) -> None:
    due = due_instants("s", hourly(catchup=catchup), handled=NOON - 3600 * away_h, now=NOON + 1)
    assert (len(due.fire), len(due.missed)) == (fire, missed)
    expected = NOON - 3600 * 23 if catchup == "all" and away_h > 24 else due.fire[0]
    assert due.fire[0] == expected
    if catchup != "all":
        assert due.fire[-1] == due.handled == NOON


def test_none_makes_up_for_nothing_that_is_late() -> None:
    due = due_instants("s", hourly(catchup="none"), handled=NOON - 7200, now=NOON + 600)
    assert (due.fire, due.missed) == ((), (NOON - 3600, NOON))


def test_all_goes_on_where_the_batch_before_ended() -> None:
    schedule = Schedule(cron="*/5 * * * *", catchup="all", catchup_window="31d")
    handled, fired = NOON - 5 * 60 * 130, []
    while (due := due_instants("s", schedule, handled=handled, now=NOON)).fire:
        fired += due.fire
        handled = due.handled
    assert fired == [NOON - 300 * n for n in range(129, -1, -1)]


def test_a_year_of_minutes_is_no_work() -> None:
    """The latest are found from the end, however long the service was away."""
    schedule = Schedule(cron="* * * * *", catchup_window="31d")
    due = due_instants("s", schedule, handled=NOON - 365 * DAY, now=NOON)
    assert (due.fire, len(due.missed), due.handled) == ((NOON,), 100, NOON)


def test_jitter_is_each_instant_s_own_and_always_the_same() -> None:
    delays = [delay_of("sch-a", int(NOON) + 3600 * n, 600.0) for n in range(200)]
    assert delays == [delay_of("sch-a", int(NOON) + 3600 * n, 600.0) for n in range(200)]
    assert all(0 <= delay < 600 for delay in delays)
    assert max(delays) - min(delays) > 500
    assert delay_of("sch-b", int(NOON), 600.0) != delays[0]
    schedule = hourly(jitter="10m")
    begin = next_due("sch-a", schedule, NOON - 1)
    assert begin == NOON + delays[0]
    assert due_instants("sch-a", schedule, handled=NOON - 1, now=begin - 0.01).fire == ()
    for catchup in ("latest", "all", "none"):
        again = hourly(jitter="10m", catchup=catchup)
        assert due_instants("sch-a", again, handled=NOON - 1, now=begin).fire == (NOON,)


@pytest.mark.parametrize(
    ("overlap", "live", "waiting", "decision"),
    [
        ("skip", 0, 0, "start"),
        ("skip", 1, 0, "skip"),
        ("queue_one", 0, 0, "start"),
        ("queue_one", 1, 0, "wait"),
        ("queue_one", 1, 1, "skip"),
        ("queue_one", 0, 1, "skip"),
        ("cancel_running", 1, 0, "cancel"),
        ("allow", 3, 0, "start"),
    ],
)
def test_overlap(overlap: Any, live: int, waiting: int, decision: str) -> None:
    assert overlapping(hourly(overlap=overlap), live=[None] * live, waiting=waiting) == decision


def test_a_stretch_of_time_and_its_bound() -> None:
    found = passed_instants(hourly(), first=NOON - 7200, last=NOON, limit=10)
    assert found == [NOON - 7200, NOON - 3600, NOON]
    assert len(passed_instants(hourly(), first=0.0, last=NOON, limit=10)) == 11


def test_marks_where_the_clocks_are_changed() -> None:
    nightly = Schedule(cron="30 2 * * *", timezone="Europe/Berlin")
    spring = upcoming(nightly, after=at("2026-03-27 12:00"), count=3)
    assert [one.local.isoformat() for one in spring] == [
        "2026-03-28T02:30:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]
    assert [one.mark and "forward" in one.mark for one in spring] == [None, True, None]
    autumn = upcoming(nightly, after=at("2026-10-24 12:00"), count=2)
    assert [one.mark and "comes twice" in one.mark for one in autumn] == [True, None]


def test_the_time_is_filled_in_where_it_may_be() -> None:
    document = {
        "name": "nightly-{{ scheduled_time:%Y-%m-%d }}",
        "dataset": {"train": "s3://b/{{scheduled_time}}/x", "validation": "s3://b/v"},
        "model": "{{ scheduled_time }}",
        "labels": {"a": "{{ scheduled_time }}"},
        "schedule": {"cron": "0 2 * * *", "timezone": "America/New_York"},
    }
    filled = fill_templates(document, at("2026-05-02 02:00"))
    assert filled["name"] == "nightly-2026-05-01"
    assert filled["dataset"] == {"train": "s3://b/20260502T020000Z/x", "validation": "s3://b/v"}
    assert (filled["model"], filled["labels"]) == (document["model"], document["labels"])
    assert fill_templates({"dataset": "s3://{{ scheduled_time:%H }}"}, 0.0) == {"dataset": "s3://00"}


@pytest.mark.parametrize(
    "text", ["{{ x }}", "{{ scheduled_time:%c }}", "{{ scheduled_time:%9999Y }}", "{{}}", "{{ scheduled_time:% }}"]
)
def test_what_cannot_be_filled_in_is_told_by_its_field(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        fill_templates({"name": text, "dataset": {"path": text}}, 0.0)
    assert [problem.param for problem in caught.value.problems] == ["/name", "/dataset/path"]
