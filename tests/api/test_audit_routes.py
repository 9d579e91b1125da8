"""The audit trail over the API: what is in it, who may read it, pages, exports, and what tampering looks like."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import httpx
import pytest

from astraml_ray.store.audit import Actor, append_audit
from tests.api.conftest import Api, serving
from tests.api.test_administration_routes import code_of, join


def write(api: Api, count: int, **given: Any) -> None:
    with api.store.write() as conn:
        for number in range(count):
            terms = {"scope": "p", "target": f"t{number}", "after": {"n": number}, **given}
            append_audit(conn, "policy.changed", actor=Actor("ana"), now=1000.0 + number, **terms)


def test_every_change_is_in_it(api: Api) -> None:
    ana = join(api, "ana", "viewer")
    api.client.put("/v2.1/projects/p/members/ana", json={"role": "editor", "expires_at": "2999-01-31T00:00:00Z"})
    api.client.put("/v2.1/projects/p/quota", json={"gpus_at_once": 4, "jobs_at_once": None, "gpu_hours_per_week": None})
    api.client.delete("/v2.1/projects/p/members/ana")
    api.client.post("/v2.1/projects/p/archive")
    api.client.delete(f"/v2.1/tokens/{ana.id}")
    found = api.client.get("/v2.1/audit?after=0&limit=1000").json()["data"]
    assert [one["seq"] for one in found] == list(range(1, len(found) + 1))
    of_root = [one["action"] for one in found if one["actor"] == "root"]
    assert of_root == [
        "project.created",
        "member.granted",
        "token.created",
        "member.granted",
        "quota.changed",
        "member.revoked",
        "project.archived",
        "token.revoked",
    ]
    changed = next(one for one in found if one["before"] and one["before"]["role"] == "viewer" and one["after"])
    assert (changed["target"], changed["project_id"], changed["after"]["role"]) == ("ana", "p", "editor")
    assert changed["after"]["expires_at"] == "2999-01-31T00:00:00.000Z"
    assert changed["token_id"] == api.client.get("/v2.1/whoami").json()["token_id"]


def test_who_may_read_what(api: Api) -> None:
    boss, editor = join(api, "boss", "project_admin"), join(api, "ed", "editor")
    join(api, "out", "viewer", "other")
    assert {one["project_id"] for one in boss("GET", "/audit?project_id=p&limit=1000").json()["data"]} == {"p"}
    assert code_of(boss("GET", "/audit")) == (403, "permission_denied")
    assert code_of(boss("GET", "/audit?project_id=other")) == (404, "project_not_found")
    assert code_of(boss("GET", "/audit/verify")) == (403, "permission_denied")
    assert code_of(editor("GET", "/audit?project_id=p")) == (403, "permission_denied")
    assert code_of(editor("GET", "/audit?project_id=p&format=jsonl")) == (403, "permission_denied")
    whole = {one["project_id"] for one in api.client.get("/v2.1/audit?limit=1000").json()["data"]}
    assert {None, "p", "other"} <= whole


def turned(api: Api, query: str) -> list[int]:
    """The numbers on all pages."""
    numbers: list[int] = []
    cursor = ""
    while True:
        page = api.client.get(f"/v2.1/audit?{query}{cursor}").json()
        numbers += [one["seq"] for one in page["data"]]
        if page["next_cursor"] is None:
            return numbers
        cursor = f"&cursor={page['next_cursor']}"


def test_pages_and_filters(api: Api) -> None:
    join(api, "boss", "project_admin")
    write(api, 7)
    newest = api.client.get("/v2.1/audit?limit=1").json()["data"][0]["seq"]
    assert turned(api, "limit=3") == list(range(newest, 0, -1))
    assert turned(api, "limit=3&after=0") == list(range(1, newest + 1))
    assert turned(api, f"limit=2&after={newest - 3}") == [newest - 2, newest - 1, newest]
    assert turned(api, "limit=2&actor=ana") == list(range(newest, newest - 7, -1))
    assert turned(api, "action=policy&target=t3") == [newest - 3]
    assert turned(api, "action=polic") == []
    for odd in (
        "limit=0",
        "limit=1001",
        "after=-1",
        "after=x",
        "cursor=!",
        "format=xml",
        f"actor={'x' * 301}",
        "acter=x",
    ):
        assert code_of(api.client.get(f"/v2.1/audit?{odd}")) == (422, "invalid_parameter"), odd
    # What is in the trail is no text to search in.
    assert turned(api, "actor=%00") == turned(api, "actor=%25") == turned(api, f"after={2**63 - 1}") == []


def test_an_export_is_the_same_from_the_oldest_to_the_newest(api: Api) -> None:
    join(api, "boss", "project_admin")
    write(api, 1200, target="t" * 300)
    answer = api.client.get("/v2.1/audit?format=jsonl&project_id=p")
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    pages = api.client.get("/v2.1/audit?project_id=p&after=0&limit=1000").json()["data"]
    assert lines[:1000] == pages
    assert len(lines) == 1202
    assert [one["seq"] for one in lines] == sorted(one["seq"] for one in lines)
    last = lines[600]["seq"]
    rest = api.client.get(f"/v2.1/audit?format=jsonl&project_id=p&after={last}&limit=550").text.splitlines()
    assert [json.loads(line)["seq"] for line in rest] == [one["seq"] for one in lines[601:1151]]
    head = api.client.head("/v2.1/audit?format=jsonl")
    assert (head.status_code, head.content) == (200, b"")


def test_an_export_takes_no_more_memory_than_a_page(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("astraml_ray.api.routes_audit._BATCH", 50)

    def peak() -> int:
        """Of one export over a real server, which is read as it comes."""
        with serving(api.app) as address, httpx.Client(headers=api.auth, timeout=60) as client:
            url = f"{address}/v2.1/audit?format=jsonl"
            client.get(f"{address}/v2.1/whoami")
            tracemalloc.start()
            try:
                with client.stream("GET", url) as answer:
                    assert sum(1 for _ in answer.iter_raw()) > 0
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

    write(api, 60, after={"text": "x" * 20_000})
    small = peak()
    write(api, 600, after={"text": "x" * 20_000})
    assert peak() < 2 * small


def tamper(api: Api, statement: str) -> None:
    """As someone does who has the database's file: the triggers go first."""
    with api.store.write() as conn:
        for trigger in ("audit_no_update", "audit_no_delete"):
            conn.exec_driver_sql(f"DROP TRIGGER {trigger}")
        conn.exec_driver_sql(statement)


@pytest.mark.parametrize(
    ("statement", "first"),
    [("UPDATE audit SET actor = 'nobody' WHERE seq = 4", 4), ("DELETE FROM audit WHERE seq = 4", 5)],
)
def test_tampering_is_found(api: Api, statement: str, first: int) -> None:
    write(api, 10)
    whole = api.client.get("/v2.1/audit/verify").json()
    newest = api.client.get("/v2.1/audit?limit=1").json()["data"][0]
    assert whole == {"whole": True, "first_broken": None, "entries": newest["seq"], "seal": newest["seal"]}
    tamper(api, statement)
    broken = api.client.get("/v2.1/audit/verify").json()
    assert (broken["whole"], broken["first_broken"]) == (False, first)


def test_a_trail_that_was_cut_ends_with_another_seal(api: Api) -> None:
    write(api, 5)
    kept = api.client.get("/v2.1/audit/verify").json()
    tamper(api, f"DELETE FROM audit WHERE seq = {kept['entries']}")
    cut = api.client.get("/v2.1/audit/verify").json()
    assert (cut["whole"], cut["entries"]) == (True, kept["entries"] - 1)
    assert cut["seal"] != kept["seal"]
