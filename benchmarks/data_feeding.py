"""Feeding text from S3 to a consumer: AstraML against five ways to do it, interleaved, one process per arm and round.

    python3 -m venv PEERS
    PEERS/bin/pip install "torch>=2.9,<2.14" webdataset datasets tokenizers pyarrow s3fs boto3
    PEERS/bin/pip install --no-deps mosaicml-streaming
    PEERS/bin/pip install "torch>=2.9,<2.14" torchvision transformers catalogue zstd Brotli python-snappy xxhash tqdm \\
        pillow matplotlib paramiko   # what it imports
    python benchmarks/data_feeding.py --data FOLDER --peers-python PEERS/bin/python --rounds 3 --output result.json

FOLDER holds train*.parquet with the columns text and label; its rows are repeated up to `--rows`. The server is `rclone
serve s3` on this machine. Everyone has the same tokenizer (made of the rows), length limit and batch size, and hands
over padded ids and classes as tensors; every epoch of every arm must have all rows and the same tokens in all. Each
loader is first tried with each number of `--workers`, and keeps the better one (a single number is taken untried). Each
arm converts the rows into its own format, if it has one, once per round; that counts for its first epoch, and imports
and the start of Ray do not (`start_s`). After the epochs at full speed comes one whose consumer sleeps for `--step-ms`
after each batch: waiting is the share of that time in which it has no batch. A peer that is not installed is reported
as missing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from feeding.bucket import run_case, write_rows, write_tokenizer
from feeding.case import MODULES, Case
from feeding.summary import better_workers, figures_of, summary
from machine import describe_machine

from astraml_ray.cli.s3_server import S3Server, serve_s3

BUCKET = "feed"
CONVERTING = ("mosaicml", "mosaicml, tokenised", "webdataset")
LOADERS = (*CONVERTING, "hugging face", "torch over parquet")
OTHER_PYTHON = (*CONVERTING, "hugging face")
ARMS = tuple(arm for arm in MODULES if arm != "limits")


@dataclass
class Bench:
    """Runs cases, each in a folder of its own.

    Attributes:
        case: What all cases have in common.
        pythons: Interpreter of the peers, and of all others.
        environment: Of every process.
        folder: For all that is written.
    """

    case: Case
    pythons: tuple[str, str]
    environment: dict[str, str]
    folder: Path
    count: int = 0

    def run(self, arm: str, **changes: Any) -> dict[str, Any]:
        """The report of one case."""
        self.count += 1
        case = replace(self.case, arm=arm, scratch=str(self.folder / f"{self.count:04}"), **changes)
        environment = self.environment
        if arm in LOADERS:  # several workers tokenise on a core each, a single one on all
            environment = {**environment, "TOKENIZERS_PARALLELISM": "true" if case.workers == 1 else "false"}
        report = run_case(case, self.pythons[arm not in OTHER_PYTHON], environment)
        said = report.get("failed") or report.get("missing") or "done"
        print(f"{arm}{', conversion' if case.convert else ''}, {case.workers} workers: {said}", file=sys.stderr)
        for line in report.get("said", ()):
            print(f"  {line}", file=sys.stderr)
        return report


def environment_of(server: S3Server, folder: Path) -> dict[str, str]:
    """Of every process: our package and these modules, and the server."""
    places = [str(Path(__file__).parent), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        **server.environment(),
        "S3_ENDPOINT_URL": server.endpoint_url,  # MosaicML's name for it
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_OFFLINE": "1",
    }


def trial(bench: Bench, arm: str, workers: list[int]) -> tuple[int, dict[str, Any]]:
    """The better number of workers for an arm, and the reports that tell so."""
    if arm in CONVERTING:
        converted = bench.run(arm, convert=True)
        if "seconds" not in converted:
            return min(workers), {"conversion": converted}
    reports = {count: bench.run(arm, workers=count, step_s=0.0) for count in workers}
    return better_workers(reports), {str(count): report for count, report in reports.items()}


def one_round(bench: Bench, workers: dict[str, int], number: int) -> dict[str, Any]:
    """Every arm once, each round beginning with another one."""
    limits = bench.run("limits")
    result: dict[str, Any] = {"limits": limits, "reports": {}, "figures": {}}
    arms = list(workers)
    turn = number % len(arms)
    for arm in arms[turn:] + arms[:turn]:
        converted = bench.run(arm, convert=True) if arm in CONVERTING else {"seconds": 0.0}
        report = bench.run(arm, workers=workers[arm]) if "seconds" in converted else converted
        result["reports"][arm] = {"conversion": converted, **report}
        if "epochs" in report:
            complain = wrong(report, bench.case.rows, limits["tokens"])
            if complain:
                raise SystemExit(f"{arm} fed something else: {complain}")
            result["figures"][arm] = figures_of(report, converted["seconds"], limits["text_bytes"])
    return result


def wrong(report: dict[str, Any], rows: int, tokens: int) -> list[Any]:
    """The epochs that have not all rows and all tokens."""
    return [epoch for epoch in report["epochs"] if (epoch["rows"], epoch["tokens"]) != (rows, tokens)]


def measured(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The whole report, anew after each round."""
    with tempfile.TemporaryDirectory() as home, serve_s3(Path(home, "s3")) as server:
        table = write_rows(options.data, Path(home, "s3", BUCKET, "rows"), options.rows)
        write_tokenizer(table, Path(home, "tokenizer.json"))
        case = Case(
            arm="",
            convert=False,
            bucket=BUCKET,
            endpoint_url=server.endpoint_url,
            scratch="",
            tokenizer=str(Path(home, "tokenizer.json")),
            classes=tuple(sorted(table["label"].unique().to_pylist())),
            rows=options.rows,
            max_length=options.max_length,
            batch_size=options.batch_size,
            epochs=options.epochs,
            step_s=options.step_ms / 1000,
            steps=options.steps,
            workers=min(options.workers),
        )
        bench = Bench(
            case, (options.peers_python, sys.executable), environment_of(server, Path(home)), Path(home, "runs")
        )
        report: dict[str, Any] = {"machine": describe_machine(), "settings": settings_of(options), "trials": {}}
        report["peer_versions"] = peer_versions(options.peers_python)
        workers = dict.fromkeys(options.only, min(options.workers))
        for arm in (arm for arm in LOADERS if arm in workers and len(options.workers) > 1):
            workers[arm], report["trials"][arm] = trial(bench, arm, options.workers)
        report |= {"workers": workers, "rounds": []}
        for number in range(options.rounds):
            report["rounds"].append(one_round(bench, workers, number))
            last = report["rounds"][-1]["reports"]
            report["missing"] = {arm: found["missing"] for arm, found in last.items() if "missing" in found}
            report["failed"] = {arm: found["said"] for arm, found in last.items() if "failed" in found}
            report["summary"] = summary(report["rounds"])
            yield report


def peer_versions(python: str) -> dict[str, str]:
    """Versions of what the peers' interpreter has, of the packages that matter."""
    names = "torch mosaicml-streaming webdataset datasets tokenizers pyarrow s3fs boto3"
    code = f"""
import json
from importlib.metadata import distributions
found = {{d.metadata["Name"]: d.version for d in distributions()}}
print(json.dumps({{name: found[name] for name in {names.split()!r} if name in found}}))
"""
    done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What was asked for, without paths."""
    names = ("rows", "rounds", "epochs", "batch_size", "max_length", "workers", "step_ms", "steps")
    return {name: getattr(options, name) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder with train*.parquet: text, label")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has the peers")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="at full speed")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="tried for every loader")
    parser.add_argument("--step-ms", type=float, default=30.0, help="the consumer's step in the slower epoch")
    parser.add_argument("--steps", type=int, default=200, help="of the slower epoch")
    parser.add_argument("--only", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM", help=", ".join(ARMS))
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    for report in measured(options):
        options.output.write_text(json.dumps(report, indent=1))
    print(json.dumps({"missing": report["missing"], "failed": report["failed"], **report["summary"]}, indent=1))


if __name__ == "__main__":
    main()
