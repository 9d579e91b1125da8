"""Reading fragments of objects in S3: ours, s3fs's and Arrow's files, and raw ranged GETs as the limit, interleaved.

    python benchmarks/storage_reads.py --rounds 5 --output result.json

The server is `rclone serve s3` on this machine. Every fragment is opened anew, as a data task does.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import s3fs
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from machine import describe_machine

from astraml_ray.cli.s3_server import S3Server, serve_s3
from astraml_ray.data.storage.credentials import OWN
from astraml_ray.data.storage.objects import describe, open_object

GROUPS, GROUP_ROWS, SMALL, LINES_BYTES = 8, 8_000, 100, 8 << 20
Read = Callable[[str, int], int]
"""From an object's key and a fragment's number to the bytes or rows that were read."""


def table(rows: int, seed: int) -> pa.Table:
    """A text, a label, and a column that is not wanted."""
    rng = np.random.default_rng(seed)
    texts = [bytes(line).hex() for line in rng.integers(0, 256, (rows, 120), dtype=np.uint8)]
    noise = [bytes(line) for line in rng.integers(0, 256, (rows, 250), dtype=np.uint8)]
    return pa.table({"text": texts, "label": ["a", "b"] * (rows // 2), "noise": noise})


def fill(folder: Path) -> None:
    """One large Parquet object, many small ones, and one of lines."""
    folder.mkdir()
    pq.write_table(table(GROUPS * GROUP_ROWS, 0), folder / "large.parquet", row_group_size=GROUP_ROWS)
    for n in range(SMALL):
        pq.write_table(table(50, n + 1), folder / f"small-{n:03}.parquet")
    (folder / "lines").write_bytes(os.urandom(4 * LINES_BYTES))


def row_group(open_file: Callable[[str], Any]) -> Read:
    def read(key: str, number: int) -> int:
        with open_file(key) as file:
            parquet = pq.ParquetFile(file, pre_buffer=True)
            return int(parquet.read_row_group(number, columns=["text", "label"], use_threads=False).num_rows)

    return read


def lines(open_file: Callable[[str], IO[bytes]]) -> Read:
    def read(key: str, number: int) -> int:
        with open_file(key) as file:
            file.seek(number * LINES_BYTES)
            return len(file.read(LINES_BYTES))

    return read


class Raw:
    """GETs of known ranges, signed beforehand, over one connection, and nothing done with what comes."""

    def __init__(self, server: S3Server) -> None:
        self._server = server
        self._connection = http.client.HTTPConnection(urlsplit(server.endpoint_url).netloc)
        self._signed: dict[tuple[str, int], tuple[str, dict[str, str], int]] = {}

    def know(self, key: str, ranges: list[tuple[int, int]]) -> None:
        """Signs a request for the range of each fragment of an object."""
        signer = S3SigV4Auth(Credentials(self._server.access_key, self._server.secret_key), "s3", "us-east-1")
        for number, (start, stop) in enumerate(ranges):
            asked = {"Range": f"bytes={start}-{stop - 1}"}
            request = AWSRequest("GET", f"{self._server.endpoint_url}/{key}", headers=asked)
            signer.add_auth(request)
            self._signed[key, number] = f"/{key}", dict(request.headers.items()), stop - start

    def __call__(self, key: str, number: int) -> int:
        path, headers, count = self._signed[key, number]
        self._connection.request("GET", path, headers=headers)
        body = self._connection.getresponse().read()
        assert len(body) == count, body[:200]
        return count


def ranges_of(file: Path) -> list[tuple[int, int]]:
    """Where the wanted columns of each row group lie."""
    footer = pq.ParquetFile(file).metadata
    ranges = []
    for group in range(footer.num_row_groups):
        columns = [footer.row_group(group).column(column) for column in (0, 1)]
        starts = [column.dictionary_page_offset or column.data_page_offset for column in columns]
        sizes = [column.total_compressed_size for column in columns]
        ranges.append((min(starts), max(start + size for start, size in zip(starts, sizes, strict=True))))
    return ranges


def measure(arms: dict[str, Read], work: list[tuple[str, int]], rounds: int) -> dict[str, Any]:
    """Seconds of the whole work, by arm; and medians of the ratios of each round."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(rounds + 1):  # the first opens connections
        for name, read in arms.items():
            started = time.perf_counter()
            done = {read(key, number) for key, number in work}
            if turn:
                seconds[name].append(time.perf_counter() - started)
            assert 0 not in done
    ratios = {
        name: round(statistics.median(ours / theirs for ours, theirs in zip(seconds["ours"], times, strict=True)), 2)
        for name, times in seconds.items()
    }
    return {
        "fragments": len(work),
        "time_of_ours_to": ratios,
        "seconds": {name: [round(one, 4) for one in times] for name, times in seconds.items()},
    }


def compare(server: S3Server, rounds: int) -> dict[str, Any]:
    """The three kinds of work."""
    fill(server.folder / "bench")
    plain = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    arrow = pyarrow.fs.S3FileSystem(
        access_key=server.access_key,
        secret_key=server.secret_key,
        endpoint_override=urlsplit(server.endpoint_url).netloc,
        scheme="http",
        region="us-east-1",
    )
    small = [f"bench/small-{n:03}.parquet" for n in range(SMALL)]
    infos = {key: describe(f"s3://{key}", OWN) for key in ("bench/large.parquet", "bench/lines", *small)}
    raw = Raw(server)
    raw.know("bench/large.parquet", ranges_of(server.folder / "bench" / "large.parquet"))
    raw.know("bench/lines", [(n * LINES_BYTES, (n + 1) * LINES_BYTES) for n in range(4)])
    for key in small:
        raw.know(key, [(0, infos[key].size)])
    files: dict[str, Callable[[str], Any]] = {
        "ours": lambda key: open_object(infos[key], OWN),
        "s3fs, read ahead": lambda key: plain.open(key, "rb", block_size=4 << 20, cache_type="readahead"),
        "s3fs, no cache": lambda key: plain.open(key, "rb", cache_type="none"),
        "arrow": arrow.open_input_file,
    }
    limit: dict[str, Read] = {"raw ranged GETs": raw}
    groups = {name: row_group(open_file) for name, open_file in files.items()}
    return {
        "row groups of one Parquet object": measure(
            {**limit, **groups}, [("bench/large.parquet", n) for n in range(GROUPS)], rounds
        ),
        "small Parquet objects": measure({**limit, **groups}, [(key, 0) for key in small], rounds),
        "ranges of 8 MiB": measure(
            {**limit, **{name: lines(open_file) for name, open_file in files.items()}},
            [("bench/lines", n) for n in range(4)],
            rounds,
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    report: dict[str, Any] = {"machine": describe_machine(), "rounds": options.rounds}
    with tempfile.TemporaryDirectory() as folder, serve_s3(Path(folder)) as server:
        os.environ.update(server.environment())
        report["cases"] = compare(server, options.rounds)
    options.output.write_text(json.dumps(report, indent=1))
    for name, found in report["cases"].items():
        print(f"{name}: time of ours to {found['time_of_ours_to']}")


if __name__ == "__main__":
    main()
