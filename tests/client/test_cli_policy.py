"""Verbs of policies, of a job's provenance, and of migration; and the client's methods behind them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from astraml_ray.cli.main import main
from astraml_ray.client import ApiError, Client
from astraml_ray.spec.loading import parse_document, parse_spec
from astraml_ray.store.audit import Actor
from astraml_ray.store.projects import create_project
from tests.client.conftest import SPEC, Astraml, LiveService

CAP = "rules:\n  resources.gpus: {max: 4, on_violation: clamp}\n"
OLD = """\
# of last year
project: p-demo
dataset: s3://bucket/dataset
model: bert-base
learning_rate: 3e-5
per_device_batch_size: 8
"""
MINE = ("--project", "p-demo")


@pytest.fixture
def astraml(astraml: Astraml, service: LiveService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Astraml:
    """In a folder of its own, with a project."""
    with service.store.write() as conn:
        create_project(conn, "p-demo", actor=Actor("test"), now=time.time())
    monkeypatch.chdir(tmp_path)
    return astraml


def told(result: Result) -> Any:
    return json.loads(result.stdout)


class TestPolicy:
    def test_what_is_shown_can_be_set_again(self, astraml: Astraml) -> None:
        assert "no policy yet" in astraml("policy", "show", *MINE).stdout
        Path("policy.yaml").write_text(CAP)
        set_one = astraml("policy", "set", "policy.yaml", *MINE, "--note", "nights")
        assert set_one.stdout == "v1 is in force for new jobs\n"
        assert "astraml policy diff --project p-demo" in set_one.stderr
        shown = astraml("policy", "show", *MINE).stdout
        assert shown.startswith("# v1  ")
        assert "root: nights" in shown
        assert parse_document(shown, source="x") == yaml.safe_load(CAP)
        Path("again.yaml").write_text(shown)
        astraml("policy", "set", "again.yaml", *MINE)
        assert astraml("policy", "diff", *MINE).stdout == "v1 and v2 say the same\n"
        assert told(astraml("policy", "show", *MINE, "--version", "1", "--output", "json"))["note"] == "nights"

    def test_versions_differences_and_the_way_back(self, astraml: Astraml) -> None:
        for number, limit in enumerate((4, 2), 1):
            Path("p.json").write_text(json.dumps({"rules": {"resources.gpus": {"max": limit}}}))
            astraml("policy", "set", "p.json", "--organisation", "--expected", str(number - 1))
        assert "changed" in astraml("policy", "set", "p.json", "--organisation", "--expected", "1", code=10).stderr
        assert astraml("policy", "diff", "--organisation").stdout == "resources.gpus: max 4 → 2\n"
        assert "max 2 → 4" in astraml("policy", "diff", "2", "1", "--organisation").stdout
        assert told(astraml("policy", "diff", "0", "--organisation", "--output", "json"))["to"] == 2
        assert astraml("policy", "restore", "1", "--organisation", "--note", "too few").stdout.startswith("v3 ")
        lines = astraml("policy", "versions", "--organisation").stdout.splitlines()
        assert [line.split()[0] for line in lines] == ["v3", "v2", "v1"]
        assert lines[0].endswith("root: too few")
        newest = astraml("policy", "versions", "--organisation", "--limit", "1", "--output", "json")
        assert ([one["version"] for one in told(newest)["data"]], told(newest)["has_more"]) == ([3], True)
        assert "no policy yet" in astraml("policy", "versions", *MINE).stdout
        assert "no version 9" in astraml("policy", "restore", "9", "--organisation", code=10).stderr

    def test_mistakes_name_the_rule_and_the_field(self, astraml: Astraml) -> None:
        Path("p.yaml").write_text("rules:\n  resources.gpsu: {max: 1}\n  hyperparams.lr: {max: high}\n")
        said = astraml("policy", "set", "p.yaml", *MINE, code=10).stderr
        assert "/rules/hyperparams.lr/max" in said
        assert "did you mean 'resources.gpus'" in said
        for text, word in (("rules: {seed: {max: .nan}}", "plain data"), ("- a", "mapping"), ("a: [", "YAML")):
            Path("p.yaml").write_text(text)
            assert word in astraml("policy", "set", "p.yaml", *MINE, code=10).stderr
        assert "cannot be read" in astraml("policy", "replay", "nope.yaml", *MINE, code=10).stderr
        assert "no project" in astraml("policy", "show", "--project", "nope", code=10).stderr
        for scopes in ((), (*MINE, "--organisation")):
            assert "--organisation" in astraml("policy", "show", *scopes, code=2).stderr

    def test_replay(self, astraml: Astraml, client: Client) -> None:
        big = client.submit({**SPEC, "resources": {"gpus": 8}})["id"]
        client.submit(SPEC)
        Path("p.yaml").write_text(f"{CAP}  seed: {{max: 7}}\n")
        lines = astraml("policy", "replay", "p.yaml", *MINE).stdout.splitlines()
        assert lines == [
            "of 2 jobs, 1 would have changed and 0 been rejected",
            f"{big} changed",
            "  resources.gpus 8 → 4",
        ]
        Path("p.yaml").write_text("rules: {labels.team: {require: true}}\n")
        found = told(astraml("policy", "replay", "p.yaml", *MINE, "--last", "1", "--output", "json"))
        assert (found["total"], found["rejected"]) == (1, 1)
        assert "  /labels/team: is required" in astraml("policy", "replay", "p.yaml", *MINE).stdout


class TestProvenance:
    def test_what_policies_have_a_hand_in(self, astraml: Astraml, client: Client) -> None:
        client.policies.set("p-demo", parse_document(CAP, source="x"))
        client.submit({**SPEC, "resources": {"gpus": 8}})
        text = astraml("show", "latest", "--provenance").stdout
        assert "  resources.gpus 4, capped from 8 by project policy v1" in text.splitlines()
        assert "of root, as v2.1" in text
        assert "checkpoint.keep" not in text
        every = astraml("show", "latest", "--provenance", "--all").stdout
        rows = {line.split()[0]: line.split(None, 1)[1] for line in every.split("fields\n")[1].splitlines()}
        assert rows["resources.gpus"] == "4  (project limit v1, was 8)"
        assert rows["checkpoint.keep"] == "2  (built-in)"
        assert rows["model.name"] == '"bert-base"  (request)'
        found = told(astraml("show", "latest", "--provenance", "--output", "json"))
        assert found == client.provenance(found["job_id"])

    def test_what_was_migrated(self, astraml: Astraml, client: Client) -> None:
        client._transport.request("POST", "/v1/jobs", body=parse_document(OLD, source="x"))
        text = astraml("show", "latest", "--provenance").stdout
        assert "as v1.x" in text
        assert "  have no hand in it" in text
        assert "  moved   learning_rate → hyperparams.lr = 3e-05" in text.splitlines()

    def test_options_that_do_not_go_together(self, astraml: Astraml, job_id: str) -> None:
        assert "--provenance" in astraml("show", job_id, "--all", code=2).stderr
        assert "--watch" in astraml("show", job_id, "--provenance", "--watch", code=2).stderr
        assert "no job" in astraml("show", "job-unknown", "--provenance", code=10).stderr


class TestMigrate:
    """Without a service."""

    @pytest.fixture
    def migrated(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("ASTRAML_ADDRESS", "http://127.0.0.1:9")
        Path("old.yaml").write_text(OLD)

        def run(*arguments: str, code: int = 0) -> Result:
            done = CliRunner().invoke(main, ["migrate", *arguments])
            assert done.exit_code == code, f"{done.exit_code}\n{done.stdout}\n{done.stderr}\n{done.exception!r}"
            return done

        return run

    def test_spec_to_stdout_and_report_to_stderr(self, migrated: Any) -> None:
        done = migrated("old.yaml")
        document = parse_document(done.stdout, source="x")
        hyper = parse_spec(document).hyperparams
        assert document["api_version"] == "v2.1"
        assert document["hyperparams"] == {
            "batch_size": 8,
            "lr": 3e-5,
            "lr_scheduler": hyper.lr_scheduler,
            "early_stopping": {"patience": hyper.early_stopping.patience if hyper.early_stopping else None},
        }
        report = done.stderr.splitlines()
        assert "moved   learning_rate → hyperparams.lr = 3e-05" in report
        assert any(line.startswith("default hyperparams.lr_scheduler") for line in report)
        # Last, where it is seen.
        assert report[-1].startswith("verify  per_device_batch_size → hyperparams.batch_size = 8")

    def test_to_migrate_twice_changes_nothing(self, migrated: Any) -> None:
        assert migrated("old.yaml", "-o", "new.yaml").stdout == ""
        Path("new.yaml").write_text(f"# mine\n{Path('new.yaml').read_text()}")
        again = migrated("new.yaml")
        assert again.stdout == Path("new.yaml").read_text()
        assert again.stderr == "new.yaml is v2.1 already\n"

    def test_check_writes_nothing(self, migrated: Any) -> None:
        done = migrated("old.yaml", "--check", "-o", "new.yaml", code=10)
        assert done.stdout == ""
        assert "verify" in done.stderr
        assert not Path("new.yaml").exists()
        Path("new.yaml").write_text(migrated("old.yaml").stdout)
        assert migrated("new.yaml", "--check").stdout == ""

    def test_json_gives_both(self, migrated: Any) -> None:
        found = json.loads(migrated("old.yaml", "--output", "json").stdout)
        assert found["document"] == parse_document(migrated("old.yaml").stdout, source="x")
        assert {move["kind"] for move in found["report"]} == {"moved", "default", "verify"}

    def test_mistakes(self, migrated: Any) -> None:
        Path("old.yaml").write_text(f"{OLD}learning_rte: 1\nlr: 1.0\n")
        done = migrated("old.yaml", "--output", "json", code=10)
        assert {one["param"] for one in json.loads(done.stdout)["error"]["problems"]} == {"/learning_rte", "/lr"}
        assert "/learning_rte: unknown field" in done.stderr
        assert "cannot be read" in migrated("nope.yaml", code=10).stderr
        Path("old.yaml").write_text(OLD)
        assert "cannot be written" in migrated("old.yaml", "-o", "no/such/folder.yaml", code=10).stderr


def test_the_client_refuses_a_project_without_a_name(client: Client) -> None:
    with pytest.raises(Exception, match="name of a project"):
        client.policies.get(" ")
    with pytest.raises(ApiError) as caught:
        client.policies.get("p-demo", 3)
    assert caught.value.status == 404
