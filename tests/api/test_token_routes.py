"""Tokens over the API: made once, shown once, never stronger than their maker; and what a token may do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from astraml_ray.access.permissions import TABLE, Permission, Role, permissions_of
from astraml_ray.access.tokens import digest_of, id_of
from tests.api.conftest import Api
from tests.api.test_administration_routes import Member, code_of, join


def bearer(made: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {made.json()['token']}"}


class TestMaking:
    def test_it_is_shown_once_and_its_digest_never(self, api: Api) -> None:
        ana = join(api, "ana", "submitter")
        made = ana("POST", "/tokens", {"note": "laptop", "expires_in": "90d"})
        assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
        text = made.json()["token"]
        assert made.json()["id"] == id_of(text)
        assert (made.json()["subject"], made.json()["kind"], made.json()["status"]) == ("ana", "personal", "active")
        assert ana("GET", "/whoami").json()["subject"] == "ana"
        answers = [made, ana("GET", "/tokens"), api.client.get("/v2.1/tokens?organisation=true")]
        answers += [api.client.get("/v2.1/audit?limit=1000"), api.client.get("/v2.1/audit?format=jsonl")]
        for answer in answers:
            assert answer.status_code in (200, 201)
            assert digest_of(text) not in answer.text
            assert (text in answer.text) == (answer is made)
        mine = ana("GET", "/tokens").json()["data"]
        assert {one["subject"] for one in mine} == {"ana"}
        assert mine[0]["note"] == "laptop" or mine[1]["note"] == "laptop"
        assert "digest" not in mine[0]

    def test_a_service_s_has_a_role_of_its_own_in_one_project(self, api: Api) -> None:
        boss, editor = join(api, "boss", "project_admin"), join(api, "ed", "editor")
        body = {"kind": "service", "name": "ci", "role": "submitter", "project_id": "p"}
        made = boss("POST", "/tokens", body)
        assert (made.status_code, made.json()["subject"], made.json()["role"]) == (201, "service:ci", "submitter")
        me = api.client.get("/v2.1/whoami", headers=bearer(made)).json()
        assert (me["subject"], me["bound"]) == ("service:ci", "p")
        assert me["projects"] == [{"project_id": "p", "role": "submitter", "permissions": []}]
        assert code_of(editor("POST", "/tokens", body)) == (403, "permission_denied")
        assert code_of(boss("POST", "/tokens", {**body, "role": "org_admin"})) == (422, "invalid_parameter")
        everywhere = {name: value for name, value in body.items() if name != "project_id"}
        assert code_of(boss("POST", "/tokens", everywhere)) == (403, "permission_denied")
        assert code_of(boss("POST", "/tokens", {**body, "project_id": "none"})) == (404, "project_not_found")
        seen = boss("GET", "/tokens?project_id=p").json()["data"]
        assert [one["subject"] for one in seen] == ["service:ci"]
        assert code_of(editor("GET", "/tokens?project_id=p")) == (403, "permission_denied")
        assert code_of(boss("GET", "/tokens?organisation=true")) == (403, "permission_denied")

    def test_it_is_never_stronger_or_more_lasting_than_its_maker(self, api: Api) -> None:
        ana = join(api, "ana", "submitter")
        narrow = ana("POST", "/tokens", {"permissions": ["job.read"], "project_id": "p", "expires_in": "1h"})
        sent = bearer(narrow)

        def again(body: dict[str, Any]) -> Any:
            return api.client.post("/v2.1/tokens", json=body, headers=sent)

        assert code_of(again({})) == (403, "permission_denied")
        assert code_of(again({"project_id": "p"})) == (403, "permission_denied")
        assert code_of(again({"project_id": "p", "permissions": ["job.submit"]})) == (403, "permission_denied")
        made = again({"project_id": "p", "permissions": ["job.read"], "expires_in": "30d"})
        assert (made.status_code, made.json()["expires_at"]) == (201, narrow.json()["expires_at"])
        assert code_of(ana("POST", "/tokens", {"subject": "boss"})) == (403, "permission_denied")

    @pytest.mark.parametrize(
        ("body", "params"),
        [
            ({"kind": "robot"}, ["/kind"]),
            ({"kind": "service"}, ["/name", "/role"]),
            ({"kind": "service", "name": "ci", "role": "admin"}, ["/role"]),
            ({"kind": "service", "name": "a b", "role": "viewer"}, ["/subject"]),
            ({"kind": "service", "name": "ci", "role": "viewer", "subject": "ana"}, ["/subject"]),
            ({"kind": "service", "name": "ci", "role": "viewer", "permissions": ["job.submit"]}, ["/permissions"]),
            ({"name": "ci", "role": "viewer"}, ["/name", "/role"]),
            ({"subject": "service:ci"}, ["/subject"]),
            ({"permissions": ["job.raed", "x"]}, ["/permissions/0", "/permissions/1"]),
            ({"permissions": [5]}, ["/permissions/0"]),
            ({"expires_in": "0d"}, ["/expires_in"]),
            ({"expires_at": "1999-01-01T00:00:00Z"}, ["/expires_at"]),
            ({"note": "n" * 501}, ["/note"]),
            ({"project": "p"}, ["/project"]),
        ],
    )
    def test_bodies_that_are_refused(self, api: Api, body: Any, params: list[str]) -> None:
        answer = api.client.post("/v2.1/tokens", json=body)
        assert code_of(answer) == (422, "invalid_parameter")
        problem = answer.json()
        assert [one["param"] for one in problem.get("problems") or [problem]] == params


class TestRevoking:
    def test_it_counts_at_once_and_may_be_repeated(self, api: Api) -> None:
        ana = join(api, "ana", "viewer")
        made = ana("POST", "/tokens", {})
        sent = bearer(made)
        assert api.client.get("/v2.1/projects", headers=sent).status_code == 200
        revoked = [ana("DELETE", f"/tokens/{made.json()['id']}") for _ in range(2)]
        assert [answer.status_code for answer in revoked] == [200, 200]
        assert revoked[0].json()["status"] == "revoked"
        assert revoked[1].json()["revoked_at"] == revoked[0].json()["revoked_at"]
        assert code_of(api.client.get("/v2.1/projects", headers=sent)) == (401, "unauthenticated")
        trail = api.client.get("/v2.1/audit?action=token.revoked").json()["data"]
        assert [(one["actor"], one["target"]) for one in trail] == [("ana", made.json()["id"])]

    def test_what_one_may_not_see_is_not_there(self, api: Api) -> None:
        ana, ben, boss = join(api, "ana", "editor"), join(api, "ben", "editor"), join(api, "boss", "project_admin")
        of_project = boss("POST", "/tokens", {"kind": "service", "name": "ci", "role": "viewer", "project_id": "p"})
        for token_id in (ana.id, of_project.json()["id"], "0" * 12):
            assert code_of(ben("DELETE", f"/tokens/{token_id}")) == (404, "not_found")
        assert code_of(boss("DELETE", f"/tokens/{ana.id}")) == (404, "not_found")
        assert boss("DELETE", f"/tokens/{of_project.json()['id']}").status_code == 200
        # An org_admin sees and takes everyone's, with a token that leaked among them.
        everyones = api.client.get("/v2.1/tokens?organisation=true&limit=200").json()["data"]
        assert {"root", "ana", "ben", "boss", "service:ci"} <= {one["subject"] for one in everyones}
        assert api.client.delete(f"/v2.1/tokens/{ana.id}").status_code == 200
        assert ana("GET", "/whoami").status_code == 401

    def test_pages(self, api: Api) -> None:
        ana = join(api, "ana", "viewer")
        ids = [ana("POST", "/tokens", {}).json()["id"] for _ in range(4)]
        seen, query = [], "limit=2"
        while True:
            page = ana("GET", f"/tokens?{query}").json()
            seen += [one["id"] for one in page["data"]]
            if page["next_cursor"] is None:
                break
            query = f"limit=2&cursor={page['next_cursor']}"
        assert sorted(seen) == sorted([ana.id, *ids])
        assert len(set(seen)) == len(seen)


class TestCanI:
    def ask(self, member: Member, permission: str, project: str | None = "p") -> dict[str, Any]:
        where = f"&project_id={project}" if project else ""
        answer = member("GET", f"/can-i?permission={permission}{where}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    @pytest.mark.parametrize("role", ["viewer", "submitter", "editor", "project_admin"])
    def test_it_says_what_the_table_says(self, api: Api, role: str) -> None:
        member = join(api, "ana", role)
        for permission in Permission:
            told = self.ask(member, permission.value)
            assert told["allowed"] == (permission in permissions_of(Role(role))), permission
            assert told["roles"][0] == TABLE[permission].lowest.value
        all_of_them = member("GET", "/can-i?project_id=p").json()
        assert set(all_of_them["permissions"]) == {one.value for one in permissions_of(Role(role))}
        assert all_of_them["role"] == role

    def test_reasons(self, api: Api) -> None:
        join(api, "boss", "project_admin")
        ana = join(api, "ana", "viewer")
        assert self.ask(ana, "job.read")["reason"] == "you are viewer"
        refused = self.ask(ana, "job.submit")
        assert refused["roles"] == ["submitter", "editor", "project_admin", "org_admin"]
        for words in ("job.submit is missing in project 'p'", "you are viewer", "ask boss"):
            assert words in refused["reason"]
        api.client.put("/v2.1/projects/p/members/ana", json={"role": "viewer", "permissions": ["audit.read"]})
        assert "besides your role" in self.ask(ana, "audit.read")["reason"]
        narrow = ana("POST", "/tokens", {"permissions": ["job.read"]})
        asked = "/v2.1/can-i?permission=project.read&project_id=p"
        told = api.client.get(asked, headers=bearer(narrow)).json()
        assert (told["allowed"], "made without it" in told["reason"]) == (False, True)
        # Whoever may not do the least thing there may still ask what they may do.
        held = api.client.get("/v2.1/can-i?project_id=p", headers=bearer(narrow)).json()
        assert held["permissions"] == ["job.read"]

    def test_in_the_organisation(self, api: Api) -> None:
        ana = join(api, "ana", "project_admin")
        assert self.ask(ana, "cluster.read", None)["allowed"]
        refused = self.ask(ana, "job.submit", None)
        assert (refused["allowed"], refused["roles"], refused["role"]) == (False, ["org_admin"], None)
        assert api.client.get("/v2.1/can-i?permission=project.create").json()["allowed"]

    def test_what_is_not_there(self, api: Api) -> None:
        ana = join(api, "ana", "viewer")
        join(api, "ben", "viewer", "other")
        for project in ("other", "none"):
            assert code_of(ana("GET", f"/can-i?project_id={project}")) == (404, "project_not_found")
            path = f"/can-i?permission=job.read&project_id={project}"
            assert code_of(ana("GET", path)) == (404, "project_not_found")
        assert code_of(api.client.get("/v2.1/can-i?project_id=none")) == (404, "project_not_found")
        odd = ana("GET", "/can-i?permission=job.raed&project_id=p")
        assert code_of(odd) == (422, "invalid_parameter")
        assert (odd.json()["param"], odd.json()["hint"]) == ("permission", "did you mean job.read?")


def test_whoami_tells_all_that_a_token_is(api: Api) -> None:
    root = api.client.get("/v2.1/whoami").json()
    assert (root["subject"], root["organisation_role"], root["scopes"]) == ("root", "org_admin", None)
    ana = join(api, "ana", "viewer")
    join(api, "ana", "editor", "q")
    me = ana("GET", "/whoami").json()
    assert me["token_id"] == ana.id
    assert {one["project_id"]: one["role"] for one in me["projects"]} == {"p": "viewer", "q": "editor"}
    bound = ana("POST", "/tokens", {"project_id": "q", "permissions": ["job.read"], "expires_in": "1d"})
    me = api.client.get("/v2.1/whoami", headers=bearer(bound)).json()
    assert (me["bound"], me["scopes"], me["expires_at"]) == ("q", ["job.read"], bound.json()["expires_at"])
    assert [one["project_id"] for one in me["projects"]] == ["q"]


def test_the_table_of_permissions(api: Api) -> None:
    listed = api.client.get("/v2.1/permissions").json()["data"]
    assert [one["permission"] for one in listed] == [permission.value for permission in TABLE]
    assert all(one["meaning"] and one["roles"][-1] == "org_admin" for one in listed)
    assert {one["permission"] for one in listed if one["singly"]} >= {"secret.use"}


def test_an_expired_token_is_listed_as_that(make_api: Callable[..., Api]) -> None:
    later = [0.0]
    api = make_api(clock=lambda: time.time() + later[0])
    ana = join(api, "ana", "viewer")
    soon = ana("POST", "/tokens", {"expires_in": "60s"}).json()
    for passed, status in ((0.0, "active"), (61.0, "expired")):
        later[0] = passed
        statuses = {one["id"]: one["status"] for one in ana("GET", "/tokens").json()["data"]}
        assert statuses == {ana.id: "active", soon["id"]: status}
