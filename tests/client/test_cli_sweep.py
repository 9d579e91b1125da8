"""`astraml sweep`, over real HTTP and recorded trials: the table, the page, the best spec, and training with it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from astraml_ray.cli.sweep_html import sweep_html
from astraml_ray.cli.sweep_page import short_names, sweep_page
from astraml_ray.client import Client
from astraml_ray.client.failures import ApiError
from astraml_ray.control.trials import store_sweep, store_trials
from astraml_ray.errors import RequestError
from astraml_ray.spec.loading import parse_spec
from astraml_ray.store.jobs import get_job
from tests.client.conftest import SPEC, Astraml, LiveService
from tests.sweeps import SWEEP, told_trials

SPACE = {"parameters": {"hyperparams.lr": {"log_uniform": [1e-5, 1e-2]}}}


def tell(service: LiveService, job_id: str, trials: list[Any]) -> None:
    with service.store.write() as conn:
        store_sweep(conn, job_id, SWEEP)
        store_trials(conn, get_job(conn, job_id), trials, now=time.time())


@pytest.fixture
def sweep_id(service: LiveService, client: Client) -> str:
    """A sweep of 27 trials, of which two run."""
    job_id = str(client.submit({**SPEC, "hyperparams": {"epochs": 5}})["id"])
    with service.store.read() as conn:
        spec = get_job(conn, job_id).spec
    service.move(job_id, "starting", "running", spec={**spec, "sweep": SPACE})
    tell(service, job_id, told_trials(27, running=2))
    return job_id


class TestClient:
    def test_a_sweep_and_its_trials(self, client: Client, sweep_id: str) -> None:
        sweep = client.sweeps.get(sweep_id)
        assert (sweep["metric"], sweep["counts"]["running"]) == ("validation/accuracy", 2)
        quick = client.sweeps.get(sweep_id, importance=False)
        assert all(one["importance"] is None for one in quick["parameters"])
        trials = list(client.sweeps.trials(sweep_id))
        assert [one["number"] for one in trials] == list(range(27))
        assert all(one["history"] is None for one in trials)
        best = [one["trial_id"] for one in client.sweeps.trials(sweep_id, sort="metric", limit=3)]
        assert best[0] == client.sweeps.trial(sweep_id)["trial_id"] == sweep["best"]["trial_id"]
        assert len(best) == 3
        some = list(client.sweeps.trials(sweep_id, status=["running", "failed"], history=True))
        assert {one["status"] for one in some} == {"running", "failed"}
        assert all(one["history"] for one in some)

    def test_one_key_makes_one_job(self, client: Client, sweep_id: str) -> None:
        changes = {"hyperparams.epochs": 9}
        first, second = (client.sweeps.retrain(sweep_id, "t0003", changes, idempotency_key="k") for _ in range(2))
        assert first["id"] == second["id"]
        assert (first["parent_id"], first["spec"]["hyperparams"]["epochs"]) == (sweep_id, 9)

    def test_what_is_no_sweep_or_no_trial(self, client: Client, sweep_id: str, job_id: str) -> None:
        for call, code in (
            (lambda: client.sweeps.get(job_id), "not_a_sweep"),
            (lambda: list(client.sweeps.trials(job_id)), "not_a_sweep"),
            (lambda: client.sweeps.trial(sweep_id, "t 1"), "trial_not_found"),
            (lambda: client.sweeps.retrain(sweep_id, "t9999"), "trial_not_found"),
        ):
            with pytest.raises(ApiError) as caught:
                call()
            assert caught.value.code == code
        for missing in (lambda: client.sweeps.get(" "), lambda: client.sweeps.trial(sweep_id, "")):
            with pytest.raises(RequestError, match="missing"):
                missing()


class TestShow:
    def test_the_best_trial_is_first_and_marked(self, astraml: Astraml, client: Client, sweep_id: str) -> None:
        page = astraml("sweep", "show", sweep_id).stdout
        lines = page.splitlines()
        best = client.sweeps.trial(sweep_id)
        assert all(len(line) <= 80 for line in lines)
        assert "max validation/accuracy over 27 trials: 2 running" in page
        assert f"best ★ {best['trial_id']}: {best['best_metric']:.4g} at step" in page
        head = next(at for at, line in enumerate(lines) if line.startswith("TRIAL"))
        assert "LR" in lines[head]
        assert lines[head + 1].startswith(f"★ {best['trial_id']}")
        values = [float(line[2:].split()[1]) for line in lines[head + 1 : head + 28]]
        assert values == sorted(values, reverse=True)
        assert "what matters (PED-ANOVA over 25 trials)" in page
        (bar,) = [line for line in lines if line.startswith("  hyperparams.lr ")]
        assert bar.count("█") > 15

    def test_order_limit_and_json(self, astraml: Astraml, client: Client, sweep_id: str) -> None:
        lines = astraml("sweep", "show", "latest", "--sort", "number", "--limit", "5").stdout.splitlines()
        head = next(at for at, line in enumerate(lines) if line.startswith("TRIAL"))
        assert [line[2:7] for line in lines[head + 1 : head + 6]] == [f"t{n:04}" for n in range(5)]
        assert "and 22 more: --limit 50" in lines
        told = json.loads(astraml("sweep", "show", sweep_id, "--output", "json").stdout)
        assert [one["trial_id"] for one in told["trials"]] == [
            one["trial_id"] for one in client.sweeps.trials(sweep_id, sort="metric")
        ]
        assert told["best"] == client.sweeps.get(sweep_id)["best"]

    def test_watching_ends_with_the_sweep(self, astraml: Astraml, service: LiveService, sweep_id: str) -> None:
        threading.Timer(0.5, service.move, (sweep_id, "cancelled")).start()
        page = astraml("sweep", "show", sweep_id, "--watch").stdout
        assert f"{sweep_id}  sweep cancelled" in page
        assert "what matters" in page
        told = astraml("sweep", "show", sweep_id, "--watch", "--output", "json").stdout.splitlines()
        assert [json.loads(line)["status"] for line in told] == ["cancelled"]

    def test_before_there_is_a_trial_and_what_is_no_sweep(
        self, astraml: Astraml, client: Client, service: LiveService, job_id: str
    ) -> None:
        assert "has no sweep" in astraml("sweep", "show", job_id, code=10).stderr
        service.set(job_id, spec={**client.get_job(job_id)["spec"], "sweep": SPACE})
        page = astraml("sweep", "show", job_id).stdout
        assert "best value over 0 trials" in page
        assert "has not begun" in page
        assert "no trial of job" in astraml("sweep", "best", job_id, code=10).stderr

    @pytest.mark.parametrize("width", [60, 80, 100, 140, 200])
    def test_the_table_fits_any_terminal(self, client: Client, sweep_id: str, width: int) -> None:
        found = {**client.sweeps.get(sweep_id), "trials": list(client.sweeps.trials(sweep_id, sort="metric"))}
        console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        console.print(sweep_page(found, width))
        lines = console.export_text().splitlines()
        console.file.close()
        assert all(len(line) <= width for line in lines)
        rows = [line for line in lines if re.match(r"[★ ] t\d{4} ", line)]
        assert len(rows) == 27
        assert all("0." in row for row in rows)
        assert any("asha_rung" in row for row in rows)
        assert ("COST" in "".join(lines)) == (width >= 100)
        assert ("BATCH_SIZE" in "".join(lines)) == (width >= 80)

    def test_a_trials_text_is_not_the_terminals(self, astraml: Astraml, service: LiveService, sweep_id: str) -> None:
        evil = {**told_trials(1)[0], "reason": "\x1b[31mred\x1b[0m [bold]x[/bold]\nnext", "best_metric": 0.99}
        tell(service, sweep_id, [evil])
        page = astraml("sweep", "show", sweep_id).stdout
        assert "\x1b" not in page
        assert "red [bold]x" in page


def test_short_names_tell_fields_apart() -> None:
    paths = ["hyperparams.lr", "model.dropout", "hyperparams.dropout", "seed"]
    assert short_names(paths) == {
        "hyperparams.lr": "lr",
        "model.dropout": "model.dropout",
        "hyperparams.dropout": "hyperparams.dropout",
        "seed": "seed",
    }


class TestBest:
    def test_the_best_spec_is_a_job_of_its_own(self, astraml: Astraml, client: Client, sweep_id: str) -> None:
        best = client.sweeps.trial(sweep_id)
        text = astraml("sweep", "best", sweep_id).stdout
        assert text.startswith(f"# trial {best['trial_id']} of {sweep_id}")
        spec = parse_spec(yaml.safe_load(text))
        assert spec.hyperparams.lr == best["parameters"]["hyperparams.lr"]
        assert spec.hyperparams.epochs == 5
        assert "sweep" not in yaml.safe_load(text)
        other = json.loads(astraml("sweep", "best", sweep_id, "--trial", "t0002", "--output", "json").stdout)
        assert other["trial"]["trial_id"] == "t0002"
        assert other["spec"]["hyperparams"]["lr"] == other["trial"]["parameters"]["hyperparams.lr"]

    def test_training_again(self, astraml: Astraml, client: Client, sweep_id: str) -> None:
        done = astraml("sweep", "retrain", sweep_id, "--trial", "t0003", "--set", "hyperparams.epochs=7")
        made = client.get_job(done.stdout.split()[0])
        assert (made["parent_id"], made["relation"], made["kind"]) == (sweep_id, "retrain", "training")
        assert made["spec"]["hyperparams"]["epochs"] == 7
        assert "idempotency key" in done.stderr
        assert "retrain of" in astraml("show", made["id"]).stdout
        assert "of 27 trials" in astraml("show", sweep_id).stdout


class Page(HTMLParser):
    """Checks that elements close in the order in which they opened, and gathers what a test wants to see."""

    VOID = frozenset({"meta", "br", "link", "img", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.rows = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        self.rows += tag == "tr"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag


def data_of(page: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match is not None
    return dict(json.loads(match[1]))


class TestPlot:
    def test_one_page_with_everything_in_it(self, astraml: Astraml, tmp_path: Path, sweep_id: str) -> None:
        target = tmp_path / "sweep.html"
        done = astraml("sweep", "plot", sweep_id, "-o", str(target))
        assert done.stdout == f"{target}  27 trials\n"
        page = target.read_text()
        parser = Page()
        parser.feed(page)
        parser.close()
        assert (parser.open, parser.rows) == ([], 28)
        assert not re.search(r"https?:|//[a-z]|@import|url\(", page), "it refers to something outside"
        assert not {name for name, _ in parser.attributes} & {"src", "href", "srcset", "action"}
        assert "default-src 'none'" in page
        data = data_of(page)
        assert len(data["trials"]) == 27
        assert all(trial["history"] for trial in data["trials"])
        assert {one["path"]: one["scale"] for one in data["parameters"]}["hyperparams.lr"] == "log"
        assert not re.search(r"@[A-Z]+@", page)

    def test_texts_of_trials_are_texts(self, client: Client, sweep_id: str) -> None:
        sweep, (trial, *_) = client.sweeps.get(sweep_id), list(client.sweeps.trials(sweep_id, history=True))
        evil = "</script><script>alert(1)</script>@DATA@<img src=x onerror=alert(2)>"
        trial |= {"reason": evil, "parameters": {"hyperparams.lr": evil}}
        page = sweep_html({**sweep, "metric": evil}, [trial])
        parser = Page()
        parser.feed(page)
        assert parser.open == []
        assert page.count("<script") == 2
        assert "<img" not in page
        assert data_of(page)["trials"][0]["reason"] == evil

    @pytest.mark.parametrize("told", [[], [{**told_trials(1)[0], "best_metric": None, "history": []}]])
    def test_a_page_without_values(self, client: Client, service: LiveService, job_id: str, told: list[Any]) -> None:
        service.set(job_id, spec={**client.get_job(job_id)["spec"], "sweep": SPACE})
        tell(service, job_id, told)
        page = sweep_html(client.sweeps.get(job_id), list(client.sweeps.trials(job_id, history=True)))
        assert data_of(page)["best"] is None
        assert "Not known: needs 4 trials" in page

    def test_a_file_that_cannot_be_written(self, astraml: Astraml, tmp_path: Path, sweep_id: str) -> None:
        done = astraml("sweep", "plot", sweep_id, "-o", str(tmp_path / "none" / "x.html"), code=30)
        assert "cannot be written" in done.stderr
        told = json.loads(astraml("sweep", "plot", sweep_id, "-o", str(tmp_path / "x"), "--output", "json").stdout)
        assert told == {"job_id": sweep_id, "file": str(tmp_path / "x"), "trials": 27}

    @pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no browser here")
    def test_a_browser_draws_it(self, client: Client, tmp_path: Path, sweep_id: str) -> None:
        target = tmp_path / "sweep.html"
        page = sweep_html(client.sweeps.get(sweep_id), list(client.sweeps.trials(sweep_id, history=True)))
        key = 'document.querySelector(".hit").dispatchEvent(new KeyboardEvent("keydown",{key:"ArrowUp"}))'
        target.write_text(page.replace("</body>", f"<script>{key}</script></body>"))
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        done = subprocess.run(
            [*command, "--dump-dom", f"file://{target}"], capture_output=True, text=True, timeout=120, check=True
        )
        drawn = done.stdout
        assert len(re.findall(r'<path class="trial [^"]*curve', drawn)) == 27
        assert len(re.findall(r'<path class="trial (?:[a-z]+ )+[^"]*" data-trial="t\d+" d="M[^"]*C', drawn)) == 27
        dots = re.findall(r'<circle class="trial [^"]*" data-trial="t\d+" cx="[\d.]+" cy="[\d.]+" r="4"', drawn)
        assert len(dots) == 3 * 27
        assert "of 27 trials are in the ranges" in drawn
        assert "NaN" not in drawn.partition("<script")[0]
