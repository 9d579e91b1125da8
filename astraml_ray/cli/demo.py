"""`astraml demo`: the whole path on one machine: S3 server, Ray, the service, a real dataset, a trained model."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from astraml_ray.cli.outcome import conclude
from astraml_ray.errors import AstraError, InfrastructureError
from astraml_ray.settings import configs_folder, load_settings
from astraml_ray.spec.loading import read_document

__all__ = ["demo"]

_SENTENCES = (
    "Returns a tensor filled with random numbers from a normal distribution.",
    "Return the indices of rows in the DataFrame where the value is missing.",
)


@click.command()
@click.option("--storage", default=None, help="Keep the run here; otherwise everything is removed at the end.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text")
def demo(storage: str | None, output: str) -> None:
    """Train a small model on docstrings, through a service and an S3 server of its own."""
    conclude(lambda: run_demo(storage), output=output, show=_show)


def run_demo(storage: str | None) -> dict[str, Any]:
    """Builds the dataset, starts a service of its own, submits, follows, downloads, and classifies two sentences."""
    from astraml_ray.cli.up import start_service, stop_service
    from astraml_ray.client import Client

    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="astraml-demo-"))
    home = folder / "home"
    settings = replace(load_settings(), home=home, database_url=f"sqlite:///{home / 'astraml.db'}", ray_address=None)
    try:
        majority = _write_dataset(folder / "s3" / "demo" / "docstrings")
        up = start_service(settings, storage=storage, s3_folder=str(folder / "s3"))
        _say(f"service: {up['address']}, S3 server: {up['s3']}")
        spec = read_document(configs_folder() / "jobs" / "demo.yaml")
        with Client(up["address"], token=Path(up["token_path"]).read_text().strip()) as client:
            key = client.new_key()
            job = client.submit(spec, idempotency_key=key)
            again = client.submit(spec, idempotency_key=key)
            _say(f"job {job['id']}; submitted again with the same key: {again['id']}, the same job")
            for line in client.logs(job["id"], follow=True):
                _say(f"  {line.get('text', '')}")
            job = client.wait(job["id"])
            if job["status"] != "succeeded":
                raise _failure(job)
            model = client.download(job["id"], "model", folder / "model")["to"]
        return {
            "status": job["status"],
            "reason": job["reason"],
            "job_id": job["id"],
            **{name: job["result"][name] for name in ("steps", "metrics")},
            "majority_class_accuracy": majority,
            "answers": _classify(model),
            "seconds": round(time.monotonic() - began, 1),
            "model_path": job["model_path"] if storage else None,
        }
    finally:
        stop_service(settings)
        shutil.rmtree(folder, ignore_errors=True)


def _write_dataset(folder: Path) -> float:
    """Writes train and test; returns the share of the largest class."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from astraml_ray.cli.docstrings import docstring_table

    rows = docstring_table(rows_per_package=800)
    counts = pc.value_counts(rows["label"])
    _say(f"dataset: {rows.num_rows} docstrings of {len(counts)} installed packages, labelled by package")
    folder.mkdir(parents=True)
    tenth = rows.num_rows // 10
    for name, part in {"test": rows.slice(0, tenth), "train": rows.slice(tenth)}.items():
        pq.write_table(pa.table(part), folder / f"{name}.parquet", row_group_size=1000)
    largest: int = pc.max(counts.field("counts")).as_py()
    return float(largest / rows.num_rows)


def _failure(job: dict[str, Any]) -> AstraError:
    error = job["error"] or {}
    what = error.get("message") or job["message"]
    return InfrastructureError(f"the job has {job['status']}: {what}", hint=error.get("hint"))


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
