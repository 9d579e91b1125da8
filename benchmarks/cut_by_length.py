"""What cutting a micro-batch by length brings, and which overhead is right: forward and backward only, interleaved.

python benchmarks/cut_by_length.py --train train.parquet --model MODEL_FOLDER --output result.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from astraml_ray.training.batching import cut_by_length

BATCH = 32
UNCUT = 10**9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--overheads", type=int, nargs="+", default=[16, 48, 96, 192, UNCUT])
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=6, dtype=torch.float32).train()
    ids = tokenizer(pq.read_table(options.train)["text"].to_pylist())["input_ids"]
    order = np.random.default_rng(0).permutation(len(ids))
    seconds: dict[int, list[float]] = {overhead: [] for overhead in options.overheads}
    for number in range(options.batches):
        batch = [ids[i] for i in order[number * BATCH : (number + 1) * BATCH]]
        for overhead in options.overheads:
            started = time.perf_counter()
            for group in cut_by_length(np.array([len(row) for row in batch]), overhead, BATCH):
                rows = tokenizer.pad({"input_ids": [batch[i] for i in group]}, return_tensors="pt")
                model(**rows).logits.logsumexp(-1).sum().backward()
            model.zero_grad(set_to_none=True)
            seconds[overhead].append(time.perf_counter() - started)
    rates = {overhead: BATCH / statistics.median(times[2:]) for overhead, times in seconds.items()}
    report = {
        "rows_per_second": {"uncut" if k == UNCUT else str(k): round(v, 1) for k, v in rates.items()},
        "batch_size": BATCH,
        "threads": options.threads,
        "seconds": {str(k): [round(t, 4) for t in v] for k, v in seconds.items()},
    }
    options.output.write_text(json.dumps(report, indent=1))
    print(json.dumps(report["rows_per_second"]))


if __name__ == "__main__":
    main()
