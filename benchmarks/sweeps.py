"""Trials per hour of a sweep: AstraML, plain Ray Tune with Ray Train, and Optuna in one process; and ASHA's saving.

Same points of the same space, same rows, same weights' shape, same optimizer steps and evaluations, same number of
trials at a time (Optuna: one, with all threads), interleaved. Plain Tune runs as Ray's guide says: a driver function
per trial that runs a TorchTrainer of one worker and reports by TuneReportCallback. The time is that of the whole
command, start-up included; trials per hour are also given without the shortest command of one trial.

    python benchmarks/sweeps.py --rounds 3 --trials 16 --output benchmarks/results/sweeps_2cpu.json
    python benchmarks/sweeps.py --rounds 3 --only asha --output out.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from machine import describe_machine

BATCH, EPOCHS, EVALUATIONS, LENGTH = 32, 2, 4, 64
ASHA_EPOCHS, ASHA_EVALUATIONS = 4, 32  # rungs at 1, 4 and 16 of them: fewer could not stop a trial early
RATES, SEED = [1e-5, 1e-2], 5

PEER = '''
import json, math, sys, time
import pyarrow.parquet as pq

data, model, batch, epochs, evaluations, length = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:7])
points, concurrent, cores = json.loads(sys.argv[7]), int(sys.argv[8]), int(sys.argv[9])

def train(lr, threads, report):
    """A plain torch loop: AdamW, cosine over all steps, a validation loss at each evaluation."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(model)
    def rows(split):
        table = pq.read_table(f"{data}/{split}.parquet")
        return table["text"].to_pylist(), table["label"].to_pylist()
    texts, labels = rows("train")
    names = sorted(set(labels))
    def encoded(texts):
        return tokenizer(texts, truncation=True, max_length=length)["input_ids"]
    def batches(ids, labels, order):
        for start in range(0, len(order), batch):
            part = order[start:start + batch]
            padded = tokenizer.pad({"input_ids": [ids[i] for i in part]}, return_tensors="pt")
            yield padded, torch.tensor([names.index(labels[i]) for i in part])
    ids, (held_texts, held_labels) = encoded(texts), rows("validation")
    held = encoded(held_texts)
    config = AutoConfig.from_pretrained(model, num_labels=len(names))
    net = AutoModelForSequenceClassification.from_config(config)
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, fused=True)
    total = epochs * math.ceil(len(ids) / batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: 0.5 * (1 + math.cos(math.pi * min(1, s / total))))
    step, every = 0, math.ceil(total / evaluations)
    for epoch in range(epochs):
        order = torch.randperm(len(ids)).tolist()
        for inputs, targets in batches(ids, labels, order):
            loss = torch.nn.functional.cross_entropy(net(**inputs).logits, targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step(); schedule.step(); optimizer.zero_grad()
            step += 1
            if step % every == 0 or step == total:
                net.eval()
                with torch.inference_mode():
                    sums = [torch.nn.functional.cross_entropy(net(**i).logits, t, reduction="sum").item()
                            for i, t in batches(held, held_labels, list(range(len(held))))]
                net.train()
                report({"loss": sum(sums) / len(held), "step": step})
'''

PLAIN = (
    PEER
    + """
import os, tempfile
import ray, ray.train
from ray import tune
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

def worker(config):
    train(config["lr"], max(1, cores // concurrent), lambda record: ray.train.report(record))

def driver(config):
    TorchTrainer(
        worker, train_loop_config=config, scaling_config=ray.train.ScalingConfig(num_workers=1),
        run_config=ray.train.RunConfig(name=f"trial-{tune.get_context().get_trial_id()}", storage_path=home,
                                       callbacks=[TuneReportCallback()]),
    ).fit()

home = tempfile.mkdtemp()
ray.init(address="local", num_cpus=cores + 2, include_dashboard=False, log_to_driver=False, logging_level="error")
results = tune.Tuner(
    tune.with_resources(driver, {"CPU": 0.01}), param_space={"lr": tune.grid_search(points)},
    tune_config=tune.TuneConfig(max_concurrent_trials=concurrent),
    run_config=tune.RunConfig(storage_path=home, name="sweep", verbose=0),
).fit()
print(json.dumps([[r.config["lr"], r.metrics["loss"], r.metrics["step"]] for r in results]))
"""
)

OPTUNA = (
    PEER
    + """
import optuna
optuna.logging.set_verbosity(optuna.logging.WARNING)
found = []

def objective(trial):
    lr = trial.suggest_float("lr", min(points), max(points) * 1.0001, log=True)
    last = {}
    train(lr, cores, last.update)
    found.append([lr, last["loss"], last["step"]])
    return last["loss"]

study = optuna.create_study()
for point in points:
    study.enqueue_trial({"lr": point})
study.optimize(objective, n_trials=len(points))
print(json.dumps(found))
"""
)


def write_rows(folder: Path, *, rows: int) -> Path:
    """Texts whose class follows from some of their words."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    for split, count, seed in (("train", rows, 1), ("validation", rows // 5, 2)):
        draw = random.Random(seed)
        words = {name: [f"{name}{i}" for i in range(60)] for name in ("a", "b", "c", "d")}
        common = [f"w{i}" for i in range(400)]
        labels = [draw.choice(sorted(words)) for _ in range(count)]
        texts = [" ".join(draw.choices(words[label], k=3) + draw.choices(common, k=20)) for label in labels]
        pq.write_table(pa.table({"text": texts, "label": labels}), folder / f"{split}.parquet")
    return folder


def document(data: Path, values: list[float], steps: int, *, epochs: int = EPOCHS, **sweep: Any) -> dict[str, Any]:
    """The job of all peers, as a sweep."""
    return {
        "dataset": str(data),
        "model": "tiny-bert",
        "hyperparams": {
            "batch_size": BATCH,
            "epochs": epochs,
            "eval_every": f"{steps} steps",
            "max_length": LENGTH,
            "early_stopping": None,
        },
        "resources": {"gpus": 0},
        "sweep": {"parameters": {"hyperparams.lr": {"choice": values}}, **sweep},
    }


def model_folder(spec: dict[str, Any], home: Path) -> Path:
    """The configuration and tokenizer that AstraML makes of the rows, for the peers."""
    from astraml_ray.settings import load_settings
    from astraml_ray.spec.loading import parse_spec
    from astraml_ray.training.preparation import prepare

    plain = {key: value for key, value in spec.items() if key != "sweep"}
    inputs, _ = prepare(parse_spec(plain), load_settings())
    inputs.config.save_pretrained(home / "model")
    inputs.tokenizer.save_pretrained(home / "model")
    return home / "model"


def timed(command: list[str]) -> tuple[float, str]:
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    return time.perf_counter() - started, done.stdout.splitlines()[-1]


def astraml(spec: dict[str, Any], home: Path) -> dict[str, Any]:
    """One sweep by `astraml run`."""
    import yaml

    file = home / "sweep.yaml"
    file.write_text(yaml.safe_dump(spec))
    command = [sys.executable, "-m", "astraml_ray", "run", "-f", str(file), "--storage", str(home / "runs")]
    wall, out = timed([*command, "--output", "json"])
    sweep = json.loads(out)["sweep"]
    steps = sum(trial["step"] for trial in sweep["trials"])
    best = min(trial["best_metric"] for trial in sweep["trials"] if trial["best_metric"] is not None)
    return {"wall_s": wall, "trials": len(sweep["trials"]), "steps": steps, "best": best, "busy_s": sweep["seconds"]}


def peer(script: str, arguments: list[str]) -> dict[str, Any]:
    """One sweep by a peer."""
    wall, out = timed([sys.executable, "-c", script, *arguments])
    found = json.loads(out)
    return {"wall_s": wall, "trials": len(found), "steps": sum(f[2] for f in found), "best": min(f[1] for f in found)}


def speed(data: Path, home: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rounds of all peers, each in turn."""
    points = [RATES[0] * (RATES[1] / RATES[0]) ** ((i + 0.5) / options.trials) for i in range(options.trials)]
    random.Random(SEED).shuffle(points)
    total = EPOCHS * -(-options.rows // BATCH)
    steps = -(-total // EVALUATIONS)
    spec = document(data, points, steps, scheduler="none")
    model = model_folder(spec, home)
    cores = len(os.sched_getaffinity(0))
    shared = [str(data), str(model), *map(str, (BATCH, EPOCHS, EVALUATIONS, LENGTH))]

    def of(values: list[float]) -> dict[str, Callable[[], dict[str, Any]]]:
        given = [*shared, json.dumps(values), str(min(cores, len(values))), str(cores)]
        return {
            "astraml": lambda: astraml(document(data, values, steps, scheduler="none"), home),
            "plain_tune": lambda: peer(PLAIN, given),
            "optuna": lambda: peer(OPTUNA, given),
        }

    for _ in range(options.rounds):
        whole = {name: run() for name, run in of(points).items()}
        single = {name: run()["wall_s"] for name, run in of(points[:1]).items()}
        for name, found in whole.items():
            found["trials_per_hour"] = 3600 * found["trials"] / found["wall_s"]
            more = max(1e-9, found["wall_s"] - single[name])
            found["trials_per_hour_more"] = 3600 * (found["trials"] - 1) / more
            found["one_trial_wall_s"] = single[name]
        yield whole


def asha(data: Path, home: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A grid to its end, and the same points under ASHA."""
    points = [RATES[0] * (RATES[1] / RATES[0]) ** ((i + 0.5) / options.grid) for i in range(options.grid)]
    random.Random(SEED).shuffle(points)
    total = ASHA_EPOCHS * -(-options.rows // BATCH)
    steps = max(1, -(-total // ASHA_EVALUATIONS))

    def of(scheduler: str) -> dict[str, Any]:
        sweep = {"scheduler": scheduler, "reduction_factor": 4}
        return astraml(document(data, points, steps, epochs=ASHA_EPOCHS, **sweep), home)

    for _ in range(options.rounds):
        grid, pruned = of("none"), of("asha")
        yield {"grid": grid, "asha": pruned}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--grid", type=int, default=48, help="points of the grid that ASHA is compared with")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--only", choices=["speed", "asha"], default=None)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    report: dict[str, Any] = {"machine": describe_machine(), "options": {k: str(v) for k, v in vars(options).items()}}
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        os.environ["ASTRAML_CACHE"] = str(home / "cache")
        data = write_rows(home / "rows", rows=options.rows)
        for name, rounds in (("speed", speed), ("asha", asha)):
            if options.only in (None, name):
                report[name] = []
                for found in rounds(data, home, options):
                    report[name].append(found)
                    print(json.dumps({name: found}), flush=True)
                    options.output.write_text(json.dumps(report, indent=1))
    report["median_ratios"] = ratios(report)
    options.output.write_text(json.dumps(report, indent=1))
    print(json.dumps(report["median_ratios"]))


def ratios(report: dict[str, Any]) -> dict[str, float]:
    """What the figures come to."""
    found = {
        f"trials_per_hour{kind}_to_{name}": statistics.median(
            r["astraml"][f"trials_per_hour{kind}"] / r[name][f"trials_per_hour{kind}"] for r in report["speed"]
        )
        for name in ("plain_tune", "optuna")
        for kind in ("", "_more")
        if "speed" in report
    }
    if "asha" in report:
        rounds = report["asha"]
        found["asha_steps_to_grid"] = statistics.median(r["asha"]["steps"] / r["grid"]["steps"] for r in rounds)
        found["asha_best_loss_to_grid"] = statistics.median(r["asha"]["best"] / r["grid"]["best"] for r in rounds)
    return found


if __name__ == "__main__":
    main()
