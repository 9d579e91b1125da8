"""The OpenAPI document is true: every answer is described by it, and none is a 5xx."""

from __future__ import annotations

import contextlib
import itertools
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig

from astraml_ray.access.issuing import ensure_admin_token
from astraml_ray.api.app import ApiLimits, Services, build_app
from astraml_ray.control.trials import store_sweep, store_trials
from astraml_ray.spec.states import JobStatus
from astraml_ray.store.attempts import begin_attempt, end_attempt
from astraml_ray.store.engine import open_store
from astraml_ray.store.jobs import get_job, update_job
from astraml_ray.store.leases import acquire_lease
from tests.api.conftest import REFERENCE, Api, FakeValidator
from tests.api.test_artifacts import fill
from tests.api.test_records import START, add_lines, add_metrics, line
from tests.sweeps import SWEEP, told_trials

load_all_checks()
CHECKS = [
    schemathesis.checks.CHECKS.get_one(name)
    for name in (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
        "response_headers_conformance",
        "negative_data_rejection",
    )
]


def make_jobs(api: Api, folder: Path) -> list[str]:
    """A job in each state, one of them with everything that a job can have."""
    fill(folder / "run")
    full, running, queued, cancelled, swept = (api.new_job() for _ in range(5))
    api.move(running, JobStatus.STARTING, JobStatus.RUNNING)
    api.move(cancelled, JobStatus.CANCELLED)
    api.move(full, JobStatus.STARTING, JobStatus.RUNNING)
    with api.store.write() as conn:
        begin_attempt(conn, full, now=START, first_step=0)
        end_attempt(conn, full, 1, "failed", now=START, error={"code": "infrastructure", "message": "lost", "rank": 1})
    add_lines(api, full, *(line(n, f"line {n}") for n in (1, 2, 5)))
    add_metrics(api, full, loss=[(START, 0, 1.5), (START + 400, 1, math.nan)])
    progress = {"step": 3, "total_steps": 9, "epoch": 0.3, "epochs": 1, "fraction": 0.3, "eta_s": [3.0, 9.5]}
    api.move(
        full,
        JobStatus.FAILED,
        run_path=str(folder / "run"),
        progress={**progress, "metrics": {"validation/loss": 0.5}},
        warnings=[{"param": "/limits", "message": "m", "hint": None}],
        error={"code": "numeric", "message": "NaN", "rank": 0, "suggested_patch": {"hyperparams.lr": 1e-5}},
        result={"steps": 9, "best_step": 6, "metrics": {}},
    )
    api.move(queued, wait={"message": "needs 1 GPU; the cluster has 0", "would_start_with": {"resources.gpus": 0}})
    with api.store.write() as conn:
        job = get_job(conn, swept)
        update_job(conn, swept, spec={**job.spec, "sweep": {"parameters": {"hyperparams.lr": {"choice": [1e-4]}}}})
        store_sweep(conn, swept, SWEEP)
        store_trials(conn, job, told_trials(9, running=1), now=START)
    return [full, running, queued, cancelled, swept]


@pytest.fixture(scope="module")
def world(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Api, list[str]]]:
    folder = tmp_path_factory.mktemp("openapi")
    store = open_store(f"sqlite:///{shutil.copy(sqlite_template, folder / 'astraml.db')}")
    acquire_lease(store, "controller", "host", ttl_s=1e9, now=START)
    validator = FakeValidator()
    limits = ApiLimits(poll_s=0.005, max_poll_s=0.01, settle_s=0.0, max_stream_s=0.02)
    fields: dict[str, Any] = {"limits": limits, "clock": lambda: START, "keys": folder / "master.key"}
    services = Services(store=store, validator=validator, nudge=lambda: None, **fields)
    app = build_app(services)
    # Of START too, which is the app's time.
    token = ensure_admin_token(store, folder / "token", subject="root", now=START)
    with TestClient(app, headers={"Authorization": f"Bearer {token}"}) as client:
        api = Api(services, app, client, validator)
        yield api, make_jobs(api, folder)
    store.close()


@pytest.fixture(scope="module")
def api_schema(world: tuple[Api, list[str]]) -> Any:
    generation = GenerationConfig(deterministic=True, max_examples=20, database="none")
    config = SchemathesisConfig(projects=ProjectsConfig(default=ProjectConfig(generation=generation)))
    return schemathesis.openapi.from_asgi("/openapi.json", world[0].app, config=config, headers=world[0].auth)


SETTINGS = settings(
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize(("mode", "examples"), [(GenerationMode.POSITIVE, 20), (GenerationMode.NEGATIVE, 5)])
def test_every_answer_is_documented(
    api_schema: Any, world: tuple[Api, list[str]], mode: GenerationMode, examples: int
) -> None:
    turns = itertools.count()
    operations = [found.ok() for found in api_schema.get_all_operations()]
    assert len(operations) >= 18
    for operation in operations:

        @settings(SETTINGS, max_examples=examples)
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: schemathesis.Case) -> None:
            # Most are of jobs and projects that there are.
            there = {"job_id": world[1][(turn := next(turns)) % len(world[1])], "project_id": "p-demo"}
            there["trial_id"] = f"t{turn % 9:04}"
            for name in there if turn % 6 else ():
                if name in (case.path_parameters or {}):
                    case.path_parameters[name] = there[name]
            case.call_and_validate(checks=CHECKS)

        with contextlib.suppress(Unsatisfiable):  # nothing that it takes can be wrong
            check()


def test_the_reference_request_is_in_the_documents_terms(world: tuple[Api, list[str]]) -> None:
    document = world[0].client.get("/openapi.json").json()
    body = document["paths"]["/v2.1/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/JobSpecInput"}
    fields = document["components"]["schemas"]["JobSpecInput"]["properties"]
    assert set(REFERENCE) <= set(fields)


def test_every_reference_leads_somewhere(world: tuple[Api, list[str]]) -> None:
    document = world[0].client.get("/openapi.json").json()
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}

    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for key, item in value.items():
                if key == "$ref":
                    yield str(item)
                elif key == "mapping":
                    yield from item.values()
                else:
                    yield from references(item)
        elif isinstance(value, list):
            for item in value:
                yield from references(item)

    assert set(references(document)) <= known


def test_every_operation_is_described(world: tuple[Api, list[str]]) -> None:
    document = world[0].client.get("/openapi.json").json()
    names = []
    for path, operations in document["paths"].items():
        for operation in operations.values():
            names.append(operation["operationId"])
            assert operation["summary"], path
            assert operation["description"], path
            assert {"422", "500", "503"} <= set(operation["responses"]), path
            for status, response in operation["responses"].items():
                assert "X-Request-Id" in response["headers"]
                if status >= "400":
                    assert list(response["content"]) == ["application/problem+json"]
    assert len(set(names)) == len(names)
