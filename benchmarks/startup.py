"""Seconds from a command to its first step and to its end: `astraml run`, with and without its fork server, plain Ray.

The same small run of BERT's shape, rows on local disk, every arm a process of its own on a Ray that it starts, in turn.
Plain Ray is a TorchTrainer over Ray Data as its guide shows it, with the model folder that AstraML made: it makes no
plan, checkpoint, evaluation or log. The first step is timed in the worker.

    python benchmarks/startup.py --rounds 3 --output benchmarks/results/startup_2cpu.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from machine import describe_machine
from sweeps import document, model_folder, write_rows

WITHOUT = """
import sys
from astraml_ray.cli.run import train_spec
from astraml_ray.settings import load_settings
from astraml_ray.spec.loading import build_spec, read_document
from pathlib import Path
spec = build_spec(read_document(Path(sys.argv[1])), settings=(), flags={}, source="file")
train_spec(spec, sys.argv[2], load_settings())
"""

PLAIN = """
import sys, time
import ray, ray.data, ray.train
from ray.train.torch import TorchTrainer, prepare_model

data, model, storage, workers, batch, steps, mark = sys.argv[1:4] + [int(n) for n in sys.argv[4:7]] + sys.argv[7:]

def tokenise(rows):
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(model)
    found = tokenizer(list(rows["text"]), truncation=True, max_length=64, padding="max_length", return_tensors="np")
    names = {"a": 0, "b": 1, "c": 2, "d": 3}
    import numpy as np
    return {**found, "labels": np.array([names[label] for label in rows["label"]])}

def train(config):
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification
    net = prepare_model(AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(model, num_labels=4)))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    done = 0
    while done < steps:
        for inputs in ray.train.get_dataset_shard("train").iter_torch_batches(batch_size=batch // workers):
            net(**inputs).loss.backward()
            optimizer.step(); optimizer.zero_grad()
            done += 1
            if done == 1 and ray.train.get_context().get_world_rank() == 0:
                open(mark, "w").write(str(time.time()))
            if done == steps:
                break
    ray.train.report({"steps": done})

ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="error")
TorchTrainer(
    train, datasets={"train": ray.data.read_parquet(f"{data}/train.parquet").map_batches(tokenise)},
    scaling_config=ray.train.ScalingConfig(num_workers=workers), run_config=ray.train.RunConfig(storage_path=storage),
).fit()
"""


def timed(command: list[str]) -> tuple[float, float]:
    """When it began, as time.time() has it, and how long it took."""
    began, started = time.time(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    return began, time.perf_counter() - started


def astraml(file: Path, home: Path, *, forks: bool) -> dict[str, float]:
    """One run; its first record tells when the first step was done."""
    storage = Path(tempfile.mkdtemp(dir=home))
    command = [sys.executable, "-m", "astraml_ray", "run", "-f", str(file), "--storage", str(storage)]
    began, whole = timed(command if forks else [sys.executable, "-c", WITHOUT, str(file), str(storage)])
    (metrics,) = storage.glob("*/metrics.jsonl")
    first = json.loads(metrics.read_text().splitlines()[0])
    if first["step"] != 1:
        raise SystemExit(f"the first record is of step {first['step']}")
    return {"first_step_s": first["time"] - began, "whole_s": whole}


def plain(data: Path, model: Path, home: Path, workers: int, *, batch: int, steps: int) -> dict[str, float]:
    """One TorchTrainer."""
    mark = Path(tempfile.mkdtemp(dir=home)) / "mark"
    numbers = [str(number) for number in (workers, batch, steps)]
    began, whole = timed([sys.executable, "-c", PLAIN, str(data), str(model), str(home), *numbers, str(mark)])
    return {"first_step_s": float(mark.read_text()) - began, "whole_s": whole}


def rounds(home: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All arms, each in turn, for each number of workers."""
    data = write_rows(home / "rows", rows=options.rows)
    spec = {name: part for name, part in document(data, [], 1000).items() if name != "sweep"}
    model = model_folder(spec, home)
    batch, epochs = spec["hyperparams"]["batch_size"], spec["hyperparams"]["epochs"]
    steps = epochs * -(-options.rows // batch)
    found = []
    for _ in range(options.rounds):
        for workers in options.workers:
            file = home / "spec.yaml"
            file.write_text(yaml.safe_dump({**spec, "resources": {"gpus": 0, "workers": workers}}))
            arms = {
                "astraml": astraml(file, home, forks=True),
                "astraml_without": astraml(file, home, forks=False),
                "plain_ray": plain(data, model, home, workers, batch=batch, steps=steps),
            }
            found.append({"workers": workers, "steps": steps, **arms})
            print(json.dumps(found[-1]), flush=True)
    return found


def ratios(found: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over the rounds of the others' time to ours."""
    return {
        f"{other}_{what}_to_astraml_{workers}_workers": round(
            statistics.median(r[other][what] / r["astraml"][what] for r in found if r["workers"] == workers), 2
        )
        for workers in sorted({r["workers"] for r in found})
        for other in ("astraml_without", "plain_ray")
        for what in ("first_step_s", "whole_s")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    report: dict[str, Any] = {"machine": describe_machine()}
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["ASTRAML_CACHE"] = str(Path(temporary) / "cache")
        report["rounds"] = rounds(Path(temporary), options)
    report["median_ratios"] = ratios(report["rounds"])
    options.output.write_text(json.dumps(report, indent=1))
    print(json.dumps(report["median_ratios"], indent=1))


if __name__ == "__main__":
    main()
