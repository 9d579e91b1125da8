"""The benchmarks measure what they say: full pages, every answer counted, and no request lost."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from astraml_ray.cli.s3_server import S3Server
from tests.conftest import write_dataset

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


class Handler(BaseHTTPRequestHandler):
    """Answers 201, each third time 503; each second answer comes in chunks."""

    protocol_version = "HTTP/1.1"
    statuses: Counter[int]

    def do_POST(self) -> None:
        assert self.rfile.read(int(self.headers["Content-Length"])) == b"{}"
        with self.server.lock:  # type: ignore[attr-defined]
            number = self.server.statuses.total()  # type: ignore[attr-defined]
            status = 503 if number % 3 == 2 else 201
            self.server.statuses[status] += 1  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Retry-After", "0")
        if number % 2:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"3\r\n{\r\n\r\n1;x=y\r\n}\r\n0\r\n\r\n")
        else:
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"{\r\n}")

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.lock, made.statuses = threading.Lock(), Counter()  # type: ignore[attr-defined]
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def http_load(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("http_load")


def test_the_generator_counts_every_answer(http_load: Any, server: Any) -> None:
    address = f"http://127.0.0.1:{server.server_port}"
    request = http_load.post_request(address, "/jobs", b"{}", {"Idempotency-Key": "k"})
    load = http_load.closed_loop(address, lambda: request, clients=3, seconds=0.3)
    assert load.statuses == dict(server.statuses)
    assert 0 < load.accepted_per_second * 0.3 <= server.statuses[201]
    assert len(load.latencies_s) <= server.statuses[201]
    assert not any(load.statuses[status] == 0 for status in (201, 503))


def test_a_burst_insists_until_each_is_accepted(http_load: Any, server: Any) -> None:
    address = f"http://127.0.0.1:{server.server_port}"
    request = http_load.post_request(address, "/jobs", b"{}", {})
    answers = http_load.burst(address, request, count=20)
    assert [of[-1].status for of in answers] == [201] * 20
    assert {answer.body for of in answers for answer in of} == {b"{\r\n}"}
    assert Counter(answer.status for of in answers for answer in of) == server.statuses
    assert server.statuses[503] == 9


def test_pages_are_full_in_both_sizes(tmp_path: Path) -> None:
    output = tmp_path / "pages.json"
    command = [sys.executable, str(BENCHMARKS / "store_pages.py"), "--sizes", "1000", "2000", "--repeats", "1"]
    subprocess.run([*command, "--output", str(output)], check=True, capture_output=True)
    cases = json.loads(output.read_text())["sqlite"]["cases"]
    assert len(cases) == 9
    for name, found in cases.items():
        if "few" not in name:
            assert (found["1000"]["rows"], found["2000"]["rows"]) == (50, 50), name


def test_the_benchmark_of_the_service_explains_itself() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "service.py"), "--help"], check=True, capture_output=True, text=True
    )
    assert "--quick" in done.stdout


def test_every_way_of_feeding_is_judged_by_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    summaries: Any = importlib.import_module("feeding.summary")
    epochs = [{"first_batch_s": 1.0, "seconds": 4.0, "rows": 8}, {"first_batch_s": 0.5, "seconds": 2.0, "rows": 8}]
    report = {"epochs": epochs, "start_s": 9.0, "peak_mb": 1.0}
    ours = summaries.figures_of(report, 0.0, 2e6)
    assert (ours["first_epoch_s"], ours["rows_per_second"], ours["mb_per_second"], ours["gap_s"]) == (
        4.0,
        4.0,
        1.0,
        0.5,
    )
    peer = summaries.figures_of(report, 2.0, 2e6)
    limits = {"rows_per_second": {"tokenising": 8.0, "decoding": 80.0}}
    of_round = {"figures": {"astraml, ray": ours, "webdataset": peer}, "limits": limits}
    found = summaries.summary([of_round, of_round])
    assert found["times_as_long_as"]["astraml, ray"]["first_epoch_s"] == {"webdataset": 1.5}
    assert found["share_of_the_lowest_limit"]["webdataset"] == 0.5
    assert summaries.better_workers({1: report, 2: {"failed": "exit 1"}}) == 1


@pytest.mark.parametrize("arm", ["astraml, local", "torch over parquet"])
def test_a_way_of_feeding_hands_over_every_row(
    arm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, s3: S3Server
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    bucket, cases, meter = (importlib.import_module(f"feeding.{name}") for name in ("bucket", "case", "meter"))
    name = f"feed-{arm[:5]}"
    table = bucket.write_rows(write_dataset(tmp_path / "words"), s3.folder / name / "rows", 100)
    bucket.write_tokenizer(table, tmp_path / "tokenizer.json")
    words = {"arm": arm, "convert": False, "bucket": name, "endpoint_url": s3.endpoint_url, "scratch": str(tmp_path)}
    sizes = {"rows": 100, "max_length": 16, "batch_size": 8, "epochs": 2, "workers": 1, "step_s": 0.001, "steps": 3}
    classes = tuple(sorted(table["label"].unique().to_pylist()))
    case = cases.Case(**words, **sizes, tokenizer=str(tmp_path / "tokenizer.json"), classes=classes)
    case.write(tmp_path / "case.json")
    assert cases.Case.read(tmp_path / "case.json") == case
    feed = importlib.import_module(f"feeding.{cases.MODULES[arm]}")
    report = meter.measure(case, feed.epochs(case))
    tokens = sum(map(len, importlib.import_module("feeding.tokens").Tokens(case).ids(table["text"].to_pylist())))
    assert [(epoch["rows"], epoch["tokens"]) for epoch in report["epochs"]] == [(100, tokens)] * 2
    assert report["waiting"]["steps"] == 3
