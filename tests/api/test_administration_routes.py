"""Projects, members and quotas over the API: who may do what, and what every odd request comes to."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

import astraml_ray
from astraml_ray.access.permissions import PROJECT_ROLES, Permission, Role, permissions_of, render_table
from astraml_ray.api.schemas_access import RoleName
from astraml_ray.store.access import GpuTime, begin_gpu_time
from astraml_ray.store.audit import list_audit
from tests.api.conftest import Api

ODD = ["nobody", "%2e%2e", "a%2Fb", "%00", "%C3%BC", "x" * 10_000, "*", "%20", "-", "a%0Ab", "%ED%A0%80"]


class Member:
    """Someone with a token of their own."""

    def __init__(self, api: Api, subject: str) -> None:
        made = api.client.post("/v2.1/tokens", json={"subject": subject})
        assert made.status_code == 201, made.text
        self._api = api
        self.subject = subject
        self.id = made.json()["id"]
        self.headers = {"Authorization": f"Bearer {made.json()['token']}"}

    def __call__(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return self._api.client.request(method, f"/v2.1{path}", json=body, headers=self.headers)


def join(api: Api, subject: str, role: str | None = None, project: str = "p") -> Member:
    """Someone with a role in a project, which is made if need be."""
    api.client.post("/v2.1/projects", json={"id": project})
    if role is not None:
        put = api.client.put(f"/v2.1/projects/{project}/members/{subject}", json={"role": role})
        assert put.status_code == 200, put.text
    return Member(api, subject)


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def actions(api: Api) -> list[str]:
    with api.store.read() as conn:
        return [change.action for change in list_audit(conn, after=0, limit=1000)]


class TestProjects:
    def test_made_once_and_seen_by_members_only(self, api: Api) -> None:
        made = api.client.post("/v2.1/projects", json={"id": "p", "title": "Demo"})
        assert (made.status_code, made.headers["location"]) == (201, "/v2.1/projects/p")
        assert (made.json()["title"], made.json()["role"], made.json()["created_by"]) == ("Demo", "org_admin", "root")
        assert set(made.json()["permissions"]) == {permission.value for permission in Permission}
        assert code_of(api.client.post("/v2.1/projects", json={"id": "p"})) == (409, "already_exists")
        ana, out = join(api, "ana", "viewer"), join(api, "out", "project_admin", "other")
        seen = ana("GET", "/projects/p").json()
        assert seen["role"] == "viewer"
        assert set(seen["permissions"]) == {p.value for p in permissions_of(Role.VIEWER)}
        assert code_of(out("GET", "/projects/p")) == code_of(out("GET", "/projects/none")) == (404, "project_not_found")
        assert [one["id"] for one in ana("GET", "/projects").json()["data"]] == ["p"]
        assert [one["id"] for one in out("GET", "/projects").json()["data"]] == ["other"]
        assert code_of(ana("POST", "/projects", {"id": "mine"})) == (403, "permission_denied")

    def test_pages(self, api: Api) -> None:
        names = [f"p{number}" for number in range(5)]
        for name in names:
            api.client.post("/v2.1/projects", json={"id": name})
        seen, cursor = [], None
        while True:
            page = api.client.get("/v2.1/projects", params={"limit": 2, **({"cursor": cursor} if cursor else {})})
            seen += [one["id"] for one in page.json()["data"]]
            cursor = page.json()["next_cursor"]
            if cursor is None:
                break
        assert seen == sorted({*names, "default"})  # which every installation has
        assert code_of(api.client.get("/v2.1/projects?cursor=!!")) == (422, "invalid_parameter")

    def test_an_archived_project_takes_no_jobs_until_it_is_opened_again(self, api: Api) -> None:
        api.new_job()
        for _ in range(2):
            closed = api.client.post("/v2.1/projects/p-demo/archive")
            assert closed.json()["archived_at"] is not None
        assert code_of(api.submit()) == (409, "project_archived")
        for _ in range(2):
            assert api.client.post("/v2.1/projects/p-demo/reopen").json()["archived_at"] is None
        assert api.submit().status_code == 201
        assert actions(api).count("project.archived") == actions(api).count("project.reopened") == 1

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            (None, "/id"),
            ({}, "/id"),
            ({"id": 5}, "/id"),
            ({"id": "a/b"}, "/id"),
            ({"id": "*"}, "/id"),
            ({"id": ""}, "/id"),
            ({"id": "x" * 129}, "/id"),
            ({"id": "p", "title": "t" * 501}, "/title"),
            ({"id": "p", "titel": "t"}, "/titel"),
            ([], ""),
        ],
    )
    def test_bodies_that_are_refused(self, api: Api, body: Any, param: str) -> None:
        answer = api.client.post("/v2.1/projects", json=body)
        expected = (400, "invalid_json") if answer.status_code == 400 else (422, "invalid_parameter")
        assert code_of(answer) == expected
        assert answer.json()["param"] == param


class TestMembers:
    def test_a_role_counts_at_once_and_is_taken_at_once(self, api: Api) -> None:
        ana = join(api, "ana")
        assert ana("GET", "/projects/p").status_code == 404
        for role in ("viewer", "editor"):
            given = api.client.put("/v2.1/projects/p/members/ana", json={"role": role})
            assert (given.status_code, given.json()["role"], given.json()["updated_by"]) == (200, role, "root")
            assert ana("GET", "/projects/p").json()["role"] == role
        assert [one["subject"] for one in ana("GET", "/projects/p/members").json()["data"]] == ["ana"]
        taken = api.client.delete("/v2.1/projects/p/members/ana")
        assert (taken.status_code, taken.json()["role"]) == (200, "editor")
        assert ana("GET", "/projects/p").status_code == 404
        assert code_of(api.client.delete("/v2.1/projects/p/members/ana")) == (404, "not_found")

    def test_nobody_gives_more_than_they_have_or_takes_from_a_stronger_one(self, api: Api) -> None:
        boss, editor = join(api, "boss", "project_admin"), join(api, "ed", "editor")
        for role in PROJECT_ROLES:
            assert boss("PUT", "/projects/p/members/new", {"role": role.value}).status_code == 200
        assert code_of(boss("PUT", "/projects/p/members/new", {"role": "org_admin"})) == (422, "invalid_parameter")
        assert code_of(editor("PUT", "/projects/p/members/ed", {"role": "project_admin"})) == (403, "permission_denied")
        for method, body in (("GET", None), ("PUT", {"role": "org_admin"}), ("DELETE", None)):
            path = "/organisation/members" if method == "GET" else "/organisation/members/boss"
            assert code_of(boss(method, path, body)) == (403, "permission_denied")
        assert boss("GET", "/projects/p/members").json()["data"][0]["subject"] == "boss"

    def test_permissions_besides_the_role_and_an_end(self, api: Api) -> None:
        ana = join(api, "ana", "viewer")
        body = {"role": "viewer", "permissions": ["audit.read"], "expires_in": "30d"}
        given = api.client.put("/v2.1/projects/p/members/ana", json=body).json()
        assert (given["permissions"], given["active"]) == (["audit.read"], True)
        assert given["expires_at"] > given["updated_at"]
        assert "audit.read" in ana("GET", "/projects/p").json()["permissions"]
        end = {"role": "viewer", "expires_at": "2999-01-31T00:00:00Z"}
        given = api.client.put("/v2.1/projects/p/members/ana", json=end).json()
        assert (given["permissions"], given["expires_at"]) == ([], "2999-01-31T00:00:00.000Z")

    @pytest.mark.parametrize(
        ("body", "param", "hint"),
        [
            ({}, "/role", None),
            ({"role": "admin"}, "/role", None),
            ({"role": "viewer", "permissions": "audit.read"}, "/permissions", None),
            ({"role": "viewer", "permissions": ["audit.raed"]}, "/permissions/0", "did you mean audit.read?"),
            ({"role": "viewer", "permissions": ["job.submit"]}, "/permissions", "these are"),
            ({"role": "viewer", "expires_at": "tomorrow"}, "/expires_at", "write it as"),
            ({"role": "viewer", "expires_at": "2001-01-01T00:00:00Z"}, "/expires_at", None),
            ({"role": "viewer", "expires_at": 5}, "/expires_at", None),
            ({"role": "viewer", "expires_in": "soon"}, "/expires_in", None),
            ({"role": "viewer", "expires_in": "999999999d"}, "/expires_in", None),
            ({"role": "viewer", "expires_in": "1d", "expires_at": "2999-01-01T00:00:00Z"}, "/expires_in", None),
            ({"rolle": "viewer"}, "/rolle", "did you mean role?"),
        ],
    )
    def test_bodies_that_are_refused(self, api: Api, body: Any, param: str, hint: str | None) -> None:
        join(api, "ana", "viewer")
        answer = api.client.put("/v2.1/projects/p/members/ana", json=body)
        assert code_of(answer) == (422, "invalid_parameter")
        assert answer.json()["param"] == param
        assert (hint or "") in answer.json()["hint"]

    def test_the_organisation_keeps_an_admin(self, api: Api) -> None:
        assert code_of(api.client.delete("/v2.1/organisation/members/root")) == (409, "last_admin")
        assert code_of(api.client.put("/v2.1/organisation/members/root", json={"role": "viewer"})) == (
            409,
            "last_admin",
        )
        assert api.client.put("/v2.1/organisation/members/two", json={"role": "org_admin"}).status_code == 200
        assert api.client.delete("/v2.1/organisation/members/root").status_code == 200
        assert code_of(api.client.get("/v2.1/organisation/members")) == (403, "permission_denied")

    def test_pages(self, api: Api) -> None:
        names = sorted(f"m{number}" for number in range(5))
        join(api, "m0", "viewer")
        for name in names:
            api.client.put(f"/v2.1/projects/p/members/{name}", json={"role": "viewer"})
        first = api.client.get("/v2.1/projects/p/members?limit=3").json()
        # A member that is gone meanwhile takes nobody along.
        api.client.delete(f"/v2.1/projects/p/members/{first['data'][-1]['subject']}")
        second = api.client.get("/v2.1/projects/p/members", params={"cursor": first["next_cursor"]}).json()
        assert [one["subject"] for one in first["data"] + second["data"]] == names
        assert second["next_cursor"] is None


class TestQuotas:
    def test_set_read_and_used(self, api: Api) -> None:
        ana, boss = join(api, "ana", "viewer", "p-demo"), join(api, "boss", "project_admin", "p-demo")
        nothing = ana("GET", "/projects/p-demo/quota").json()
        assert (nothing["gpus_at_once"], nothing["updated_by"]) == (None, None)
        bounds = {"gpus_at_once": 4, "jobs_at_once": 2, "gpu_hours_per_week": 1.5}
        assert code_of(boss("PUT", "/projects/p-demo/quota", bounds)) == (403, "permission_denied")
        now = time.time()
        job_id = api.new_job()
        with api.store.write() as conn:
            begin_gpu_time(conn, GpuTime(job_id, 1, "p-demo", 2.0, now - 1800, None))
        for _ in range(2):
            put = api.client.put("/v2.1/projects/p-demo/quota", json=bounds).json()
            assert {name: put[name] for name in bounds} == bounds
        for found in (ana("GET", "/projects/p-demo/quota").json(), ana("GET", "/projects/p-demo").json()["quota"]):
            assert (found["used"]["gpus"], found["used"]["jobs"]) == (2.0, 1)
            assert 1.0 <= found["used"]["gpu_hours"] < 1.2
        assert api.client.get("/v2.1/organisation/quota").json()["used"]["gpus"] == 2.0
        assert code_of(ana("GET", "/organisation/quota")) == (403, "permission_denied")
        assert api.client.put("/v2.1/organisation/quota", json=bounds).json()["project_id"] is None
        # It is what submissions are measured by.
        assert code_of(
            api.submit({"model": "m", "dataset": "s3://b/d", "resources": {"gpus": 5}, "project_id": "p-demo"})
        ) == (
            403,
            "quota_exceeded",
        )

    @pytest.mark.parametrize("wrong", [-1, 1.5, "4", True, 10**10, 2**70])
    def test_bounds_that_are_refused(self, api: Api, wrong: Any) -> None:
        api.new_job()
        body = {"gpus_at_once": wrong, "jobs_at_once": None, "gpu_hours_per_week": None}
        answer = api.client.put("/v2.1/projects/p-demo/quota", json=body)
        assert answer.status_code in (400, 422)
        assert answer.json()["code"] in ("invalid_json", "invalid_parameter")

    def test_no_bound_is_taken_away_unsaid(self, api: Api) -> None:
        answer = api.client.put("/v2.1/organisation/quota", json={"jobs_at_once": 3})
        assert code_of(answer) == (422, "invalid_parameter")
        assert [one["param"] for one in answer.json()["problems"]] == ["/gpus_at_once", "/gpu_hours_per_week"]


def test_what_comes_at_once_is_done_once(either_api: Api) -> None:
    def send(method: str, *paths: str, body: Any = None) -> list[tuple[int, str | None]]:
        start = threading.Barrier(len(paths))

        def one(path: str) -> tuple[int, str | None]:
            start.wait()
            answer = either_api.client.request(method, f"/v2.1{path}", json=body)
            return answer.status_code, answer.json().get("code")

        with ThreadPoolExecutor(len(paths)) as threads:
            return sorted(threads.map(one, paths), key=str)

    bounds = {"gpus_at_once": 1, "jobs_at_once": 1, "gpu_hours_per_week": 1}
    done, ana = (200, None), "/projects/p/members/ana"
    assert send("POST", *8 * ["/projects"], body={"id": "p"}) == [(201, None), *7 * [(409, "already_exists")]]
    assert send("PUT", *8 * ["/projects/p/quota"], body=bounds) == 8 * [done]
    assert send("PUT", *8 * [ana], body={"role": "viewer"}) == 8 * [done]
    assert send("DELETE", *8 * [ana]) == [done, *7 * [(404, "not_found")]]
    assert send("POST", *8 * ["/projects/p/archive"]) == 8 * [done]
    assert send("PUT", "/organisation/members/two", body={"role": "org_admin"}) == [done]
    both = send("DELETE", "/organisation/members/root", "/organisation/members/two")
    # Whoever is asked second finds the last admin, or is none any more.
    assert both in ([done, (403, "permission_denied")], [done, (409, "last_admin")])
    once = ("project.created", "member.revoked", "project.archived")
    assert [actions(either_api).count(action) for action in once] == [1, 2, 1]


def test_odd_names_are_not_found_or_refused(api: Api) -> None:
    ana = join(api, "ana", "project_admin")
    for name in ODD:
        for method, path, body in about(name):
            for answer in (api.client.request(method, f"/v2.1{path}", json=body), ana(method, path, body)):
                assert answer.status_code in (403, 404, 422), (method, path[:80], answer.status_code, answer.text[:200])
        if name != "nobody":
            odd = api.client.put(f"/v2.1/projects/p/members/{name}", json={"role": "viewer"})
            assert odd.status_code in (404, 422), (name[:80], odd.text[:200])


def about(name: str) -> list[tuple[str, str, Any]]:
    """Requests with a name in every place where there can be one."""
    return [
        ("GET", f"/projects/{name}", None),
        ("POST", f"/projects/{name}/archive", None),
        ("GET", f"/projects/{name}/members", None),
        ("PUT", f"/projects/{name}/members/ana", {"role": "viewer"}),
        ("DELETE", f"/projects/{name}/members/ana", None),
        ("GET", f"/projects/{name}/quota", None),
        ("PUT", f"/projects/{name}/quota", {"gpus_at_once": 1, "jobs_at_once": 1, "gpu_hours_per_week": 1}),
        ("DELETE", f"/projects/p/members/{name}", None),
        ("DELETE", f"/organisation/members/{name}", None),
        ("DELETE", f"/tokens/{name}", None),
        ("GET", f"/can-i?project_id={name}", None),
        ("GET", f"/tokens?project_id={name}", None),
        ("GET", f"/audit?project_id={name}", None),
    ]


def test_the_documentation_has_the_table_of_permissions() -> None:
    readme = Path(astraml_ray.__file__).with_name("api") / "README.md"
    assert render_table() in readme.read_text()


def test_the_names_of_roles_are_the_roles() -> None:
    assert list(RoleName.__args__) == [role.value for role in Role]


def test_the_hint_of_a_refusal_names_who_can_help(api: Api) -> None:
    join(api, "boss", "project_admin")
    refused = join(api, "ana", "viewer")("PUT", "/projects/p/members/ana", {"role": "editor"}).json()
    assert refused["roles"] == ["project_admin", "org_admin"]
    assert "ask boss" in refused["hint"]


def test_names_are_quoted_as_paths(api: Api) -> None:
    join(api, "ana@example.org", "viewer")
    path = f"/v2.1/projects/p/members/{quote('ana@example.org', safe='')}"
    assert api.client.delete(path).json()["subject"] == "ana@example.org"
