"""What keeping tokens brings: rows per second of BlockReader.read, epoch by epoch, with and without, interleaved.

python benchmarks/kept_tokens.py --output benchmarks/results/kept_tokens.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from machine import describe_machine

from astraml_ray.data.blocks import BlockReader
from astraml_ray.data.encoding.text import TextEncoder
from astraml_ray.data.encoding.tokenizers import train_tokenizer
from astraml_ray.data.kept_tokens import TokenKeep
from astraml_ray.data.plan import epoch_blocks
from astraml_ray.data.prepare import build_manifest
from astraml_ray.spec.loading import parse_spec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--words", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        report = measure(Path(temporary), options.rows, options.words, options.epochs)
    options.output.write_text(json.dumps({**report, "machine": describe_machine()}, indent=1))
    print(json.dumps({key: value for key, value in report.items() if key != "seconds"}))


def measure(folder: Path, rows: int, words: int, epochs: int) -> dict[str, object]:
    """Seconds of each epoch: `plain` reads and tokenises, `first` also keeps, `kept` reads what is kept."""
    texts = write_texts(folder / "train.parquet", rows, words)
    manifest = build_manifest(parse_spec({"dataset": str(folder), "model": "m"}).dataset, task="auto", cache=folder)
    tokenizer = train_tokenizer(texts[:2000], kind="wordpiece", vocab_size=8000)
    encoder = TextEncoder(tokenizer, "text-classification", 128, manifest.labels)
    plain = BlockReader(manifest, manifest.splits["train"], encoder, 0, 32, 1)
    kept = replace(plain, keep=TokenKeep(folder / "tokens"))
    read_epoch(plain, 0)  # what is loaded at first use
    seconds: dict[str, list[float]] = {"plain": [], "first": [read_epoch(kept, 0)], "kept": []}
    for epoch in range(1, epochs + 1):
        seconds["plain"].append(read_epoch(plain, epoch))
        seconds["kept"].append(read_epoch(kept, epoch))
    median = {name: statistics.median(times) for name, times in seconds.items()}
    files = list((folder / "tokens").glob("*.tokens"))
    return {
        "rows": plain.split.total_rows,
        "rows_per_second": {name: round(plain.split.total_rows / one) for name, one in median.items()},
        "kept_over_plain": round(median["plain"] / median["kept"], 1),
        "first_over_plain": round(median["first"] / median["plain"], 2),
        "bytes_kept": sum(file.stat().st_size for file in files),
        "bytes_of_dataset": sum(info.size for info in manifest.objects),
        "seconds": seconds,
    }


def write_texts(path: Path, rows: int, words: int) -> list[str]:
    """Texts of words that are as frequent as in a language."""
    generator = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    vocabulary = np.array(["".join(generator.choice(letters, generator.integers(2, 10))) for _ in range(20_000)])
    ranks = np.minimum(generator.zipf(1.3, (rows, words)), len(vocabulary)) - 1
    texts = [" ".join(row) for row in vocabulary[ranks]]
    labels = [f"class {number % 6}" for number in range(rows)]
    pq.write_table(pa.table({"text": texts, "label": labels}), path, row_group_size=2000)
    return texts


def read_epoch(reader: BlockReader, epoch: int) -> float:
    started = time.perf_counter()
    split = reader.split
    blocks = epoch_blocks(split.rows, split.sizes, seed=0, epoch=epoch)
    read = sum(table.num_rows for block in blocks for table in reader.read(block))
    assert read == split.total_rows
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
