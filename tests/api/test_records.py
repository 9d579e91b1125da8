"""Events, log pages and metrics over HTTP."""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import Any

import pytest

from astraml_ray.spec.states import JobStatus
from astraml_ray.store.events import append_event
from astraml_ray.store.logs import append_lines
from astraml_ray.store.metrics import merge_windows
from astraml_ray.store.windows import collect
from tests.api.conftest import Api

START = 1_800_000_000.0


def line(sequence: int, text: str = "x", **given: Any) -> dict[str, Any]:
    return {
        "attempt": 1,
        "rank": 0,
        "level": "INFO",
        "at": START + sequence,
        "text": text,
        "sequence": sequence,
        **given,
    }


def add_lines(api: Api, job_id: str, *lines: dict[str, Any], source: str = "1/0") -> None:
    with api.store.write() as conn:
        append_lines(conn, job_id, source, lines)


def get(api: Api, path: str, **params: Any) -> dict[str, Any]:
    answer = api.client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return dict(json.loads(answer.content, parse_constant=pytest.fail))


def test_events_are_paged_without_gaps(api: Api) -> None:
    job_id = api.new_job()
    with api.store.write() as conn:
        for number in range(8):
            append_event(conn, job_id, "note", now=START, message=str(number), data={"loss": math.nan})
    seen: list[int] = []
    after, more = 0, True
    while more:
        page = get(api, f"/v2.1/jobs/{job_id}/events", after=after, limit=3)
        seen += [event["seq"] for event in page["data"]]
        after, more = page["next_after"], page["has_more"]
    assert seen == list(range(1, 10))
    assert page["data"][-1]["data"] == {"loss": None}
    assert get(api, f"/v2.1/jobs/{job_id}/events", after=2**63 - 1)["data"] == []


def test_log_pages_end_where_the_log_ends(api: Api) -> None:
    job_id = api.new_job()
    add_lines(api, job_id, *(line(n, f"line {n}", rank=n % 2) for n in range(1, 11)))
    add_lines(api, job_id, line(1, "from the runner", rank=None, level="WARNING", attempt=2), source="runner")
    path = f"/v2.1/jobs/{job_id}/logs"
    page = get(api, path, limit=4)
    assert [entry["id"] for entry in page["data"]] == [1, 2, 3, 4]
    assert (page["next_after"], page["has_more"]) == (4, True)
    rest = get(api, path, after=4)
    assert [entry["id"] for entry in rest["data"]] == list(range(5, 12))
    assert (rest["next_after"], rest["has_more"]) == (11, False)
    assert rest["data"][-1] == {
        "id": 11,
        "attempt": 2,
        "rank": None,
        "level": "WARNING",
        "at": "2027-01-15T08:00:01.000Z",
        "sequence": 1,
        "text": "from the runner",
        "dropped": 0,
    }
    assert [entry["id"] for entry in get(api, path, rank=1)["data"]] == [1, 3, 5, 7, 9]
    assert [entry["id"] for entry in get(api, path, level="warning")["data"]] == [11]
    assert [entry["id"] for entry in get(api, path, attempt=2)["data"]] == [11]
    assert [entry["id"] for entry in get(api, path, tail=2, rank=0)["data"]] == [8, 10]
    assert get(api, path, rank=7) == {"data": [], "next_after": 11, "has_more": False}


def test_missing_lines_are_counted(api: Api) -> None:
    job_id = api.new_job()
    add_lines(api, job_id, line(1), line(5))
    data = get(api, f"/v2.1/jobs/{job_id}/logs")["data"]
    assert [(entry["sequence"], entry["dropped"]) for entry in data] == [(1, 0), (4, 3), (5, 0)]


def test_any_text_a_worker_prints_is_answered(api: Api) -> None:
    job_id = api.new_job()
    odd = 'quotes " and \\ and \u2028 and \x00 and \x1b[31m and half \ud800 and 😀'
    add_lines(api, job_id, line(1, odd))
    text = get(api, f"/v2.1/jobs/{job_id}/logs")["data"][0]["text"]
    assert text == odd.replace("\x00", "\ufffd").replace("\ud800", "\ufffd")
    followed = api.client.get(f"/v2.1/jobs/{api_ended(api, job_id)}/logs?follow=true").text
    data = next(part for part in followed.split("\n") if part.startswith("data: "))
    assert json.loads(data[6:])["text"] == text


def api_ended(api: Api, job_id: str) -> str:
    api.move(job_id, JobStatus.CANCELLED)
    return job_id


def add_metrics(api: Api, job_id: str, **points: list[tuple[float, int, float]]) -> None:
    with api.store.write() as conn:
        windows = {name: list(collect(given, 30).values()) for name, given in points.items()}
        merge_windows(conn, job_id, windows)


def test_metrics_state_their_resolution_and_lose_nothing(api: Api) -> None:
    job_id = api.new_job()
    points = [(START + 10 * n, n, float(n)) for n in range(90)]
    points[40] = (*points[40][:2], 1e9)
    points[50] = (*points[50][:2], math.nan)
    points[60] = (*points[60][:2], math.inf)
    add_metrics(api, job_id, loss=points, lr=[(START, 0, 0.5)])
    path = f"/v2.1/jobs/{job_id}/metrics"
    for asked, stated, windows in (("auto", "30s", 30), ("30s", "30s", 30), ("5m", "5m", 3), ("1h", "1h", 1)):
        answer = get(api, path, resolution=asked, name="loss")
        (series,) = answer["series"]
        assert (answer["job_id"], answer["resolution"], series["resolution"]) == (job_id, stated, stated)
        assert (series["points"], len(series["windows"])) == (90, windows)
        assert max(window["max"] for window in series["windows"]) == 1e9
        assert sum(window["nan_count"] for window in series["windows"]) == 1
        assert sum(window["inf_count"] for window in series["windows"]) == 1
    first = get(api, path)["series"][0]["windows"][0]
    assert first["start"] == "2027-01-15T08:00:00.000Z"
    assert (first["count"], first["mean"], first["first"], first["last"]) == (3, 1.0, 0.0, 2.0)
    assert (first["step_first"], first["step_last"], first["revision"]) == (0, 2, 0)
    assert [series["name"] for series in get(api, path)["series"]] == ["loss", "lr"]
    assert get(api, path, name=["lr", "none"])["series"][1]["points"] == 0


def test_a_window_of_nothing_but_nan_is_json(api: Api) -> None:
    job_id = api.new_job()
    add_metrics(api, job_id, loss=[(START, 0, math.nan)])
    (window,) = get(api, f"/v2.1/jobs/{job_id}/metrics")["series"][0]["windows"]
    assert (window["count"], window["mean"], window["min"], window["nan_count"]) == (0, None, None, 1)


def test_metrics_by_time_and_by_step(api: Api) -> None:
    job_id = api.new_job()
    add_metrics(api, job_id, loss=[(START + 30 * n, n, float(n)) for n in range(10)])
    path = f"/v2.1/jobs/{job_id}/metrics"

    def firsts(**params: Any) -> list[float]:
        return [window["first"] for window in get(api, path, **params)["series"][0]["windows"]]

    assert firsts(from_step=3, to_step=5) == [3, 4, 5]
    assert firsts(**{"from": "2027-01-15T08:01:00Z", "to": "2027-01-15T08:02:00Z"}) == [2, 3]
    assert firsts(**{"from": "2027-01-15T09:01:00+01:00"}) == [2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("resolution=10s", "resolution"),
        ("from=2027-01-02T00:00:00Z&to=2027-01-01T00:00:00Z", "from"),
        ("from_step=5&to_step=4", "from_step"),
        ("from_step=-1", "from_step"),
        ("name=", "name"),
        ("name=a%00", "name"),
        ("nme=loss", "nme"),
    ],
)
def test_invalid_metric_queries(api: Api, query: str, param: str) -> None:
    answer = api.client.get(f"/v2.1/jobs/{api.new_job()}/metrics?{query}")
    assert (answer.status_code, answer.json()["param"]) == (422, param)


def test_too_many_windows_are_a_question_of_the_resolution(api: Api) -> None:
    job_id = api.new_job()
    add_metrics(api, job_id, loss=[(START + 30 * n, n, 1.0) for n in range(1001)])
    answer = api.client.get(f"/v2.1/jobs/{job_id}/metrics?resolution=30s")
    assert (answer.status_code, answer.json()["param"]) == (422, "resolution")
    assert get(api, f"/v2.1/jobs/{job_id}/metrics")["resolution"] == "5m"


def test_times_are_iso_8601_in_utc(api: Api) -> None:
    job_id = api.new_job()
    event = get(api, f"/v2.1/jobs/{job_id}/events")["data"][0]
    assert datetime.fromisoformat(event["at"].replace("Z", "+00:00")).utcoffset() is not None
