"""Memory while datasets many times larger than Ray's object store go through the stream of a run.

    python benchmarks/stream_memory.py --output result.json

Images of one colour, small on the disk and large once they are decoded, lie on an S3 server of this machine. For each
of `--times` a process of its own starts Ray with an object store of `--store-mb` and takes all batches of one epoch for
two workers, with that many times the store in decoded pixels; once as fast as they come, and once with consumers that
pause after each batch, so that the stream has to wait for them. Every row must come once, in its order. Reported is the
peak of the memory of all processes together (a page that several share counts once), and what Ray spilled to disk.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from machine import describe_machine, peak_memory
from PIL import Image

from astraml_ray.cli.s3_server import serve_s3
from astraml_ray.data.blocks import BlockReader
from astraml_ray.data.encoding.images import ImageEncoder
from astraml_ray.data.microbatches import Position, micro_batches
from astraml_ray.data.parcels import unpacked
from astraml_ray.data.prepare import build_manifest
from astraml_ray.data.stream import ray_stream
from astraml_ray.spec.dataset import DatasetSpec

SIDE, WORKERS, BATCH, GROUP = 96, 2, 64, 1000
ROW_BYTES = SIDE * SIDE * 3


def write_images(folder: Path, rows: int) -> None:
    """Images of one colour each, whose class is which channel is brightest; row groups of 1,000 rows."""
    colours = np.random.default_rng(0).integers(0, 256, (rows, 3), np.uint8)
    folder.mkdir(parents=True)
    for name, part in (("train", colours), ("validation", colours[:GROUP])):
        with pq.ParquetWriter(
            folder / f"{name}.parquet", pa.schema([("image", pa.binary()), ("label", pa.int64())])
        ) as to:
            for start in range(0, len(part), GROUP):
                group = part[start : start + GROUP]
                to.write_table(pa.table({"image": [_png(one) for one in group], "label": group.argmax(1)}))


def _png(colour: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), tuple(colour.tolist())).save(file, "PNG")
    return file.getvalue()


def feed(uri: str, cache: Path, *, store_mb: int, pause_s: float) -> dict[str, Any]:
    """Takes one epoch; run in a process of its own."""
    manifest = build_manifest(DatasetSpec(path=uri), task="image-classification", cache=cache)
    encoder = ImageEncoder(SIDE, SIDE, manifest.labels, short_edge=SIDE)
    reader = BlockReader(manifest, manifest.splits["train"], encoder, 0, BATCH, WORKERS)
    context = ray.init(
        address="local",
        num_cpus=4,
        object_store_memory=store_mb << 20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
    )
    parts = ray_stream(reader, epochs=1, position=Position()).streaming_split(WORKERS, equal=False)
    rows = [0] * WORKERS

    def take(rank: int, part: Any) -> None:
        tables = unpacked(part.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2))
        for batch in micro_batches(
            tables,
            schema=encoder.schema,
            rows_per_epoch=reader.split.total_rows,
            batch_size=BATCH,
            epochs=1,
            world_rank=rank,
            world_size=WORKERS,
        ):
            rows[rank] += batch.table.num_rows
            time.sleep(pause_s)

    done, spilled = threading.Event(), [0]
    session = Path(context.address_info["session_dir"])
    threading.Thread(target=_watch_spilling, args=(session, spilled, done), daemon=True).start()
    began = time.perf_counter()
    threads = [threading.Thread(target=take, args=pair) for pair in enumerate(parts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    done.set()
    ray.shutdown()
    return {
        "rows": sum(rows),
        "seconds": round(seconds, 1),
        "decoded_mb": round(sum(rows) * ROW_BYTES / 1e6),
        "stored_mb": round(sum(reader.split.sizes) / 1e6),
        "spilled_mb": round(max(spilled) / 1e6),
    }


def _watch_spilling(session: Path, seen: list[int], done: threading.Event) -> None:
    """Bytes that lie in Ray's folder for what does not fit into the store, from time to time."""
    while not done.wait(0.1):
        with contextlib.suppress(OSError):
            files = session.glob("ray_spilled_objects*/**/*")
            seen.append(sum(file.stat().st_size for file in files if file.is_file()))


def measured(uri: str, folder: Path, environment: dict[str, str], *, store_mb: int, pause_s: float) -> dict[str, Any]:
    """One epoch in a process of its own, and the peak of its memory."""
    folder.mkdir()
    command = [sys.executable, __file__, "--feed", uri, "--store-mb", str(store_mb), "--pause-ms", str(pause_s * 1000)]
    with (folder / "out").open("wb") as out, (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--output", str(folder / "report.json")], env=environment, stdout=out, stderr=log
        )
        peak = peak_memory(process, limit_s=1800)
    if process.returncode:
        raise SystemExit((folder / "log").read_text(errors="replace")[-3000:])
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return {**report, "peak_mb": round(peak / 1e6)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 10, 50], help="of the store, decoded")
    parser.add_argument("--store-mb", type=int, default=100)
    parser.add_argument("--pause-ms", type=float, default=20.0, help="of the slow consumers, after each batch")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--feed", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.feed:
        report = feed(
            options.feed, options.output.parent / "cache", store_mb=options.store_mb, pause_s=options.pause_ms / 1000
        )
        options.output.write_text(json.dumps(report))
        return
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as home, serve_s3(Path(home, "s3")) as server:
        environment = {**os.environ, **server.environment()}
        for times in options.times:
            rows = times * (options.store_mb << 20) // ROW_BYTES
            write_images(Path(home, "s3", "bucket", str(times)), rows)
            for pause_s in (0.0, options.pause_ms / 1000):
                folder = Path(home, f"{times}-{pause_s}")
                uri = f"s3://bucket/{times}"
                one = measured(uri, folder, environment, store_mb=options.store_mb, pause_s=pause_s)
                if one["rows"] != rows:
                    raise SystemExit(f"{one['rows']} rows came of {rows}")
                results.append({"times_the_store": times, "pause_ms": pause_s * 1000, **one})
                print(json.dumps(results[-1]), file=sys.stderr)
    report = {"machine": describe_machine(), "store_mb": options.store_mb, "results": results}
    options.output.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
