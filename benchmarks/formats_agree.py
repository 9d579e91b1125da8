"""Whether a dataset trains to the same weights in every format that it can take: one sweep over `dataset.path`.

A folder's train.parquet (columns `text` or `image`, and `label`) is written again in each format, its rows in the order
of their labels, which is the one order that image folders have. Then `astraml run` trains on each; the weights of all
trials must be equal bit for bit.

    python benchmarks/formats_agree.py --data FOLDER --rows 2000 --output out.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from machine import describe_machine

from tests.unit.format_files import WRITERS, webdataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        report = compare(options.data, options.rows, Path(temporary))
    options.output.write_text(json.dumps({**report, "machine": describe_machine()}, indent=1))
    print(json.dumps(report, indent=1))
    if len(set(report["weights"].values())) != 1:
        raise SystemExit("the weights differ")


def compare(data: Path, rows: int, folder: Path) -> dict[str, Any]:
    """Writes the dataset in each format, trains on each; the digest of the weights and the metrics of each."""
    table = pq.read_table(next(iter(sorted(data.glob("train*.parquet"))))).slice(0, rows)
    table = table.set_column(table.column_names.index("label"), "label", table["label"].cast(pa.string()))
    table = table.sort_by("label")
    images = "image" in table.column_names
    places = write_images(table, folder) if images else write_texts(table, folder)
    trials = train(places, folder, images=images)
    digests = {name: weights_of(trials[str(place)]) for name, place in places.items()}
    metrics = {name: trials[str(place)]["best_metric"] for name, place in places.items()}
    return {"rows": table.num_rows, "weights": digests, "best_metric": metrics}


def write_texts(table: pa.Table, folder: Path) -> dict[str, Path]:
    """A folder for each text format."""
    places = {}
    for name, write in WRITERS.items():
        places[name] = folder / name.replace(".", "-")
        places[name].mkdir()
        write(table.select(["text", "label"]), places[name] / f"train.{name.split('.', 1)[-1]}")
    return places


def write_images(table: pa.Table, folder: Path) -> dict[str, Path]:
    """A folder for each format of images."""
    raw, labels = table["image"].to_pylist(), table["label"].to_pylist()
    files = [value["bytes"] if isinstance(value, dict) else value for value in raw]
    plain = pa.table({"image": pa.array(files, pa.binary()), "label": labels})
    struct = pa.table({"image": [{"bytes": data, "path": None} for data in files], "label": labels})
    samples = [(f"{i:06d}", {"jpg": data, "cls": labels[i].encode()}) for i, data in enumerate(files)]
    writers: dict[str, Callable[[Path], object]] = {
        "parquet": lambda place: pq.write_table(plain, place / "train.parquet", row_group_size=500),
        "struct.parquet": lambda place: pq.write_table(struct, place / "train.parquet", row_group_size=300),
        "tar": lambda place: (place / "train.tar").write_bytes(webdataset(samples)),
    }
    places = {}
    for name, write in writers.items():
        places[name] = folder / name.replace(".", "-")
        places[name].mkdir()
        write(places[name])
    places["folder"] = folder / "folder"
    for i, data in enumerate(files):
        place = places["folder"] / "train" / labels[i]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i:06d}.jpg").write_bytes(data)
    return places


def train(places: dict[str, Path], folder: Path, *, images: bool) -> dict[str, dict[str, Any]]:
    """One sweep; its trials by the path that they trained on."""
    paths = [str(place) for place in places.values()]
    spec = {
        "dataset": {"path": paths[0]},
        "model": "resnet-18" if images else "tiny-bert",
        "hyperparams": {"epochs": 1, "batch_size": 32, "lr": 1e-3, "eval_every": "0.5 epochs"},
        "resources": {"gpus": 0},
        "sweep": {
            "parameters": {"dataset.path": {"choice": paths}},
            "algorithm": "grid",
            "scheduler": "none",
            "metric": "validation/loss",
        },
        "seed": 3,
    }
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    command = [sys.executable, "-m", "astraml_ray", "run", "-f", str(folder / "spec.yaml")]
    command += ["--storage", str(folder / "runs"), "--output", "json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    trials = json.loads(done.stdout.splitlines()[-1])["sweep"]["trials"]
    for trial in trials:  # what each read was its own
        read = Path(trial["run_path"], "manifest.json").read_text()
        assert f"{trial['parameters']['dataset.path']}/" in read, trial["trial_id"]
    return {trial["parameters"]["dataset.path"]: trial for trial in trials}


def weights_of(trial: dict[str, Any]) -> str:
    """The digest of a trial's last checkpoint."""
    last = max(Path(trial["run_path"], "checkpoints").glob("step-*"))
    return hashlib.sha256((last / "model.safetensors").read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
