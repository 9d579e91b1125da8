"""The permission of every route, tried with every role: over the real app, with real tokens."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Depends

from astraml_ray.access.issuing import issue_personal_token, revoke_token
from astraml_ray.access.permissions import ANYWHERE, TABLE, Permission, Role, allows, roles_with
from astraml_ray.access.targets import AllowedTargets
from astraml_ray.access.tokens import Principal
from astraml_ray.api.app import build_app
from astraml_ray.api.services import Requires
from astraml_ray.store.access_tables import ORGANISATION
from astraml_ray.store.audit import Actor
from astraml_ray.store.projects import create_project, set_member
from tests.api.conftest import REFERENCE, Api
from tests.api.routes import BODIES, EXPECTED, ORGANISATION_ROUTES, OWN_LISTS, QUERIES, SCHEDULE_ID, path_of

Token = Callable[..., dict[str, str]]


@pytest.fixture
def token(api: Api) -> Token:
    """Makes tokens of members: one with a role in p-demo, or in the organisation, or elsewhere."""
    number = iter(range(1000))

    def make(role: Role | None, *, project: str = "p-demo", **given: Any) -> dict[str, str]:
        subject, now = f"member-{next(number)}", time.time()
        scope = ORGANISATION if role is Role.ORG_ADMIN else project
        root = Principal("t" * 12, "root", Role.ORG_ADMIN)
        with api.store.write() as conn:
            create_project(conn, project, actor=Actor("test"), now=now)
            if role is not None:
                set_member(conn, scope, subject, role.value, actor=Actor("test"), now=now)
            text, record = issue_personal_token(conn, root, subject, now=now, **given)
        return {"Authorization": f"Bearer {text}", "subject": subject, "id": record.id}

    return make


def routes_of(api: Api) -> list[tuple[str, str]]:
    """Every method and path that the app serves, from the app itself."""
    return [(method.upper(), path) for path, methods in api.app.openapi()["paths"].items() for method in methods]


def ask(api: Api, method: str, path: str, headers: dict[str, str] | None, job_id: str) -> httpx.Response:
    sent = {"Authorization": ""} if headers is None else {"Authorization": headers["Authorization"]}
    body = BODIES.get((method, path))
    query = QUERIES.get((method, path))
    return api.client.request(method, path_of(path, job_id), params=query, json=body, headers=sent)


def test_the_table_here_has_every_route(api: Api) -> None:
    assert {route for route in routes_of(api) if route[1] not in ("/healthz", "/readyz")} == set(EXPECTED)


@pytest.mark.parametrize("role", [None, *Role], ids=lambda role: role.value if role else "outsider")
def test_every_route_for_every_role(api: Api, token: Token, role: Role | None) -> None:
    member = token(role) if role else token(Role.PROJECT_ADMIN, project="elsewhere")
    job_id = api.ended_job(run_path="/nowhere")
    api.new_schedule(SCHEDULE_ID)
    for (method, path), permission in EXPECTED.items():
        answer = ask(api, method, path, member, job_id)
        where = f"{role} {method} {path}: {answer.status_code} {answer.text[:300]}"
        if permission is None:
            assert answer.status_code not in (401, 403), where
        elif role is None:
            private = 403 if (method, path) in ORGANISATION_ROUTES else 404
            elsewhere = permission in ANYWHERE or (method, path) in OWN_LISTS
            assert answer.status_code == 200 if elsewhere else answer.status_code == private, where
        elif allows(role, permission) and _reaches(role, permission, (method, path)):
            assert answer.status_code not in (401, 403), where
            assert answer.json()["code"] != "project_not_found" if answer.status_code == 404 else True, where
        else:
            assert answer.status_code == 403, where
            problem = answer.json()
            assert problem["code"] == "permission_denied", where
            asked = {permission.value, "job.cancel.own"} if path.endswith("/cancel") else {permission.value}
            assert problem["permission"] in asked, where
            granting = [one.value for one in roles_with(Permission(problem["permission"]))]
            assert problem["roles"] in (granting, granting[-1:]), where
            assert problem["roles"][-1] in problem["hint"], where


def test_nothing_answers_without_a_token_but_the_health_checks(api: Api) -> None:
    job_id = api.ended_job()
    for method, path in [*routes_of(api), ("GET", "/openapi.json"), ("GET", "/nope"), ("OPTIONS", "/v2.1/jobs")]:
        answer = ask(api, method, path, None, job_id)
        if path in ("/healthz", "/readyz"):
            assert answer.status_code in (200, 503)
            continue
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), (method, path)
        assert answer.headers["www-authenticate"] == "Bearer"
    api.client.headers.pop("authorization")
    secret = api.client.get("/v2.1/jobs", params={"token": "astr_x"})
    assert secret.status_code == 401
    huge = api.client.post("/v2.1/jobs", content=b"x" * 2_000_000, headers={"Content-Type": "application/json"})
    assert huge.status_code == 401, "who asks is known before a body is read"


def test_a_token_in_the_query_is_none(api: Api, token: Token) -> None:
    text = token(Role.VIEWER)["Authorization"].removeprefix("Bearer ")
    api.client.headers.pop("authorization")
    for name in ("token", "access_token", "authorization", "Authorization"):
        assert api.client.get("/v2.1/jobs", params={name: text}).status_code == 401
    # And where another way in is used besides, it is an unknown parameter.
    again = api.client.get("/v2.1/jobs", params={"token": text}, headers={"Authorization": f"Bearer {text}"})
    assert (again.status_code, again.json()["code"]) == (422, "invalid_parameter")


def test_a_revoked_or_expired_token_is_refused_within_a_second(api: Api, token: Token) -> None:
    revoked, expired = token(Role.VIEWER), token(Role.VIEWER, expires_at=time.time() + 1.0)
    for member in (revoked, expired):
        assert ask(api, "GET", "/v2.1/jobs", member, "").status_code == 200
    root = Principal("t" * 12, "root", Role.ORG_ADMIN)
    with api.store.write() as conn:
        revoke_token(conn, root, revoked["id"], now=time.time())
    time.sleep(1.0)
    for member, said in ((revoked, "revoked"), (expired, "expired")):
        answer = ask(api, "GET", "/v2.1/jobs", member, "")
        assert (answer.status_code, said in answer.json()["detail"]) == (401, True)


def test_guessing_is_slowed_down_and_members_do_not_notice(api: Api, token: Token) -> None:
    member = token(Role.VIEWER)
    assert ask(api, "GET", "/v2.1/jobs", member, "").status_code == 200
    wrong = {"Authorization": f"Bearer astr_{'0' * 12}_{'A' * 43}"}
    codes = [ask(api, "GET", "/v2.1/jobs", wrong, "").status_code for _ in range(20)]
    assert codes[0] == 401
    assert codes[-1] == 429
    refused = ask(api, "GET", "/v2.1/jobs", wrong, "")
    assert int(refused.headers["retry-after"]) >= 1
    assert ask(api, "GET", "/v2.1/jobs", member, "").status_code == 200


def test_another_project_s_jobs_are_not_there(api: Api, token: Token) -> None:
    mine, other = api.new_job(), api.new_job(project_id="secret")
    member = token(Role.PROJECT_ADMIN)
    unknown = other[:-1] + ("0" if other[-1] != "0" else "1")
    parts = ("", "/attempts", "/events", "/logs", "/metrics", "/artifacts", "/artifacts/x", "/logs?follow=true")
    for part in parts:
        hidden, missing = (
            api.client.get(f"/v2.1/jobs/{job}{part}", headers={"Authorization": member["Authorization"]})
            for job in (other, unknown)
        )
        assert hidden.status_code == missing.status_code == 404
        told = [{k: v for k, v in one.json().items() if k != "request_id"} for one in (hidden, missing)]
        assert told[0] == {**told[1], "detail": told[1]["detail"].replace(unknown, other)}
    sent = {"Authorization": member["Authorization"]}
    for action in ("cancel", "clone", "resume"):
        assert api.client.post(f"/v2.1/jobs/{other}/{action}", headers=sent).status_code == 404
    assert api.client.get("/v2.1/jobs?project_id=secret", headers=sent).status_code == 404
    assert [job["id"] for job in api.client.get("/v2.1/jobs", headers=sent).json()["data"]] == [mine]
    secret = {**REFERENCE, "project_id": "secret"}
    assert api.client.post("/v2.1/jobs", json=secret, headers=sent).status_code == 404
    assert api.client.post("/v2.1/jobs:validate", json=secret, headers=sent).status_code == 404
    # A clone asks for both projects: the one that it reads, and the one that it writes to.
    moved = {"set": {"project_id": "secret"}}
    assert api.client.post(f"/v2.1/jobs/{mine}/clone", json=moved, headers=sent).status_code == 404
    with api.store.read() as conn:
        assert conn.exec_driver_sql("SELECT count(*) FROM jobs").scalar() == 2


@pytest.mark.parametrize(
    "path",
    ["/etc", "file:///etc/passwd", "~/.astraml/token", "relative/x", "local:///etc", "zip::/etc/x", "s3://b/x::/etc"],
)
def test_a_member_s_job_does_not_read_the_service_s_machine(api: Api, token: Token, path: str) -> None:
    member = _only(token(Role.PROJECT_ADMIN))
    specs = {"/dataset/path": {**REFERENCE, "dataset": path}, "/model/name": {**REFERENCE, "model": f"{path}/y/z"}}
    for param, spec in specs.items():
        for route in ("/v2.1/jobs", "/v2.1/jobs:validate"):
            problem = api.client.post(route, json=spec, headers=member).json()
            assert (problem["code"], problem["param"]) == ("target_not_allowed", param)
    for verb in ("inspect", "preview"):
        query = {"path": path, "project_id": "p-demo"}
        looked = api.client.get(f"/v2.1/datasets:{verb}", params=query, headers=member)
        assert looked.json()["code"] == "target_not_allowed"
    assert api.validator.seen == []


def test_the_operator_can_allow_a_folder(make_api: Callable[..., Api], tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "way-out").symlink_to("/etc")
    api = make_api(targets=AllowedTargets.parse(f"10.0.0.0/8, {tmp_path}/open"))
    with api.store.write() as conn:
        create_project(conn, "p-demo", actor=Actor("test"), now=time.time())
        set_member(conn, "p-demo", "ana", "submitter", actor=Actor("test"), now=time.time())
        text, _ = issue_personal_token(conn, Principal("t" * 12, "root", Role.ORG_ADMIN), "ana", now=time.time())

    def status(path: str) -> int:
        headers = {"Authorization": f"Bearer {text}"}
        return api.client.post("/v2.1/jobs", json={**REFERENCE, "dataset": path}, headers=headers).status_code

    assert status(f"{tmp_path}/open/data") == status(f"file://{tmp_path}/open/data") == 201
    for path in ("open/../shut", "open/way-out", "opened"):
        assert status(f"{tmp_path}/{path}") == 422


def test_one_cancels_one_s_own_jobs(api: Api, token: Token) -> None:
    ana, ben, editor = token(Role.SUBMITTER), token(Role.SUBMITTER), token(Role.EDITOR)

    def post(path: str, member: dict[str, str], body: Any = None) -> httpx.Response:
        return api.client.post(path, json=body, headers={"Authorization": member["Authorization"]})

    made = post("/v2.1/jobs", ana, REFERENCE).json()
    assert made["submitted_by"] == ana["subject"]
    refused = post(f"/v2.1/jobs/{made['id']}/cancel", ben)
    assert (refused.status_code, refused.json()["permission"]) == (403, "job.cancel.any")
    assert post(f"/v2.1/jobs/{made['id']}/cancel", ana).status_code == 200
    second = post("/v2.1/jobs", ana, REFERENCE).json()
    assert post(f"/v2.1/jobs/{second['id']}/cancel", editor).status_code == 200


def test_a_project_is_made_with_the_first_job_of_who_may_make_projects(api: Api, token: Token) -> None:
    spec = {**REFERENCE, "project_id": "fresh"}
    assert api.client.post("/v2.1/jobs", json=spec, headers=_only(token(Role.PROJECT_ADMIN))).status_code == 404
    assert api.client.post("/v2.1/jobs", json=spec).status_code == 201
    with api.store.read() as conn:
        made = conn.exec_driver_sql("SELECT action, actor FROM audit WHERE target = 'fresh'").all()
    assert made == [("project.created", "root")]


def test_a_route_without_a_permission_cannot_be_served(api: Api) -> None:
    def secrets() -> None: ...

    for path in ("/v2.1/secrets", "/anything"):
        router = APIRouter()
        router.add_api_route(path, secrets)
        with pytest.raises(ValueError, match=path):
            build_app(api.services, routers=(router,))
    allowed = APIRouter()
    allowed.add_api_route("/v2.1/secrets", secrets, dependencies=[Depends(Requires(Permission.SECRET_LIST))])
    build_app(api.services, routers=(allowed,))


def test_every_permission_is_some_route_s_or_is_named_here() -> None:
    asked = {permission for permission in EXPECTED.values() if permission is not None}
    # Asked for besides, or in place of the route's own, and tested with what asks for it.
    within = {
        Permission.JOB_CANCEL_ANY,
        Permission.JOB_CANCEL_OWN,
        Permission.SECRET_USE,
        Permission.TOKEN_MANAGE,
    }
    assert asked | within == set(TABLE)


def _reaches(role: Role, permission: Permission, route: tuple[str, str]) -> bool:
    """A role in a project is none in the organisation."""
    return role is Role.ORG_ADMIN or route not in ORGANISATION_ROUTES or permission in ANYWHERE


def _only(member: dict[str, str]) -> dict[str, str]:
    return {"Authorization": member["Authorization"]}
