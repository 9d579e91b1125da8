"""Verbs of who may do what, and the client below them: project, token, can-i, whoami, audit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from astraml_ray.client import ApiError, Client
from astraml_ray.errors import RequestError
from tests.client.conftest import SPEC, Astraml, LiveService


def told(astraml: Astraml, *arguments: str, code: int = 0) -> Any:
    return json.loads(astraml(*arguments, "--output", "json", code=code).stdout)


@pytest.fixture
def project(astraml: Astraml) -> str:
    """One where ana is a submitter."""
    astraml("project", "create", "p", "--title", "Demo\x1b[31m")
    astraml("project", "grant", "ana", "submitter", "--project", "p")
    return "p"


def token_of(astraml: Astraml, *arguments: str) -> str:
    return astraml("token", "create", *arguments).stdout.removesuffix("\n")


class TestProject:
    def test_make_look_archive(self, astraml: Astraml, project: str) -> None:
        assert "p is archived" in astraml("project", "archive", "p").stdout
        page = astraml("project", "show", "p").stdout
        for words in ("p  archived", "title    Demo", "by root", "you are  org_admin", "any number of GPUs at once"):
            assert words in page
        assert "\x1b" not in page
        lines = astraml("project", "list").stdout.splitlines()
        assert next(line for line in lines if line.startswith("p ")).split() == ["p", "org_admin", "archived", "Demo"]
        assert astraml("project", "reopen", "p").stdout == "p takes jobs\n"
        assert told(astraml, "project", "show", "p")["archived_at"] is None
        assert "there is a project 'p' already" in astraml("project", "create", "p", code=10).stderr
        assert "project list" in astraml("project", "show", "none", code=10).stderr

    def test_members(self, astraml: Astraml, project: str) -> None:
        done = astraml(
            *(
                "project",
                "grant",
                "ben",
                "editor",
                "--project",
                "p",
                "--permission",
                "secret.manage",
                "--expires",
                "30d",
            )
        )
        assert done.stdout == "ben is editor in project p\n"
        astraml("project", "grant", "cleo", "viewer", "--organisation", "--expires", "2999-01-31T00:00:00Z")
        found = told(astraml, "project", "members", "--project", "p")["data"]
        assert [(one["subject"], one["role"]) for one in found] == [("ana", "submitter"), ("ben", "editor")]
        text = astraml("project", "members", "--organisation").stdout
        assert [line.split()[:2] for line in text.splitlines()[1:]] == [["cleo", "viewer"], ["root", "org_admin"]]
        assert "no role in project p" in astraml("project", "revoke", "ben", "--project", "p").stdout
        assert "has no role there" in astraml("project", "revoke", "ben", "--project", "p", code=10).stderr
        last = astraml("project", "revoke", "root", "--organisation", code=10).stderr
        assert "no admin left" in last
        endless = ("project", "grant", "x", "viewer", "--project", "p", "--expires", "30")
        assert "write it as" in astraml(*endless, code=10).stderr
        for arguments in (["members"], ["members", "--project", "p", "--organisation"], ["revoke", "ana"]):
            assert "--project PROJECT or --organisation" in astraml("project", *arguments, code=2).stderr

    def test_quota_changes_what_is_named(self, astraml: Astraml, project: str) -> None:
        astraml("project", "quota", "--project", "p", "--gpus", "4", "--gpu-hours", "2.5")
        assert "0 of 4 GPUs at once" in astraml("project", "quota", "--project", "p").stdout
        found = told(astraml, "project", "quota", "--project", "p", "--gpus", "none", "--jobs", "3")
        assert (found["gpus_at_once"], found["jobs_at_once"], found["gpu_hours_per_week"]) == (None, 3, 2.5)
        assert told(astraml, "project", "quota", "--organisation")["gpus_at_once"] is None
        assert "is no number" in astraml("project", "quota", "--project", "p", "--jobs", "many", code=2).stderr


class TestToken:
    def test_the_token_alone_is_on_stdout(self, astraml: Astraml, project: str, service: LiveService) -> None:
        # Through a shell, as it is meant.
        command = f"{sys.executable} -m astraml_ray token create --subject ana --project p --expires 90d"
        done = subprocess.run(
            ["bash", "-c", f"TOKEN=$({command}); echo $TOKEN"], capture_output=True, text=True, check=True
        )
        token = done.stdout.strip()
        assert "shown this once" in done.stderr
        assert token not in done.stderr
        with Client(token=token) as ana:
            me = ana.tokens.whoami()
            assert (me["subject"], me["bound"]) == ("ana", "p")
            assert ana.submit({**SPEC, "project_id": "p"})["submitted_by"] == "ana"

    def test_list_and_revoke(self, astraml: Astraml, project: str) -> None:
        token = token_of(astraml, "--service", "ci", "--role", "viewer", "--project", "p", "--note", "for CI")
        token_id = token.split("_")[1]
        line = astraml("token", "list", "--project", "p").stdout.splitlines()[1].split()
        assert line[:4] == [token_id, "service:ci", "p", "viewer"]
        assert token_id not in astraml("token", "list").stdout
        assert "is revoked" in astraml("token", "revoke", token_id).stdout
        with pytest.raises(ApiError, match="revoked"), Client(token=token) as ci:
            ci.tokens.whoami()
        assert "there is no such token" in astraml("token", "list", "--project", "p").stdout
        assert "revoked" in astraml("token", "list", "--project", "p", "--all").stdout
        everyones = told(astraml, "token", "list", "--organisation", "--all")["data"]
        assert {"root", "service:ci"} <= {one["subject"] for one in everyones}
        assert "no such token" in astraml("token", "revoke", "0" * 12, code=10).stderr

    def test_flags_that_do_not_go_together(self, astraml: Astraml) -> None:
        assert "go together" in astraml("token", "create", "--role", "viewer", code=2).stderr
        assert "go together" in astraml("token", "create", "--service", "ci", code=2).stderr
        assert "--project PROJECT or" in astraml("token", "list", "--project", "p", "--organisation", code=2).stderr
        refused = told(astraml, "token", "create", "--permission", "job.raed", code=10)["error"]
        assert refused["code"] == "invalid_parameter"


class TestCanI:
    def test_yes_and_no(self, astraml: Astraml, project: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ASTRAML_TOKEN", token_of(astraml, "--subject", "ana"))
        assert astraml("can-i", "submit", "--project", "p").stdout.startswith("yes: you are submitter\n")
        refused = astraml("can-i", "cancel-any", "--project", "p", code=10).stdout
        for words in (
            "no: job.cancel.any is missing",
            "you are submitter",
            "granted by: editor, project_admin, org_admin",
        ):
            assert words in refused
        for verb in ("validate", "clone", "read", "resume", "cancel", "download", "job.read"):
            assert told(astraml, "can-i", verb, "--project", "p")["allowed"]
        found = told(astraml, "can-i", "secret.use", "--project", "p", code=10)
        assert (found["allowed"], found["role"], found["roles"][0]) == (False, "submitter", "editor")
        assert "job.submit" in astraml("can-i", "--project", "p").stdout.split()
        assert "no: " in astraml("can-i", "project.create", "--organisation", code=10).stdout
        assert "job.read" in astraml("can-i", "job.raed", "--project", "p", code=10).stderr
        assert "no project 'none'" in astraml("can-i", "submit", "--project", "none", code=10).stderr

    def test_whoami(self, astraml: Astraml, project: str, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "org_admin in every project" in astraml("whoami").stdout
        narrow = token_of(astraml, "--subject", "ana", "--project", "p", "--permission", "job.read", "--expires", "1d")
        stranger = token_of(astraml, "--subject", "new")
        monkeypatch.setenv("ASTRAML_TOKEN", narrow)
        page = astraml("whoami").stdout
        for words in ("ana  (token", "until 2", "submitter in project p", "in project p only", "may only: job.read"):
            assert words in page
        assert told(astraml, "whoami")["scopes"] == ["job.read"]
        monkeypatch.setenv("ASTRAML_TOKEN", stranger)
        assert "in no project yet" in astraml("whoami").stdout
        assert "you are in no project" in astraml("project", "list").stdout


class TestAudit:
    def test_table_and_filters(self, astraml: Astraml, project: str) -> None:
        astraml("project", "grant", "ana", "editor", "--project", "p")
        lines = astraml("audit", "--project", "p").stdout.splitlines()
        assert "member.granted" in lines[1]
        assert "role submitter → editor" in lines[1]
        assert "project.created" in lines[-1]
        assert len(astraml("audit", "--project", "p", "--limit", "1").stdout.splitlines()) == 2
        found = told(astraml, "audit", "--action", "member", "--target", "ana")["data"]
        assert [one["after"]["role"] for one in found] == ["editor", "submitter"]
        assert "no such change" in astraml("audit", "--actor", "nobody").stdout

    def test_export(self, astraml: Astraml, project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("astraml_ray.client.audit._PAGE", 2)
        file = tmp_path / "trail.jsonl"
        assert f"in {file}" in astraml("audit", "--export", str(file)).stdout
        lines = file.read_text().splitlines()
        assert [json.loads(line)["seq"] for line in lines] == list(range(1, len(lines) + 1))
        assert len(lines) >= 4
        assert astraml("audit", "--export", "-").stdout.splitlines() == lines
        assert "cannot be written" in astraml("audit", "--export", str(tmp_path / "none" / "x"), code=30).stderr
        assert [path.name for path in tmp_path.glob("*trail*")] == ["trail.jsonl"]

    def test_a_cut_export_leaves_what_was_there(
        self, astraml: Astraml, project: str, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "trail.jsonl"
        file.write_text("the old one\n")
        monkeypatch.setenv("ASTRAML_TOKEN", token_of(astraml, "--subject", "ana"))
        astraml("audit", "--export", str(file), code=10)
        assert file.read_text() == "the old one\n"
        assert sorted(path.name for path in tmp_path.glob("*trail*")) == ["trail.jsonl"]

    def test_verify(self, astraml: Astraml, project: str, service: LiveService) -> None:
        assert "the trail is whole" in astraml("audit", "--verify").stdout
        with service.store.write() as conn:
            conn.exec_driver_sql("DROP TRIGGER audit_no_update")
            conn.exec_driver_sql("UPDATE audit SET actor = 'nobody' WHERE seq = 3")
        assert "change 3" in astraml("audit", "--verify", code=20).stdout
        assert told(astraml, "audit", "--verify", code=20)["first_broken"] == 3


def test_the_client_turns_pages(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        client.projects.create(f"p{number}")
        client.projects.grant("p0", f"m{number}", "viewer")
    monkeypatch.setattr("astraml_ray.client.following._PAGE", 2)
    assert [one["id"] for one in client.projects.list() if one["id"] != "default"] == [f"p{n}" for n in range(5)]
    assert [one["subject"] for one in client.projects.members("p0")] == [f"m{n}" for n in range(5)]
    assert len(list(client.projects.members("p0", limit=3))) == 3


def test_a_role_is_taken_even_if_the_answer_is_lost(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client.projects.create("p")
    client.projects.grant("p", "ana", "viewer")
    real = httpx.Client.request
    lost = iter([True])

    def request(self: httpx.Client, method: str, *args: Any, **given: Any) -> httpx.Response:
        answer = real(self, method, *args, **given)
        if method == "DELETE" and next(lost, False):
            raise httpx.ReadError("the connection broke")
        return answer

    monkeypatch.setattr(httpx.Client, "request", request)
    assert client.projects.revoke("p", "ana") is None
    assert list(client.projects.members("p")) == []
    with pytest.raises(ApiError, match="has no role there"):
        client.projects.revoke("p", "ana")


def test_names_that_are_missing_or_odd(client: Client) -> None:
    for call in (
        lambda: client.projects.get(" "),
        lambda: client.projects.revoke(None, ""),
        lambda: client.tokens.revoke(""),
    ):
        with pytest.raises(RequestError):
            call()
    for odd in ("a/b", "..", "a?b", "a#b", "ü"):
        for one in (lambda odd=odd: client.projects.get(odd), lambda odd=odd: client.tokens.revoke(odd)):
            with pytest.raises(ApiError) as caught:
                one()
            assert caught.value.status == 404
