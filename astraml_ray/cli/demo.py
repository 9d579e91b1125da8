"""`astraml demo`: the whole path on one machine, with a real dataset and a real S3 server."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from astraml_ray.cli.outcome import conclude
from astraml_ray.settings import configs_folder, load_settings
from astraml_ray.spec.loading import build_spec, read_document

__all__ = ["demo"]

_SENTENCES = (
    "Returns a tensor filled with random numbers from a normal distribution.",
    "Return the indices of rows in the DataFrame where the value is missing.",
)


@click.command()
@click.option("--storage", default=None, help="Keep the run here; otherwise everything is removed at the end.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text")
def demo(storage: str | None, output: str) -> None:
    """Train a small model on docstrings, from an S3 server, in under three minutes."""
    conclude(lambda: run_demo(storage), output=output, show=_show)


def run_demo(storage: str | None) -> dict[str, Any]:
    """Builds the dataset, serves it, trains, and classifies two sentences."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from astraml_ray.cli.docstrings import docstring_table
    from astraml_ray.cli.run import train_spec
    from astraml_ray.cli.s3_server import serve_s3

    began = time.monotonic()
    home = Path(tempfile.mkdtemp(prefix="astraml-demo-"))
    try:
        rows = docstring_table(rows_per_package=800)
        counts = pc.value_counts(rows["label"])
        largest = pc.max(counts.field("counts")).as_py()
        _say(f"dataset: {rows.num_rows} docstrings of {len(counts)} installed packages, labelled by package")
        bucket = home / "s3" / "demo" / "docstrings"
        bucket.mkdir(parents=True)
        for name, part in {
            "test": rows.slice(0, rows.num_rows // 10),
            "train": rows.slice(rows.num_rows // 10),
        }.items():
            pq.write_table(pa.table(part), bucket / f"{name}.parquet", row_group_size=1000)
        with serve_s3(home / "s3") as server:
            os.environ.update(server.environment())
            _say(f"S3 server: {server.endpoint_url}, dataset s3://demo/docstrings")
            spec = build_spec(read_document(configs_folder() / "jobs" / "demo.yaml"), source="demo.yaml")
            result = train_spec(spec, storage or str(home / "runs"), load_settings())
        answers = _classify(result["model_path"])
        return {
            **result,
            "majority_class_accuracy": largest / rows.num_rows,
            "answers": answers,
            "seconds": round(time.monotonic() - began, 1),
            "model_path": result["model_path"] if storage else None,
        }
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _classify(model_path: str) -> dict[str, str]:
    from transformers import pipeline
    from transformers.utils import logging

    logging.disable_progress_bar()

    classifier = pipeline("text-classification", model=model_path)
    return {sentence: classifier(sentence)[0]["label"] for sentence in _SENTENCES}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _show(result: dict[str, Any]) -> None:
    accuracy, majority = result["metrics"]["validation/accuracy"], result["majority_class_accuracy"]
    print(f"\n{result['reason']} after {result['steps']} steps, {result['seconds']:.0f} s in all")
    print(f"validation accuracy {accuracy:.3f}, test accuracy {result['metrics']['test/accuracy']:.3f}")
    print(f"the majority class alone: {majority:.3f}")
    for sentence, label in result["answers"].items():
        print(f"  {label:14} ← {sentence}")
    if result["model_path"]:
        print(f"model {result['model_path']}")
