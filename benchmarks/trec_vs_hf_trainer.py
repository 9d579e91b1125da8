"""Fine-tuning throughput: `astraml run` (S3, Ray Data, TorchTrainer) against HF Trainer, interleaved.

Same rows, same weights, same batch size, same number of optimizer steps, same threads, dropout on in both. The peers
run as their guides say: padding per batch, and once more with their best sampling, grouped by length. Only the steps
are timed, after the first fifth of them; start-up is given beside it. The limit is the machine's SGEMM rate at the
model's shapes, measured before each round.

    python benchmarks/trec_vs_hf_trainer.py --train train.parquet --model MODEL_FOLDER --rounds 3 --output result.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BATCH, LR, THREADS = 32, 1e-4, 2


def astraml(train: Path, model: str, steps: int) -> dict[str, float]:
    """Rows per second of `astraml run`, out of its own metrics, on an S3 server of its own."""
    from astraml_ray.cli.s3_server import serve_s3

    with tempfile.TemporaryDirectory() as home:
        bucket = Path(home, "s3", "bench", "trec")
        bucket.mkdir(parents=True)
        shutil.copy(train, bucket / "train.parquet")
        with serve_s3(Path(home, "s3")) as server:
            settings = {
                "max_steps": steps,
                "eval_every": f"{steps} steps",
                "early_stopping": "null",
                "weight_decay": 0.0,
            }
            command = [sys.executable, "-m", "astraml_ray", "run", "--dataset", "s3://bench/trec", "--model", model]
            command += ["--gpus", "0", "--batch-size", str(BATCH), "--lr", str(LR), "--epochs", "3", "--output", "json"]
            command += ["--storage", f"{home}/runs", "--set", f"resources.threads_per_worker={THREADS}"]
            command += [part for k, v in settings.items() for part in ("--set", f"hyperparams.{k}={v}")]
            started = time.perf_counter()
            environment = {**os.environ, **server.environment()}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            wall = time.perf_counter() - started
        folder = json.loads(done.stdout.splitlines()[-1])["run_path"]
        records = [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]
    return {"rows_per_second": steady([r["time"] for r in records if "train/loss" in r][:steps]), "wall_s": wall}


def steady(times: list[float]) -> float:
    """Rows per second after the first fifth of the steps."""
    kept = times[len(times) // 5 :]
    return BATCH * (len(kept) - 1) / (kept[-1] - kept[0])


HF = """
import json, sys, time, torch, pyarrow.parquet as pq
from transformers import *
train, model, steps, grouped, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "1", int(sys.argv[5])
torch.set_num_threads(threads)
rows = pq.read_table(train).to_pylist()
names = sorted({r["label"] for r in rows})
tok = AutoTokenizer.from_pretrained(model)
net = AutoModelForSequenceClassification.from_pretrained(model, num_labels=len(names), dtype=torch.float32)
ids = tok([r["text"] for r in rows], truncation=True, max_length=512)["input_ids"]
items = [{"input_ids": i, "labels": names.index(r["label"])} for i, r in zip(ids, rows)]
times = []
class Clock(TrainerCallback):
    def on_step_end(self, *_, **__): times.append(time.time())
args = TrainingArguments(output_dir=sys.argv[6], per_device_train_batch_size=32, learning_rate=1e-4, max_steps=steps,
    lr_scheduler_type="cosine", weight_decay=0.0, logging_steps=steps, save_strategy="no", report_to=[], use_cpu=True,
    disable_tqdm=True, train_sampling_strategy="group_by_length" if grouped else "random")
collator = DataCollatorWithPadding(tok)
Trainer(model=net, args=args, train_dataset=items, data_collator=collator, callbacks=[Clock()]).train()
print(json.dumps(times))
"""


def hf_trainer(train: Path, model: str, steps: int, *, grouped: bool) -> dict[str, float]:
    """Rows per second of HF Trainer on the same file."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-c", HF, str(train), model, str(steps), str(int(grouped)), str(THREADS), home]
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        wall = time.perf_counter() - started
    return {"rows_per_second": steady(json.loads(done.stdout.splitlines()[-1])), "wall_s": wall}


def sgemm_gflops() -> float:
    """The machine's rate at the model's shape: (512, 384) x (384, 1536)."""
    import torch

    torch.set_num_threads(THREADS)
    a, b = torch.randn(512, 384), torch.randn(384, 1536)
    for _ in range(20):
        a @ b
    started, count = time.perf_counter(), 300
    for _ in range(count):
        a @ b
    return 2 * 512 * 384 * 1536 * count / (time.perf_counter() - started) / 1e9


def limit_rows_per_second(train: Path, model: str, gflops: float) -> float:
    """If every real token cost its matrix products alone: 6 FLOP per encoder weight, nothing for padding."""
    import pyarrow.parquet as pq
    from transformers import AutoConfig, AutoTokenizer

    config, tokenizer = AutoConfig.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    texts = pq.read_table(train)["text"].to_pylist()
    tokens = statistics.mean(len(ids) for ids in tokenizer(texts)["input_ids"])
    hidden, wide = config.hidden_size, config.intermediate_size
    weights = config.num_hidden_layers * (4 * hidden * hidden + 2 * hidden * wide)
    return gflops * 1e9 / (6 * weights * tokens)


def rounds(train: Path, model: str, steps: int, count: int) -> Iterator[dict[str, Any]]:
    for _ in range(count):
        gflops = sgemm_gflops()
        yield {
            "sgemm_gflops": gflops,
            "limit_rows_per_second": limit_rows_per_second(train, model, gflops),
            "astraml": astraml(train, model, steps),
            "hf_trainer": hf_trainer(train, model, steps, grouped=False),
            "hf_trainer_grouped": hf_trainer(train, model, steps, grouped=True),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="Parquet with columns text and label")
    parser.add_argument("--model", required=True, help="a folder with a pretrained encoder")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    found = []
    for result in rounds(options.train.absolute(), options.model, options.steps, options.rounds):
        found.append(result)
        print(json.dumps(result), flush=True)
    ratios = {
        peer: statistics.median(r["astraml"]["rows_per_second"] / r[peer]["rows_per_second"] for r in found)
        for peer in ("hf_trainer", "hf_trainer_grouped")
    }
    ratios["limit"] = statistics.median(r["astraml"]["rows_per_second"] / r["limit_rows_per_second"] for r in found)
    import ray
    import torch
    import transformers

    versions = {"ray": ray.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version(), **versions}
    report = {
        "median_ratio_astraml_to": ratios,
        "batch_size": BATCH,
        "steps": options.steps,
        "threads": THREADS,
        "machine": machine,
        "rounds": found,
    }
    options.output.write_text(json.dumps(report, indent=1))
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
