"""Sweeps over HTTP: their trials in pages, how they go, what matters, and a job of a trial's parameters."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import httpx
import pytest

from astraml_ray.access.issuing import issue_personal_token
from astraml_ray.access.permissions import Role
from astraml_ray.access.tokens import Principal
from astraml_ray.api.importance import FEWEST, importance_of, scale_of
from astraml_ray.control.trials import store_sweep, store_trials
from astraml_ray.spec.states import JobStatus
from astraml_ray.store.audit import Actor
from astraml_ray.store.jobs import get_job
from astraml_ray.store.projects import set_member
from astraml_ray.store.trials import TrialRecord
from tests.api.conftest import REFERENCE, Api
from tests.sweeps import SWEEP, sweep_result, told_trials

SPACE = {"parameters": {"hyperparams.lr": {"log_uniform": [1e-5, 1e-2], "choice": None}}}


def new_sweep(api: Api, trials: list[Any], **fields: Any) -> str:
    """A sweep that runs and has told of these trials."""
    job_id = str(api.submit().json()["id"])
    with api.store.read() as conn:
        spec = get_job(conn, job_id).spec
    api.move(job_id, JobStatus.STARTING, JobStatus.RUNNING, spec={**spec, "sweep": SPACE}, **fields)
    with api.store.write() as conn:
        store_sweep(conn, job_id, SWEEP)
        store_trials(conn, get_job(conn, job_id), trials, now=time.time())
    return job_id


def get(api: Api, path: str, answers: int = 200, **params: Any) -> dict[str, Any]:
    answer = api.client.get(path, params=params)
    assert answer.status_code == answers, answer.text
    return dict(answer.json())


def all_ids(api: Api, job_id: str, **params: Any) -> list[str]:
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = get(api, f"/v2.1/jobs/{job_id}/trials", **cursor, **params)
        found += [trial["trial_id"] for trial in page["data"]]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


def test_pages_of_trials_on_both_databases(either_api: Api) -> None:
    api, trials = either_api, told_trials(23, running=2)
    # As they are written with all their digits, and with exponents.
    for trial, value in zip(
        trials, (0.012345678901234567, 1 / 999, 1.5e-05, 2e-310, -3.3e-07, 0.0, 1e22), strict=False
    ):
        trial["best_metric"] = value
    job_id = new_sweep(api, trials)
    by_number = [trial["trial_id"] for trial in trials]
    by_metric = [one["trial_id"] for one in sorted(trials, key=lambda t: (-t["best_metric"], t["number"]))]
    for limit in (1, 5, 23, 200):
        assert all_ids(api, job_id, limit=limit) == by_number
        assert all_ids(api, job_id, limit=limit, sort="metric") == by_metric
    running = all_ids(api, job_id, limit=1, status="running,failed")
    assert running == [trial["trial_id"] for trial in trials if trial["status"] in ("running", "failed")]


def test_a_trial(api: Api) -> None:
    trials = told_trials(6)
    job_id = new_sweep(api, trials)
    found = get(api, f"/v2.1/jobs/{job_id}/trials/t0004")
    assert found["error"]["code"] == "numeric"
    assert found["error"]["hint"]
    assert found["history"] == trials[4]["history"]
    assert found["gpu_hours"] == pytest.approx(trials[4]["gpu_seconds"] / 3600)
    assert found["started_at"] == "2027-01-15T08:01:20.000Z"
    (listed,) = get(api, f"/v2.1/jobs/{job_id}/trials", status="failed")["data"]
    assert listed == {**found, "history": None}
    (whole,) = get(api, f"/v2.1/jobs/{job_id}/trials", status="failed", history=True)["data"]
    assert whole == found
    best = max((one for one in trials if one["status"] != "failed"), key=lambda one: one["best_metric"])
    assert get(api, f"/v2.1/jobs/{job_id}/trials/best")["trial_id"] == best["trial_id"]


@pytest.mark.parametrize("trial_id", ["t9999", "T0001", "x" * 300, "%00", "best%20"])
def test_a_trial_that_is_not_there(api: Api, trial_id: str) -> None:
    job_id = new_sweep(api, told_trials(3))
    assert get(api, f"/v2.1/jobs/{job_id}/trials/{trial_id}", 404)["code"] == "trial_not_found"


def test_a_sweep_without_a_value_has_no_best_trial(api: Api) -> None:
    job_id = new_sweep(api, [])
    assert get(api, f"/v2.1/jobs/{job_id}/trials/best", 404)["code"] == "trial_not_found"
    assert api.client.post(f"/v2.1/jobs/{job_id}/trials/best:retrain").json()["code"] == "trial_not_found"
    sweep = get(api, f"/v2.1/jobs/{job_id}/sweep")
    assert (sweep["best"], sweep["parameters"], sweep["planned"]) == (None, [], 27)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("status=done", "status"),
        ("sort=lr", "sort"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=bnVtYmVyOjM6dDAwMDM&sort=metric", "cursor"),  # of the other order
        ("history=maybe", "history"),
        ("best=true", "best"),
    ],
)
def test_invalid_queries(api: Api, query: str, param: str) -> None:
    answer = api.client.get(f"/v2.1/jobs/{new_sweep(api, told_trials(3))}/trials?{query}")
    assert (answer.status_code, answer.json()["param"]) == (422, param), answer.text


def test_the_sweep_as_a_whole(api: Api) -> None:
    trials = told_trials(27, running=2)
    job_id = new_sweep(api, trials)
    sweep = get(api, f"/v2.1/jobs/{job_id}/sweep")
    assert {name: sweep[name] for name in ("metric", "mode", "algorithm", "scheduler")} == {
        name: SWEEP[name] for name in ("metric", "mode", "algorithm", "scheduler")
    }
    assert sweep["counts"]["running"] == 2
    assert sum(sweep["counts"].values()) == sweep["planned"] == 27
    assert sweep["best"]["trial_id"] == get(api, f"/v2.1/jobs/{job_id}/trials/best")["trial_id"]
    assert sweep["cost"]["gpu_hours"] == pytest.approx(sum(one["gpu_seconds"] for one in trials) / 3600)
    assert sweep["cost"]["seconds"] >= 0
    # The data were made so: the learning rate decides, and its scheduler has no part in it.
    assert sweep["parameters"][0]["path"] == "hyperparams.lr"
    assert {one["path"]: one["scale"] for one in sweep["parameters"]} == {
        "hyperparams.lr": "log",
        "hyperparams.batch_size": "linear",
        "hyperparams.lr_scheduler": "choice",
    }
    assert sum(one["importance"] for one in sweep["parameters"]) == pytest.approx(1)
    assert sweep["importance"] == {"evaluator": "ped_anova", "trials": 25, "reason": None}
    again = get(api, f"/v2.1/jobs/{job_id}/sweep")
    assert again == {**sweep, "cost": again["cost"]}
    quick = get(api, f"/v2.1/jobs/{job_id}/sweep", importance=False)
    assert [one["importance"] for one in quick["parameters"]] == [None, None, None]


def test_an_ended_sweeps_cost_is_what_it_says_itself(api: Api) -> None:
    trials = told_trials(5)
    result = {"sweep": sweep_result(trials, gpu_hours=12.5)}
    job_id = new_sweep(api, trials, result=result)
    cost = get(api, f"/v2.1/jobs/{job_id}/sweep")["cost"]
    assert (cost["seconds"], cost["gpu_hours"]) == (900.0, 12.5)


def test_importance_says_why_there_is_none(api: Api) -> None:
    job_id = new_sweep(api, told_trials(FEWEST, running=2, failed=()))
    sweep = get(api, f"/v2.1/jobs/{job_id}/sweep")
    assert "needs 4 trials" in sweep["importance"]["reason"]
    assert all(one["importance"] is None for one in sweep["parameters"])
    same = [TrialRecord("j", f"t{n}", n, "stopped", {"lr": 10.0**-n}, best_metric=0.5, score=0.5) for n in range(8)]
    assert importance_of(same, {"lr": "log"}).reason == "all trials have the same value"
    fixed = [replace(one, parameters={"lr": 1e-4}, score=float(one.number)) for one in same]
    assert importance_of(fixed, {"lr": "log"}).reason == "no parameter has two values"
    assert importance_of([replace(one, status="running") for one in same], {"lr": "log"}).trials == 0


@pytest.mark.parametrize(
    ("values", "declared", "scale"),
    [
        ([1e-5, 1e-2], None, "log"),
        ([1e-3, 2e-3], None, "linear"),
        ([1e-3, 2e-3], {"log_uniform": [1e-3, 1e-2], "uniform": None}, "log"),
        ([1e-5, 1e-2], {"uniform": [0, 1], "log_uniform": None}, "linear"),
        ([1, 1000], {"int_uniform": [1, 1000]}, "linear"),
        ([0, 1000], None, "linear"),
        ([16, "auto"], None, "choice"),
        ([True, False], None, "choice"),
        ([1e-5, 1e-4, 1e-2], {"choice": [1e-5, 1e-4, 1e-2]}, "log"),
        ([[1, 2], None], None, "choice"),
    ],
)
def test_scales(values: list[Any], declared: Any, scale: str) -> None:
    assert scale_of(values, declared) == scale


def test_a_job_that_is_no_sweep_says_so(api: Api) -> None:
    job_id = api.submit().json()["id"]
    for path in ("sweep", "trials", "trials/t0001", "trials/best"):
        problem = get(api, f"/v2.1/jobs/{job_id}/{path}", 409)
        assert (problem["code"], problem["param"]) == ("not_a_sweep", "job_id")
    assert api.client.post(f"/v2.1/jobs/{job_id}/trials/best:retrain").json()["code"] == "not_a_sweep"
    assert get(api, "/v2.1/jobs/job-none/sweep", 404)["code"] == "job_not_found"
    job = get(api, f"/v2.1/jobs/{job_id}")
    assert (job["kind"], "trials" in job["links"]) == ("training", False)
    sweep = get(api, f"/v2.1/jobs/{new_sweep(api, [])}")
    assert (sweep["kind"], sweep["links"]["trials"]) == ("sweep", f"/v2.1/jobs/{sweep['id']}/trials")
    assert {one["kind"] for one in get(api, "/v2.1/jobs")["data"]} == {"training", "sweep"}


def retrain(api: Api, job_id: str, trial_id: str, body: Any = None, **headers: str) -> httpx.Response:
    return api.client.post(f"/v2.1/jobs/{job_id}/trials/{trial_id}:retrain", json=body, headers=headers)


def test_a_trial_is_trained_again_at_full_length(api: Api) -> None:
    trials = told_trials(9)
    job_id = new_sweep(api, trials)
    answer = retrain(api, job_id, "t0003")
    assert answer.status_code == 201, answer.text
    job = answer.json()
    wanted = trials[3]["parameters"]
    assert job["spec"]["hyperparams"]["lr"] == wanted["hyperparams.lr"]
    assert job["spec"]["hyperparams"]["batch_size"] == wanted["hyperparams.batch_size"]
    assert job["spec"]["hyperparams"]["epochs"] == REFERENCE["hyperparams"]["epochs"]
    assert (job["kind"], job["parent_id"], job["relation"]) == ("training", job_id, "retrain")
    assert not job["spec"].get("sweep")
    longer = retrain(api, job_id, "best", {"set": {"hyperparams.epochs": 20}}).json()
    best = get(api, f"/v2.1/jobs/{job_id}/trials/best")["parameters"]
    assert longer["spec"]["hyperparams"]["epochs"] == 20
    assert longer["spec"]["hyperparams"]["lr"] == best["hyperparams.lr"]


def test_a_repeated_request_makes_one_job_even_if_another_trial_is_the_best_by_now(api: Api) -> None:
    trials = told_trials(9)
    job_id = new_sweep(api, trials)
    first = retrain(api, job_id, "best", **{"Idempotency-Key": "k"})
    with api.store.write() as conn:
        store_trials(conn, get_job(conn, job_id), [{**trials[0], "best_metric": 0.999}], now=time.time())
    again = retrain(api, job_id, "best", **{"Idempotency-Key": "k"})
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json() == first.json()
    other = retrain(api, job_id, "t0001", **{"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert retrain(api, job_id, "best", **{"Idempotency-Key": "l"}).json()["id"] != first.json()["id"]


def test_what_a_retraining_is_refused_for(api: Api) -> None:
    job_id = new_sweep(api, told_trials(9))
    wrong = retrain(api, job_id, "best", {"sets": {}}).json()
    assert (wrong["code"], wrong["param"]) == ("invalid_parameter", "/sets")
    assert retrain(api, job_id, "best", {"set": {"hyperparams.lr": -1}}).json()["code"] == "invalid_spec"
    secret = {"set": {"dataset.credentials": {"secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}}}
    assert retrain(api, job_id, "best", secret).json()["code"] == "inline_secret"
    assert retrain(api, job_id, "t0099").json()["code"] == "trial_not_found"


def test_a_viewer_looks_and_makes_nothing(api: Api) -> None:
    job_id = new_sweep(api, told_trials(3))
    now = time.time()
    with api.store.write() as conn:
        set_member(conn, "p-demo", "vi", "viewer", actor=Actor("test"), now=now)
        text, _ = issue_personal_token(conn, Principal("t" * 12, "root", Role.ORG_ADMIN), "vi", now=now)
    headers = {"Authorization": f"Bearer {text}"}
    for path in ("sweep", "trials", "trials/t0001"):
        assert api.client.get(f"/v2.1/jobs/{job_id}/{path}", headers=headers).status_code == 200
    refused = retrain(api, job_id, "t0001", **headers)
    assert (refused.status_code, refused.json()["permission"]) == (403, "job.submit")
