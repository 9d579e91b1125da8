"""The stream of a run through Ray Data: the planned rows for each worker, errors whole, memory bounded."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from astraml_ray.data.blocks import BlockReader
from astraml_ray.data.kept_tokens import TokenKeep
from astraml_ray.data.microbatches import Position, local_blocks, micro_batches
from astraml_ray.data.parcels import unpacked
from astraml_ray.data.stream import ray_stream
from astraml_ray.errors import AstraError, DataError
from astraml_ray.settings import load_settings
from astraml_ray.spec.loading import parse_spec
from astraml_ray.training.preparation import prepare
from astraml_ray.training.worker import split_reader
from tests.conftest import write_dataset

pytestmark = pytest.mark.ray

ROWS, BATCH, EPOCHS, WORKERS = 1005, 8, 2, 3
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "stream_memory.py"


def make_reader(folder: Path) -> BlockReader:
    write_dataset(folder, rows=ROWS, group=100)
    spec = {
        "dataset": str(folder),
        "model": "tiny-bert",
        "hyperparams": {"batch_size": BATCH, "lr": 1e-3, "epochs": EPOCHS, "max_length": 32},
        "augmentation": "light",
    }
    return split_reader(prepare(parse_spec(spec), load_settings())[0], "train", WORKERS)


def streamed(reader: BlockReader, position: Position) -> list[pa.Table | AstraError]:
    """What each worker gets: all its rows, or an error."""
    parts = ray_stream(reader, epochs=EPOCHS, position=position).streaming_split(WORKERS, equal=False)
    found: dict[int, pa.Table | AstraError] = {}

    def take(rank: int, part: Any) -> None:
        tables = unpacked(part.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2))
        try:
            found[rank] = rows_of(reader, tables, rank, position)
        except AstraError as error:
            found[rank] = error

    threads = [threading.Thread(target=take, args=pair) for pair in enumerate(parts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[rank] for rank in range(WORKERS)]


def rows_of(reader: BlockReader, tables: Any, rank: int, position: Position) -> pa.Table:
    batches = micro_batches(
        tables,
        schema=reader.encoder.schema,
        rows_per_epoch=reader.split.total_rows,
        batch_size=BATCH,
        epochs=EPOCHS,
        world_rank=rank,
        world_size=WORKERS,
        position=position,
    )
    return pa.concat_tables([batch.table for batch in batches])


@pytest.mark.parametrize("position", [Position(), Position(0, 400), Position(1, 8)], ids=str)
@pytest.mark.parametrize("kept", [False, True], ids=["augmented", "kept"])
def test_each_worker_gets_its_rows_as_this_process_reads_them(
    cores: int | None, tmp_path: Path, position: Position, kept: bool
) -> None:
    reader = make_reader(tmp_path / "d")
    if kept:
        reader = replace(reader, augmentations=(), keep=TokenKeep(tmp_path / "tokens"))
    plain = replace(reader, keep=None)
    for rank, table in enumerate(streamed(reader, position)):
        read = local_blocks(plain, epochs=EPOCHS, world_rank=rank, position=position)
        assert table.equals(rows_of(plain, read, rank, position))


def test_an_error_reaches_every_worker_as_what_it_is(cores: int | None, tmp_path: Path) -> None:
    reader = make_reader(tmp_path / "d")
    file = tmp_path / "d" / "train.parquet"
    pq.write_table(pq.read_table(file).slice(1), file)
    found = streamed(reader, Position())
    assert [type(error) for error in found] == [DataError] * WORKERS
    assert {error.param for error in found if isinstance(error, DataError)} == {f"file://{file}"}


def test_data_larger_than_the_object_store_goes_through_it(tmp_path: Path) -> None:
    """Decoded it is three times as large: what is not bounded would be spilled, which Ray does without a word."""
    file = tmp_path / "result.json"
    subprocess.run(
        [sys.executable, str(BENCHMARK), "--times", "3", "--store-mb", "100", "--output", str(file)], check=True
    )
    results = json.loads(file.read_text())["results"]
    assert [one["pause_ms"] for one in results] == [0.0, 20.0]
    assert all(one["decoded_mb"] > 300 and one["spilled_mb"] == 0 for one in results)
