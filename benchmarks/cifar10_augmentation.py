"""What augmentation brings: test accuracy from scratch, with and without, at equal epochs and over several seeds.

Through AstraML's readers, augmentations and train loop, without Ray. Images are decoded once and kept as bytes; they
are augmented on the device that trains. The test set is scored once, after the last epoch: nothing is chosen by it.

    python benchmarks/cifar10_augmentation.py --data FOLDER --seeds 0,1,2 --epochs 40 --output out.json

FOLDER holds train.parquet and test.parquet with the columns `image` (encoded) and `label`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from astraml_ray.data.blocks import BlockReader
from astraml_ray.data.encoding.images import ImageEncoder
from astraml_ray.data.images.mixing import mixings_of
from astraml_ray.data.manifest import Manifest
from astraml_ray.data.microbatches import MicroBatch, Position, local_blocks, micro_batches
from astraml_ray.data.prepare import build_manifest
from astraml_ray.spec.augmentation import augmentations_of
from astraml_ray.spec.job import JobSpec
from astraml_ray.spec.loading import parse_spec
from astraml_ray.training.batching import cutting
from astraml_ray.training.checkpoint import MemoryCheckpoints
from astraml_ray.training.collectives import World
from astraml_ray.training.evaluation import EvaluationRows, evaluate
from astraml_ray.training.image_inputs import image_encoder
from astraml_ray.training.loop import train
from astraml_ray.training.models import Blueprint, adapt_config, build_model, find_blueprint, load_config
from astraml_ray.training.precision import Precision
from astraml_ray.training.tasks import objective_of
from astraml_ray.training.timetable import Timetable

TASK = "image-classification"
_decoded: dict[bytes, npt.NDArray[np.uint8]] = {}


class Remembering(ImageEncoder):
    """Decodes every image once."""

    def decode(self, column: pa.ChunkedArray, *, partner: bool = False) -> npt.NDArray[np.uint8]:
        missing = pa.chunked_array(
            [[v for v in set(column.to_pylist()) if v is not None and v not in _decoded]], pa.binary()
        )
        for data, pixels in zip(missing.to_pylist(), super().decode(missing), strict=True):
            _decoded[data] = pixels
        blank = np.zeros((self.height, self.width, 3), np.uint8)
        return np.stack([_decoded.get(data, blank) for data in column.to_pylist()])


@dataclass(frozen=True)
class Arm:
    """One side of the comparison, ready to run.

    Attributes:
        spec: Of its jobs; the seed is each run's own.
        manifest: The dataset.
        blueprint: The model.
    """

    spec: JobSpec
    manifest: Manifest
    blueprint: Blueprint

    def run(self, seed: int, device: torch.device) -> dict[str, float]:
        """Trains once; returns the test set's metrics and the seconds that training took."""
        hyper, world = self.spec.hyperparams, World(device=device)
        augmentations = augmentations_of(self.spec.augmentation, TASK)
        config = load_config(self.blueprint)
        made = image_encoder(config, self.blueprint, hyper, self.manifest.labels)
        encoder = replace(
            Remembering(**made.__dict__), on_device=bool(augmentations), mixes=bool(mixings_of(augmentations))
        )
        config = adapt_config(config, None, self.manifest.labels, hyper, scratch=self.blueprint.scratch)
        model = build_model(TASK, config, self.blueprint, seed=seed).to(device)
        objective = objective_of(
            TASK,
            self.manifest.labels,
            images=encoder,
            augmentations=augmentations,
            smoothing=hyper.label_smoothing,
        )
        splits = self.manifest.splits
        reader = BlockReader(self.manifest, splits["train"], encoder, seed, hyper.batch_size, 1, augmentations)
        plain = BlockReader(self.manifest, splits["validation"], encoder, seed, hyper.batch_size, 1, shuffle=False)
        timetable = Timetable.of(hyper, reader.split.total_rows)

        def batches(position: Position) -> Iterator[MicroBatch]:
            return micro_batches(
                local_blocks(reader, epochs=hyper.epochs, position=position),
                schema=encoder.schema,
                rows_per_epoch=timetable.rows,
                batch_size=timetable.batch_size,
                epochs=hyper.epochs,
                position=position,
            )

        started = time.perf_counter()
        train(
            model,
            batches,
            timetable=timetable,
            hyper=hyper,
            objective=objective,
            validation=None,
            checkpoints=MemoryCheckpoints(),
            reporter=Silent(),
            world=world,
            seed=seed,
        )
        seconds = time.perf_counter() - started
        precision = Precision(hyper.precision, device)
        cut = cutting(hyper.batch_size, world)
        scores = evaluate(model, EvaluationRows(plain, 0), objective, world, cut=cut, autocast=precision.autocast)
        assert scores is not None
        return {**scores, "seconds": seconds}


class Silent:
    """Hears the loop out."""

    def report(self, record: dict[str, Any]) -> None:
        """Nothing is kept."""

    def flush(self) -> None:
        """Nothing waits."""

    def stop_requested(self) -> int:
        """Never."""
        return 0


def arms(options: argparse.Namespace, cache: Path) -> dict[str, Arm]:
    """Both sides: the same but for the augmentation."""
    hyper = {
        "batch_size": options.batch_size,
        "lr": options.lr,
        "epochs": options.epochs,
        "warmup_steps": 0.1,
        "weight_decay": 0.05,
        "eval_every": f"{options.epochs} epochs",
        "early_stopping": None,
    }
    made = {}
    for name in ("none", options.augmentation):
        sets = {"train": f"{options.data}/train.parquet", "validation": f"{options.data}/test.parquet"}
        document = {"dataset": sets, "model": options.model, "task": TASK, "hyperparams": hyper}
        spec = parse_spec({**document, "augmentation": name})
        manifest = build_manifest(spec.dataset, task=TASK, cache=cache)
        made[name] = Arm(spec, manifest, find_blueprint(spec.model))
    return made


def main() -> None:
    """Runs both arms, seed by seed in turn, and writes what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--model", default="resnet-18")
    parser.add_argument("--augmentation", default="medium")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as cache:
        sides = arms(options, Path(cache))
        for seed in map(int, options.seeds.split(",")):
            for name, arm in sides.items():
                runs.append({"augmentation": name, "seed": seed, **arm.run(seed, device)})
                print(json.dumps(runs[-1]), flush=True)
                result = {
                    **summary(runs),
                    **machine(device),
                    "options": {**vars(options), "output": None, "data": None},
                }
                if options.output:  # after each run: what is done is kept
                    options.output.write_text(json.dumps({**result, "runs": runs}, indent=1))
    print(json.dumps(summary(runs)))


def machine(device: torch.device) -> dict[str, str]:
    """Where this ran."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {"device": name, "torch": torch.__version__}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation of the test accuracy of each arm, and its seconds."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(run["augmentation"] for run in runs):
        mine = [run for run in runs if run["augmentation"] == name]
        accuracies = [run["accuracy"] for run in mine]
        found[name] = {
            "accuracy_mean": statistics.mean(accuracies),
            "accuracy_stdev": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
            "seconds_mean": statistics.mean(run["seconds"] for run in mine),
        }
    return found


if __name__ == "__main__":
    main()
